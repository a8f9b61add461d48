"""Accepts connections on which something comes before the protocol: a PROXY header, the start of TLS, or both.

They count from the moment they are accepted, for their address and in all. The first message of TLS is awaited without TLS, for the answer
to it is what costs: it is given when it is this client's turn, and when all of the message is there, so that nobody can save up turns and
then have many answers at once.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from gateway.net.addresses import customer_network
from gateway.net.proxy_protocol import ProxyHeaderError, read_source
from gateway.net.tally import Tally
from gateway.runtime.tasks import Patience, cancel, spawn

_log = structlog.get_logger(__name__)

BACKLOG: Final = 1_024
AT_ONCE: Final = 4
"""Connections accepted in one turn of the loop."""
REST_SECONDS: Final = 0.1
"""Without accepting, when the process is out of file descriptors."""
LEAST_SHARE: Final = 0.1
"""Of the time for a greeting, what is left for the end of a handshake whose first message took nearly all of it."""
_RECORD_HEAD, _LONGEST_RECORD, _HANDSHAKE = 5, 16_384, 22
"""RFC 8446 §5.1."""


class Host(Protocol):
    """Who serves the connections, as the listener sees it."""

    def sends_header(self, peer: str) -> bool:
        """Whether this peer must send a PROXY header, and is believed."""

    def greeting_seconds(self) -> float:
        """How long a client may take for all that comes before the protocol, while it is its turn: a header, and its part of TLS."""

    def has_room(self, peer: str, of_peer: int, in_all: int) -> bool:
        """Whether one more connection of this peer may be greeted.

        :param of_peer: how many of its network are being greeted; one that is being served already may be among them for a turn of the loop
        :param in_all: how many of anybody's are
        """

    def greeting_failed(self, reason: str) -> None:
        """A connection was dropped for what it sent, or did not send, before the protocol: ``proxy header`` or ``tls``."""

    def in_turn(self, peer: str, begin: Callable[[], None]) -> None:
        """Call this when it is the peer's turn, and begin nothing else in that turn of the loop."""

    def tls_limits(self) -> dict[str, Any]:
        """The event loop's arguments that bound how long TLS may take to end."""

    def client(self, peer: str | None = None, *, believed: bool = True) -> asyncio.Protocol:
        """What serves a client with this address.

        :param believed: false when the header did not say who the client is
        """


class _NoRoom(Exception):
    """Too many connections of this client's."""


class GreetingListener:
    """Reads the PROXY header of peers that send one (others are clients themselves), and starts TLS if there is a context for it."""

    def __init__(self, listening: socket.socket, host: Host, tls: ssl.SSLContext | None) -> None:
        listening.setblocking(False)
        listening.listen(BACKLOG)
        self._listening = listening
        self._host = host
        self._tls = tls
        self._greeted: set[asyncio.Task[None]] = set()
        self._of = Tally()
        """How many are being greeted, by network."""
        self._rest: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Accept nothing more. Who is being greeted goes on."""
        if self._rest is not None:
            self._rest.cancel()
        if self._listening.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()

    def abort(self) -> None:
        """Drop everybody who is being greeted, too."""
        self.close()
        for task in list(self._greeted):
            task.cancel()

    async def finish(self, seconds: float) -> None:
        """Accept nothing more, and drop who is still being greeted after so long."""
        self.close()
        if self._greeted:
            await asyncio.wait(set(self._greeted), timeout=seconds)
        await cancel(*self._greeted)

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
            self._greet(accepted, str(address[0]) if isinstance(address, tuple) else "")

    def _greet(self, accepted: socket.socket, peer: str) -> None:
        network = customer_network(peer)
        if not self._host.has_room(peer, self._of.of(network), len(self._greeted)):
            accepted.close()
            return
        self._of.add(network)
        task = spawn(self._greeting(accepted, peer, network), name="greet a client")
        self._greeted.add(task)
        task.add_done_callback(self._greeted.discard)

    # -- one connection

    async def _greeting(self, sock: socket.socket, peer: str, network: str) -> None:
        reason = "proxy header"
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source: str | None = peer
            loop, seconds = asyncio.get_running_loop(), self._host.greeting_seconds()
            begun = loop.time()
            async with Patience(seconds):
                if self._host.sends_header(peer):
                    source = await read_source(sock)
                    network = self._moved(network, source or peer)
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
            self._host.greeting_failed(reason)
            if reason != "tls":
                _log.info("proxy_header_refused", peer=peer, error=str(error) or "timeout")
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._of.remove(network)

    def _moved(self, network: str, source: str) -> str:
        """Count a connection for who it is from instead.

        :return: the network that it counts for now
        :raises _NoRoom: that has too many
        """
        to = customer_network(source)
        if to != network:
            if not self._host.has_room(source, self._of.of(to), len(self._greeted)):
                raise _NoRoom
            self._of.remove(network)
            self._of.add(to)
        return to

    async def _turn(self, peer: str) -> None:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[None] = loop.create_future()
        self._host.in_turn(peer, lambda: None if begun.done() else begun.set_result(None))
        await begun


async def whole_hello(sock: socket.socket) -> None:
    """Wait until the first record is there as a whole, and leave it there. What is no TLS, or has ended, is there at once.

    :param sock: not blocking
    :raises OSError: the connection is lost
    """
    await _readable(sock, _RECORD_HEAD)
    head = sock.recv(_RECORD_HEAD, socket.MSG_PEEK)
    if len(head) == _RECORD_HEAD and head[0] == _HANDSHAKE:
        await _readable(sock, _RECORD_HEAD + min(int.from_bytes(head[3:]), _LONGEST_RECORD))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _readable(sock: socket.socket, size: int) -> None:
    """Until there are so many bytes, or the end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)
