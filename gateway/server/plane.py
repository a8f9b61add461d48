"""The data plane of one worker: listens, counts its connections, watches their deadlines, and drains.

``app.py`` makes one, hands it sockets, and at a reload gives it new settings beside a new gate; who may pass is not decided here.
"""

import asyncio
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from gateway.admission.dialects import CREDENTIAL_FIELDS
from gateway.admission.gate import Admitted, Gate
from gateway.config.settings import GatewaySettings
from gateway.errors import Refusal
from gateway.forward.tunnel import Tunnels
from gateway.forward.upstreams import Upstreams
from gateway.http1.answer import DateLine
from gateway.http1.body import Memory
from gateway.http1.headers import REQUEST_DROP
from gateway.http1.message import Request
from gateway.net.addresses import NetworkList
from gateway.net.proxy_protocol import ProxyProtocolListener
from gateway.net.tls import ServerTls
from gateway.runtime import clock
from gateway.runtime.ticker import Ticker
from gateway.server import reports
from gateway.server.connection import ClientConnection
from gateway.telemetry import AccessLog, Metrics
from gateway.telemetry.tracing import Tracing

BACKLOG = 1_024
CONTENT_BYTES = 256 << 20
"""Of all requests whose content is being collected; more when single ones may be very large."""
TOLD_AT_MOST = 256
"""Connections beyond the limit that are being told so; more are dropped without a word."""
IDLE_GRACE_MS = 200
"""How much longer idle connections are read when draining: what was sent before a client could know lies unread in the socket, and closing
then would reset it."""
TLS_END_S = 1.0
"""Seconds that a client has to answer the end of a TLS connection, before it is just closed."""


