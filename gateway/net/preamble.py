"""Accepts connections on which something comes before the protocol: a PROXY header, the start of TLS, or both.

Connections are counted from the moment they are accepted, per address and in total. The ClientHello is awaited before TLS is started, since
answering it is expensive: the handshake starts once the message is complete and the client's turn has come, so that nobody can accumulate
turns and then have many handshakes computed at once.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from gateway.net.addresses import owners
from gateway.net.proxy_protocol import ProxyHeaderError, read_source
from gateway.net.tally import Tally
from gateway.runtime.tasks import StallTolerantTimeout, cancel, spawn

_log = structlog.get_logger(__name__)

BACKLOG: Final = 1_024
AT_ONCE: Final = 4
"""Connections accepted per iteration of the event loop."""
REST_SECONDS: Final = 0.1
"""Pause before accepting again when the process is out of file descriptors."""
LEAST_SHARE: Final = 0.1
"""Part of the preamble's time limit that remains for the rest of a handshake, even if its first message took nearly all of it."""
_RECORD_HEAD, _LONGEST_RECORD, _HANDSHAKE = 5, 16_384, 22
"""RFC 8446 §5.1."""


class Host(Protocol):
    """The service that a listener accepts connections for."""

    def sends_header(self, peer: str) -> bool:
        """Whether this peer must send a PROXY header, which is then trusted."""

    def preamble_seconds(self) -> float:
        """Time limit of the preamble: the PROXY header and the client's part of the TLS handshake, excluding the wait for its turn."""

    def has_room(self, peer: str, opening: Tally) -> bool:
        """Whether one more connection from this peer may begin.

        :param opening: preambles in progress; may include, for one iteration of the loop, one that is already being served
        """

    def preamble_failed(self, reason: str) -> None:
        """A connection was dropped because its preamble was invalid or timed out; ``reason`` is ``proxy header`` or ``tls``."""

    def in_turn(self, peer: str, begin: Callable[[], None]) -> None:
        """Call ``begin`` at the peer's turn, and nothing else in that turn of the event loop."""

    def tls_limits(self) -> dict[str, Any]:
        """Arguments of ``loop.connect_accepted_socket`` that limit the duration of the TLS shutdown."""

    def client(self, peer: str | None = None, *, believed: bool = True) -> asyncio.Protocol:
        """The protocol that serves a client with this address.

        :param believed: false if the PROXY header did not name the client
        """


class _NoRoom(Exception):
    """The client has too many connections."""


class PreambleListener:
    """Reads the PROXY header of peers that send one, and starts TLS if there is a context for it."""

    def __init__(self, listening: socket.socket, host: Host, tls: ssl.SSLContext | None) -> None:
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._listening = listening
        self._host = host
        self._tls = tls
        self._pending: set[asyncio.Task[None]] = set()
        self._opening = Tally()
        """Preambles in progress."""
        self._rest: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Stop accepting. Preambles in progress continue."""
        if self._rest is not None:
            self._rest.cancel()
        if self._listening.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()

    def abort(self) -> None:
        """Stop accepting, and drop the preambles in progress."""
        self.close()
        for task in list(self._pending):
            task.cancel()

    async def finish(self, seconds: float) -> None:
        """Stop accepting, and drop preambles that are still in progress after ``seconds``."""
        self.close()
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=seconds)
        await cancel(*self._pending)

    # -- accepting

    def _resume(self) -> None:
        asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of file descriptors
                _log.warning("accept_failed", error=str(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listening)
                self._rest = loop.call_later(REST_SECONDS, self._resume)
                return
            accepted.setblocking(False)
            self._start(accepted, str(address[0]) if isinstance(address, tuple) else "")

    def _start(self, accepted: socket.socket, peer: str) -> None:
        if not self._host.has_room(peer, self._opening):
            accepted.close()
            return
        self._opening.add(owners(peer))
        task = spawn(self._negotiate(accepted, peer), name="connection preamble")
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    # -- one connection

    async def _negotiate(self, sock: socket.socket, peer: str) -> None:
        reason, counted = "proxy header", peer
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source: str | None = peer
            loop, seconds = asyncio.get_running_loop(), self._host.preamble_seconds()
            begun = loop.time()
            async with StallTolerantTimeout(seconds):
                if self._host.sends_header(peer):
                    source = await read_source(sock)
                    self._recount(peer, source or peer)
                    counted = source or peer
                reason = "tls"
                if self._tls is not None:
                    await whole_hello(sock)
            limits = {}
            if self._tls is not None:
                left = max(begun + seconds - loop.time(), seconds * LEAST_SHARE)
                await self._turn(source or peer)
                limits = {"ssl_handshake_timeout": left, **self._host.tls_limits()}
            await loop.connect_accepted_socket(
                lambda: self._host.client(source or peer, believed=source is not None), sock, ssl=self._tls, **limits
            )
        except _NoRoom:
            sock.close()
        except (OSError, TimeoutError, ProxyHeaderError) as error:
            self._host.preamble_failed(reason)
            if reason != "tls":
                _log.info("proxy_header_refused", peer=peer, error=str(error) or "timeout")
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._opening.remove(owners(counted))

    def _recount(self, peer: str, source: str) -> None:
        """Count a connection for the client that the PROXY header names.

        :raises _NoRoom: the client has too many connections
        """
        if owners(source) != owners(peer):
            if not self._host.has_room(source, self._opening):
                raise _NoRoom
            self._opening.remove(owners(peer))
            self._opening.add(owners(source))

    async def _turn(self, peer: str) -> None:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[None] = loop.create_future()
        self._host.in_turn(peer, lambda: None if begun.done() else begun.set_result(None))
        await begun


async def whole_hello(sock: socket.socket) -> None:
    """Wait until the first TLS record is complete, without consuming it. Returns at once if the data is not TLS or has ended.

    :param sock: non-blocking
    :raises OSError: the connection is lost
    """
    await _readable(sock, _RECORD_HEAD)
    head = sock.recv(_RECORD_HEAD, socket.MSG_PEEK)
    if len(head) == _RECORD_HEAD and head[0] == _HANDSHAKE:
        await _readable(sock, _RECORD_HEAD + min(int.from_bytes(head[3:]), _LONGEST_RECORD))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _readable(sock: socket.socket, size: int) -> None:
    """Wait until ``size`` bytes can be read, or end of file."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)
