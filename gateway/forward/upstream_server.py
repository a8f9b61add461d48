"""One upstream server, as used by one worker: its connections, the requests that wait for one, and its health."""

import asyncio
import ssl
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import structlog

from gateway.forward.balance import Condition
from gateway.forward.connection import Owner, UpstreamConnection
from gateway.forward.fair_queue import FairQueue
from gateway.forward.ports import Waiter
from gateway.net.keepalive import keep_alive
from gateway.runtime import clock
from gateway.runtime.outbox import Outbox
from gateway.runtime.tasks import StallTolerantTimeout, spawn
from gateway.runtime.ticker import Ticker
from gateway.telemetry import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Upstream

_log = structlog.get_logger(__name__)


class UpstreamServer(Owner):
    """See the module.

    :param url: ``http://HOST:PORT`` or ``https://HOST:PORT``
    :param tls: for ``https``, else ``None``
    """

    def __init__(
        self, url: str, settings: "Upstream", *, upstream: str, tls: ssl.SSLContext | None, ticker: Ticker, outbox: Outbox, metrics: Metrics
    ) -> None:
        parts = urlsplit(url)
        self._alone = len(settings.servers) == 1
        self.url = url
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.authority = parts.netloc
        self.host_line = b"host: " + parts.netloc.encode() + b"\r\n"
        self.tls = tls if parts.scheme == "https" else None
        self.server_name = ((settings.tls and settings.tls.server_name) or self.host) if self.tls else None
        self.settings = settings
        self.response_timeout_ms = settings.response_timeout_ms
        self.stream_idle_timeout_ms = settings.stream_idle_timeout_ms
        self.upstream = upstream
        self.ticker = ticker
        self.outbox = outbox
        self.metrics = metrics
        self.condition = Condition()
        self.active = 0
        self.retired = False
        self._latency = metrics.upstream_latency[upstream]
        self._responses = metrics.upstream_responses
        self._classes = [(upstream, f"{hundreds}xx") for hundreds in range(6)]
        self._connections: set[UpstreamConnection] = set()
        self._tunnels: set[UpstreamConnection] = set()
        self._idle: dict[UpstreamConnection, None] = {}  # in the order they became idle; the last one is the warmest
        self._free = self._idle
        """Those that do not count against who uses them: none once a quarter of the connections are open. Otherwise a client could take one
        after the other as others leave them, and keep them all.
        """
        self._max_idle = settings.max_idle_connections
        self._keep_alive_ms = settings.keep_alive_ms
        self._opening = 0
        self._serving_next = False
        self._queue = FairQueue(settings.max_connections)

    # -- called by calls

    def take(self, certain: bool) -> UpstreamConnection | None:
        """Take an idle connection, if there is one that does not count.

        :param certain: check whether the server has closed it, because the request must not be sent twice
        """
        idle = self._free
        while idle:
            connection = idle.popitem()[0]
            if connection.transport.is_closing():
                continue
            if certain and not connection.is_certainly_open():
                connection.close()
                continue
            return connection
        return None

    def _take_counted(self, certain: bool) -> UpstreamConnection | None:
        """:meth:`take` for a call whose client's share it counts against."""
        self._free = self._idle
        try:
            return self.take(certain)
        finally:
            self._count()

    def open_for(self, call: Waiter, certain: bool, fresh: bool) -> bool:
        """Use an idle connection for this call or open one, within its client's share, or queue the call. ``False``: the queue is full.

        :param certain: see :meth:`take`
        :param fresh: do not use an idle one
        """
        queue, reuse = self._queue, bool(self._idle) and not fresh
        if (reuse or self._has_room()) and queue.take(call):
            connection = self._take_counted(certain) if reuse else None
            if connection is None:
                self._begin_opening(call)
            elif not call.send_on(connection):
                self.unused(connection)
            return True
        call.waiting_until_ms = self.ticker.now_ms + self.settings.response_timeout_ms
        refused = queue.enqueue(call)
        if refused is not None and refused is not call:
            refused.queue_timeout()
        return refused is not call

    def forget(self, call: Waiter) -> None:
        """Remove a call from the queue."""
        self._queue.remove(call)

    def release_share(self, call: Waiter) -> None:
        """Release a call's share of the connections, for another call of its client."""
        self._queue.release(call)
        self._serve_next()

    # -- called by connections

    def release(self, connection: UpstreamConnection, reusable: bool) -> None:
        if not reusable or self.retired:
            connection.close()
            return
        if self._queue.count and self._hand_to_waiting(connection):
            return
        if len(self._idle) < self._max_idle:
            connection.park(self.ticker.now_ms + self._keep_alive_ms)
            self._idle[connection] = None
        else:
            connection.close()

    def _hand_to_waiting(self, connection: UpstreamConnection) -> bool:
        """Whether the connection was handed to a waiting call."""
        while self._queue.count and (call := self._queue.next()) is not None:
            connection.park(self.ticker.now_ms)
            if call.send_on(connection):
                return True
        return False

    def unused(self, connection: UpstreamConnection) -> None:
        """Keep the connection idle, or close it."""
        if not self.retired and len(self._idle) < self._max_idle:
            connection.park(self.ticker.now_ms + self._keep_alive_ms)
            self._idle[connection] = None
        else:
            connection.close()

    def switched(self, connection: UpstreamConnection) -> None:
        self._forget(connection)
        self._tunnels.add(connection)
        self._serve_next()

    def gone(self, connection: UpstreamConnection) -> None:
        self.metrics.upstream_connections[self.upstream] -= 1
        if connection in self._tunnels:
            self._tunnels.discard(connection)
            return
        self._forget(connection)
        self._idle.pop(connection, None)
        self._serve_next()

    def used_percent(self) -> int:
        """The percentage of its connections in use."""
        return 100 * (len(self._connections) + self._opening - len(self._idle)) // self.settings.max_connections

    def _forget(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        self._count()

    def _count(self) -> None:
        self._free = self._idle if len(self._connections) <= self.settings.max_connections // 4 else {}

    def _has_room(self) -> bool:
        return len(self._connections) + self._opening < self.settings.max_connections

    def _begin_opening(self, call: Waiter) -> None:
        self._opening += 1
        spawn(self._open(call), name="connect to upstream")

    def _serve_next(self) -> None:
        """Serve waiting calls, with idle connections or new ones."""
        if self._serving_next:  # called again by a call that declined its connection
            return
        self._serving_next, queue = True, self._queue
        try:
            while queue.count and (self._idle or self._has_room()) and (call := queue.next()) is not None:
                connection = self._take_counted(certain=True)
                if connection is None:  # the idle ones have just been closed, and will make room
                    self._begin_opening(call)
                elif not call.send_on(connection):
                    self.unused(connection)
        finally:
            self._serving_next = False

    def observe(self, waiter: Waiter, status: int) -> None:
        self._latency.observe(clock.stopwatch() - waiter.sent_at)
        self._responses[self._classes[status // 100]] += 1

    def failed(self) -> None:
        """Note a failed request that counts against the server."""
        if self._alone:
            return
        was_out = self.condition.ejected(self.ticker.now_ms)
        self.condition.failed(self.ticker.now_ms)
        if not was_out and self.condition.ejected(self.ticker.now_ms):
            _log.warning("upstream_server_ejected", upstream=self.upstream, server=self.url)

    # -- called by the pool

    def sweep(self, now_ms: int) -> None:
        """Act on every deadline that has passed."""
        for connection in [connection for connection in self._connections if connection.deadline_ms <= now_ms]:
            self._idle.pop(connection, None)
            connection.expired()
        for call in self._queue.expired(now_ms):
            call.queue_timeout()

    def inherit(self, condition: Condition | None) -> None:
        """Begin with the state of the same server in the pool that used it before."""
        if condition is not None:
            self.condition = condition.taken_over(checked=self.settings.health is not None, alone=self._alone)

    def retire(self) -> None:
        """Close idle connections now, and busy ones when they become idle: the server is no longer configured."""
        self.retired = True
        for connection in list(self._idle):
            connection.close()
        self._idle.clear()

    def abort(self) -> None:
        """Abort every connection."""
        self.retire()
        for connection in [*self._connections, *self._tunnels]:
            connection.transport.abort()

    async def connect(self) -> UpstreamConnection:
        """Open a new connection.

        :raises OSError: it cannot be established, the certificate does not match the server, or it takes too long
        """
        loop = asyncio.get_running_loop()
        try:
            async with StallTolerantTimeout(self.settings.connect_timeout_ms / 1000):
                connection = UpstreamConnection(self)
                await loop.create_connection(
                    lambda: cast("asyncio.Protocol", connection), self.host, self.port, ssl=self.tls, server_hostname=self.server_name
                )
        except TimeoutError:
            raise ConnectionError(f"no connection within {self.settings.connect_timeout_ms} ms") from None
        keep_alive(connection.transport.get_extra_info("socket"))
        self._connections.add(connection)
        self._count()
        self.metrics.upstream_connections[self.upstream] += 1
        self.metrics.upstream_opened[self.upstream] += 1
        return connection

    async def _open(self, call: Waiter) -> None:
        try:
            connection = await self.connect()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; an invalid host name is a ValueError
            self._opening -= 1
            if call.cancelled:
                self._serve_next()
            else:
                call.connect_failed(f"{self.url}: {error}")
            return
        self._opening -= 1
        if call.cancelled or not call.send_on(connection):
            self.release(connection, reusable=True)