class Plane:
    """See the module.

    :param current: the gate in force; asked once for every request
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        current: Callable[[], Gate],
        upstreams: Upstreams,
        tunnels: Tunnels,
        ticker: Ticker,
        metrics: Metrics,
        access: AccessLog,
    ) -> None:
        self.current = current
        self.upstreams = upstreams
        self.outbox = upstreams.outbox
        self.tunnels = tunnels
        self.ticker = ticker
        self.metrics = metrics
        self.access = access
        self.tracing: Tracing | None = None
        self.draining = False
        self.memory = Memory(max(CONTENT_BYTES, 4 * settings.limits.max_body_bytes))
        self._dates = DateLine()
        self.date = self._dates.at(clock.now_ms())
        self.tls = ServerTls(settings.listen.tls) if settings.listen.tls is not None else None
        self._connections: set[ClientConnection] = set()
        self._per_address: Counter[str] = Counter()
        self._refused: set[ClientConnection] = set()
        self._servers: list[asyncio.Server | ProxyProtocolListener] = []
        self._empty: asyncio.Event | None = None
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0
        self.apply(settings)
        ticker.subscribe(self._sweep)

    def apply(self, settings: GatewaySettings) -> None:
        """Take over what a reload may change. Open connections go on under the new limits."""
        self.limits = settings.limits
        self.max_header_bytes = settings.limits.max_header_bytes
        self.idle_timeout_ms = settings.limits.idle_timeout_ms
        self.dropped = REQUEST_DROP | CREDENTIAL_FIELDS | _foldings(settings.client_ip.header.lower().encode())
        """Fields of a request that go no further, whatever it is."""
        self._trusted = NetworkList(settings.client_ip.trusted_proxies)
        self._proxy_protocol = settings.client_ip.proxy_protocol
        limits = settings.limits
        self.ticker.fit(
            [limits.header_timeout_ms, limits.body_timeout_ms, limits.idle_timeout_ms]
            + [timeout for upstream in settings.upstreams.values() for timeout in (upstream.response_timeout_ms, upstream.keep_alive_ms)]
        )

    # -- serving

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these bound sockets until :meth:`drain` or :meth:`close`."""
        loop = asyncio.get_running_loop()
        context = self.tls.context if self.tls is not None else None
        for listening in sockets:
            server: asyncio.Server | ProxyProtocolListener
            if self._proxy_protocol:
                server = ProxyProtocolListener(listening, self, context)
            else:
                server = await loop.create_server(
                    lambda: cast("asyncio.Protocol", ClientConnection(self)),
                    sock=listening,
                    backlog=BACKLOG,
                    ssl=context,
                    **self.tls_limits(),
                )
            self._servers.append(server)

    async def drain(self, timeout_ms: int) -> bool:
        """Take no new connections, let what is in flight finish, close everything: what is idle after :data:`IDLE_GRACE_MS`.

        :return: whether all of it finished in time
        """
        self.draining = True
        for server in self._servers:
            server.close()
        self.tunnels.close_all()
        self._empty = asyncio.Event()
        if not self._connections:
            self._empty.set()
        closing = asyncio.get_running_loop().call_later(IDLE_GRACE_MS / 1000, self._close_idle)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._empty.wait()
        except TimeoutError:
            self.close()
            return False
        finally:
            closing.cancel()
        return True

    def _close_idle(self) -> None:
        for connection in list(self._connections):
            if connection.idle:
                connection.close_idle()

    def close(self) -> None:
        """Drop everything at once."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in [*self._connections, *self._refused]:
            connection.abort()

    def tls_limits(self) -> dict[str, Any]:
        """How long a client's TLS may take to begin and to end, as the event loop wants to be told."""
        return {"ssl_handshake_timeout": self.limits.header_timeout_ms / 1000, "ssl_shutdown_timeout": TLS_END_S} if self.tls else {}

    def client(self, peer: str | None = None) -> asyncio.Protocol:
        """A connection for a client that has come.

        :param peer: who it is from, when not the transport's own peer
        """
        return cast("asyncio.Protocol", ClientConnection(self, peer=peer))

    # -- for connections and exchanges

    def opened(self, connection: ClientConnection) -> str:
        """Count a new connection. A reason when there are too many: ``"at once"`` when there is not even time to say so."""
        peer = connection.peer
        limits, metrics = self.limits, self.metrics
        metrics.connections_accepted += 1
        reason = ""
        if len(self._connections) >= limits.max_connections:
            reason = "in all"
        elif self._per_address[peer] >= limits.max_connections_per_address and not self.is_trusted(peer):
            reason = "from your address"
        if reason:
            metrics.connections_refused[reason] += 1
            self._refused.add(connection)
            return reason if len(self._refused) <= TOLD_AT_MOST else "at once"
        metrics.connections += 1
        self._connections.add(connection)
        self._per_address[peer] += 1
        return ""

    def closed(self, connection: ClientConnection) -> None:
        """Forget a connection."""
        if connection in self._refused:
            self._refused.discard(connection)
            return
        self.metrics.connections -= 1
        self._connections.discard(connection)
        peer = connection.peer
        self._per_address[peer] -= 1
        if not self._per_address[peer]:
            del self._per_address[peer]
        if self._empty is not None and not self._connections:
            self._empty.set()

    def is_trusted(self, peer: str) -> bool:
        """Whether many clients may stand behind this address, and its PROXY header be believed."""
        return self._trusted.contains(peer)

    def next_request_id(self) -> str:
        """Unique over all workers and restarts; says nothing and is no secret."""
        self._id_count += 1
        return f"{self._id_prefix}{self._id_count:010x}"

    def refused(self, refusal: Refusal, request: Request | None, route: str | None = None, admitted: Admitted | None = None) -> None:
        """Count and log a refusal."""
        self.metrics.refused[refusal.code] += 1
        if self.access.enabled:
            reports.log_refused(self.access, refusal, request, route, admitted)

    def _sweep(self, now_ms: int) -> None:
        self.date = self._dates.at(clock.now_ms())
        for connection in [connection for connection in (*self._connections, *self._refused) if connection.deadline_ms <= now_ms]:
            connection.expired()
        self.tunnels.sweep(now_ms)


def _foldings(name: bytes) -> set[bytes]:
    """All names that are one where ``_`` and ``-`` are folded (CGI, WSGI: RFC 3875 §4.1.18); the configuration bounds how many."""
    parts = name.replace(b"_", b"-").split(b"-")
    found = {parts[0]}
    for part in parts[1:]:
        found = {begun + mark + part for begun in found for mark in (b"-", b"_")}
    return found
