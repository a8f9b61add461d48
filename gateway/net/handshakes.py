"""Accepting connections that begin with TLS: each counts from when it is accepted, so that nobody holds more by never finishing.

The event loop's own servers tell a protocol of its connection after the handshake; until then it is counted nowhere.
"""

import asyncio
import socket
import ssl
from abc import abstractmethod
from collections.abc import Callable

import structlog

from gateway.runtime.tasks import cancel, spawn

LAST_S = 1.0
"""How long handshakes under way may take when nothing new is accepted any more."""

_log = structlog.get_logger(__name__)


class Guest(asyncio.Protocol):
    """A protocol that is counted before its connection is made."""

    __slots__ = ()

    @abstractmethod
    def enter(self, peer: str) -> bool:
        """Count it as the peer's; false when that is one too many."""

    @abstractmethod
    def leave(self) -> None:
        """Count it no longer. Doing it twice changes nothing."""


class TlsListener:
    """Accepts connections and has each of them begin TLS.

    :param listening: taken over
    :param guest: makes what serves one connection; it is left when its handshake fails
    :param handshake_s: how long a handshake may take
    """

    def __init__(self, listening: socket.socket, guest: Callable[[], Guest], context: ssl.SSLContext, *, handshake_s: float) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._guest = guest
        self._context = context
        self._handshake_s = handshake_s
        self._beginning: set[asyncio.Task[None]] = set()
        self._accepting = spawn(self._accept(), name="accept TLS")

    async def close(self) -> None:
        """Accept nothing more; see :data:`LAST_S`."""
        await cancel(self._accepting)
        self._listening.close()
        if self._beginning:
            _, late = await asyncio.wait(set(self._beginning), timeout=LAST_S)
            await cancel(*late)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listening)
            except OSError as error:  # out of descriptors, or the client left already
                _log.warning("accept_failed", error=str(error))
                await asyncio.sleep(0.1)
                continue
            guest = self._guest()
            if not guest.enter(str(address[0])):
                accepted.close()
                continue
            task = spawn(self._begin(accepted, guest), name="begin TLS")
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket, guest: Guest) -> None:
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guest, accepted, ssl=self._context, ssl_handshake_timeout=self._handshake_s
            )
        except BaseException as error:
            guest.leave()
            accepted.close()
            if not isinstance(error, OSError):  # what is not TLS, too slow, or gone is the client's own affair
                raise
