"""The data plane of one worker: accepts and counts connections, enforces their timeouts, drains.

``process/app.py`` creates it and hands it sockets and, at each reload, the new configuration. No admission decision is made here.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import structlog

from gateway.forward.tunnel import Tunnels
from gateway.http1.body import SHARES, Memory
from gateway.net import descriptors
from gateway.net.addresses import is_site, most_of_site, owners
from gateway.net.keepalive import keep_alive
from gateway.net.preamble import AT_ONCE, BACKLOG, PreambleListener
from gateway.net.tally import NONE, Owners, Tally
from gateway.net.tls import ServerTls
from gateway.runtime.outbox import Outbox
from gateway.runtime.ticker import Ticker
from gateway.server.connection import SHARED, ClientConnection, ConnectionTracker
from gateway.server.serving import Serving
from gateway.server.worker_state import WorkerState
from gateway.telemetry import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings, Limits

_log = structlog.get_logger(__name__)

MAX_EXCESS_REFUSED = 256
"""Connections beyond the limit that are being refused with an answer; more are dropped without one."""
SMALLEST_SHARE = 8
"""Connections that every address may have, however low the limit."""
SHUTDOWN_S = 3_600
"""How long a TLS shutdown may take, including sending what is still unsent. A closing connection enforces its own time limit; a shorter one
here would cut off the end of an answer that is read slowly.
"""
IDLE_GRACE_MS = 200
"""How long idle connections are still read when draining: a request sent just before may be unread in the socket, and closing
would reset it."""
LAST_PREAMBLES_S = 1.0
"""How long PROXY headers and TLS handshakes in progress may take when draining: a client may have sent a request along with the last
message of its handshake."""


class Plane(ConnectionTracker):
    """See the module."""

    def __init__(
        self, settings: "GatewaySettings", serving: Serving, *, outbox: Outbox, tunnels: Tunnels, ticker: Ticker, metrics: Metrics
    ) -> None:
        size = max(settings.limits.body_memory_bytes, 8 * settings.limits.max_body_bytes)
        memory = Memory(size, most_of_site(size // SHARES, size), is_site)
        self.worker = WorkerState(serving, memory=memory, outbox=outbox, tunnels=tunnels, ticker=ticker, metrics=metrics)
        self.tls = ServerTls(settings.listen.tls) if settings.listen.tls is not None else None
        self._connections: set[ClientConnection] = set()
        self._by_owner = Tally()
        self._refused: set[ClientConnection] = set()
        self._servers: list[asyncio.Server | PreambleListener] = []
        self._empty: asyncio.Event | None = None
        self.apply(settings, serving)
        ticker.subscribe(self._sweep)

    def apply(self, settings: "GatewaySettings", serving: Serving) -> None:
        """Use a new configuration version from the next request on. Its limits apply to open connections, too."""
        self.worker.serving = serving
        self._proxy_protocol = settings.client_ip.proxy_protocol
        limits = settings.limits
        self._limit_connections(limits)
        upstreams = settings.upstreams.values()
        self.worker.ticker.fit(
            [limits.header_timeout_ms, limits.body_timeout_ms, limits.idle_timeout_ms]
            + [upstream.response_timeout_ms for upstream in upstreams]
            + [upstream.stream_idle_timeout_ms for upstream in upstreams]
            + [upstream.keep_alive_ms for upstream in upstreams]
        )

    def _limit_connections(self, limits: "Limits") -> None:
        """Set the limits as configured, or lower when there are fewer file descriptors; a network may then have at most an eighth."""
        room, self._most_of_one = descriptors.connections(), limits.max_connections_per_address
        self._most = min(limits.max_connections, room)
        if room < limits.max_connections:
            self._most_of_one = min(self._most_of_one, max(SMALLEST_SHARE, room // 8))
            _log.warning("few_file_descriptors", connections=room, configured=limits.max_connections)
        self._most_of_site = most_of_site(self._most_of_one, self._most)

    # -- serving

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these bound sockets until :meth:`drain` or :meth:`close`."""
        loop = asyncio.get_running_loop()
        context = self.tls.context if self.tls is not None else None
        for listening in sockets:
            keep_alive(listening)  # accepted sockets inherit it
            server: asyncio.Server | PreambleListener
            if self._proxy_protocol or context is not None:
                server = PreambleListener(listening, self, context)
                self._servers.append(server)
                continue
            for handle in (listening, *(listening.dup() for _ in range(AT_ONCE - 1))):  # libuv accepts one connection per turn and handle
                server = await loop.create_server(self.client, sock=handle, backlog=BACKLOG)
                self._servers.append(server)

    async def drain(self, timeout_ms: int) -> bool:
        """Accept no new connections, finish requests in flight, then close everything; idle connections after :data:`IDLE_GRACE_MS`.

        :return: whether everything finished in time
        """
        self.worker.draining = True
        for server in self._servers:
            server.close()
        self.worker.tunnels.close_all()
        self._empty = asyncio.Event()
        closing = asyncio.get_running_loop().call_later(IDLE_GRACE_MS / 1000, self._close_idle)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                for server in self._servers:
                    if isinstance(server, PreambleListener):
                        await server.finish(LAST_PREAMBLES_S)
                while self._connections:  # including those whose preamble has just ended
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            self.close()
            return False
        finally:
            closing.cancel()
        return True

    def _close_idle(self) -> None:
        for connection in list(self._connections):
            _close_if_idle(connection)

    def close(self) -> None:
        """Drop all connections immediately."""
        for server in self._servers:
            if isinstance(server, PreambleListener):
                server.abort()
            else:
                server.close()
        self._servers.clear()
        for connection in [*self._connections, *self._refused]:
            connection.abort()

    # -- called by a listener

    def client(self, peer: str | None = None, *, believed: bool = True) -> asyncio.Protocol:
        """The protocol for an accepted client connection.

        :param peer: the client's address, if it is not the transport's peer
        :param believed: whether its client IP header fields may be believed if it is a trusted proxy
        """
        return cast("asyncio.Protocol", ClientConnection(self.worker, self, peer=peer, believed=believed, secure=self.tls is not None))

    def tls_limits(self) -> dict[str, Any]:
        """The time limit of a TLS shutdown, as keyword arguments of the event loop."""
        return {"ssl_shutdown_timeout": SHUTDOWN_S}

    def preamble_seconds(self) -> float:
        """How long a PROXY header and a client's TLS handshake may take together."""
        return self.worker.serving.header_timeout_ms / 1000

    def has_room(self, peer: str, opening: Tally) -> bool:
        """Whether one more preamble may begin. Those in progress count as connections; a few in excess are refused only afterwards."""
        reason = self._excess(peer, opening, MAX_EXCESS_REFUSED)
        if reason:
            self.worker.metrics.connections_refused[reason] += 1
        return not reason

    def _excess(self, peer: str, opening: Tally, more: int = 0) -> str:
        """The limit that one more connection of this peer would exceed by more than ``more``, or ``""``."""
        if len(self._connections) + opening.total >= self._most + more:
            return "in all"
        whose, counts = owners(peer), self._by_owner
        if counts.room(whose, self._most_of_one, self._most_of_site, opening) + more > 0 or self._is_shared(peer):
            return ""
        return "from your address" if counts.room(whose[-1:], self._most_of_one, 0, opening) + more <= 0 else "from your network"

    def preamble_failed(self, reason: str) -> None:
        """Log a connection that was dropped because its PROXY header or TLS handshake was invalid."""
        self.worker.metrics.connections_refused[reason] += 1

    def in_turn(self, peer: str, begin: Callable[[], None]) -> None:
        """Start a TLS handshake when it is this peer's turn."""
        scheduler = self.worker.scheduler

        def alone() -> None:
            scheduler.close_turn()
            begin()

        if scheduler.may_run():
            alone()
        else:
            scheduler.schedule((f"{SHARED}{id(begin)}",) if self._is_shared(peer) else owners(peer), alone)

    def _is_shared(self, peer: str) -> bool:
        """Whether this peer is a proxy or load balancer that many clients share."""
        return self.is_trusted(peer) or (self._proxy_protocol and self.sends_header(peer))

    def is_trusted(self, peer: str) -> bool:
        """Whether this address is a trusted proxy."""
        return self.worker.serving.proxies.contains(peer)

    def sends_header(self, peer: str) -> bool:
        """Whether this peer begins each connection with a PROXY header."""
        return self.worker.serving.proxy_peers.contains(peer)

    # -- called by connections

    def opened(self, connection: ClientConnection) -> str:
        metrics = self.worker.metrics
        metrics.connections_accepted += 1
        reason = self._excess(connection.peer, NONE)
        if reason:
            metrics.connections_refused[reason] += 1
            self._refused.add(connection)
            return reason if len(self._refused) <= MAX_EXCESS_REFUSED else "at once"
        metrics.connections += 1
        self._connections.add(connection)
        self._by_owner.add(owners(connection.peer))
        if self.worker.draining:  # its preamble was in progress when draining began
            asyncio.get_running_loop().call_later(IDLE_GRACE_MS / 1000, _close_if_idle, connection)
        return ""

    def owners(self, connection: ClientConnection) -> Owners:
        peer = connection.peer
        return (f"{SHARED}{id(connection)}",) if self._is_shared(peer) else owners(peer)

    def closed(self, connection: ClientConnection) -> None:
        if connection in self._refused:
            self._refused.discard(connection)
            return
        self.worker.metrics.connections -= 1
        self._connections.discard(connection)
        self._by_owner.remove(owners(connection.peer))
        if self._empty is not None and not self._connections:
            self._empty.set()

    def used_percent(self) -> dict[str, int]:
        """How much of each resource that this worker's clients share is in use, by the resource's name."""
        memory = self.worker.memory
        return {
            "connections": 100 * len(self._connections) // self._most,
            "body_memory": 100 * (memory.size - memory.left) // memory.size,
        }

    def _sweep(self, now_ms: int) -> None:
        self.worker.tick()
        for connection in [connection for connection in (*self._connections, *self._refused) if connection.deadline_ms <= now_ms]:
            connection.expired()
        self.worker.tunnels.sweep(now_ms, self.worker.serving.limits.tunnel_idle_timeout_ms)


def _close_if_idle(connection: ClientConnection) -> None:
    if connection.idle:
        connection.close_idle()
