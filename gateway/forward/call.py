"""One proxied request: choose a server, send, retry where that is safe, relay the response to the receiver.

Safe means that no byte of the request was sent; or (RFC 9110 §9.2.2) that its method is idempotent, nothing of a response was relayed,
the whole request is still buffered, and it is not marked as ``once``. Idempotent methods need not be safe to repeat for a trader: a
second cancellation may hit another order. Any other failure is final.
"""

from typing import Final

from gateway.errors import Overloaded, Refusal, UpstreamTimeout, UpstreamUnavailable, UpstreamUnreachable
from gateway.forward.pool import Pool
from gateway.forward.ports import Receiver, UpstreamEnd, Waiter
from gateway.forward.upstream_server import UpstreamServer
from gateway.http1.response import ResponseHead
from gateway.runtime import clock

HOST: Final = 4
"""Index of the piece of a request that is replaced by the chosen server's Host line."""
IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
UNKNOWN: Final = (
    ". It may have been executed: before you send it again, check its outcome, for example by its client order id"
    " or in the list of your open orders and trades"
)
"""Appended to a refusal's detail when a request that must not be repeated was sent and its answer was lost."""


class Call(Waiter):
    """See the module.

    :param parts: the request's bytes, with a placeholder at :data:`HOST`; the last one is the whole content, or ``b""`` when it is streamed
    :param streamed: content comes through :meth:`feed`, so it cannot be sent twice
    :param upgrade: whether a 101 is expected
    :param once: never sent again once a byte of it was sent, whatever its method
    :param last: whether its connection must not be reused
    :param client: the client's address
    """

    __slots__ = (
        "_fresh", "_once", "_parts", "_pending", "_refusal", "_streamed", "_tried", "_waited", "connection", "method", "pool", "server",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917  # by position, where it is made on the hot path: interpreted, keywords cost more than the rest
        self, pool: Pool, receiver: Receiver, method: bytes, parts: list[bytes], streamed: bool, upgrade: bool, once: bool, last: bool,
        client: str,
    ) -> None:  # fmt: skip
        self.pool = pool
        self.client = client
        self.held = False
        self.receiver = receiver
        self.method = method
        self.head_only = method == b"HEAD"
        self.upgrade = upgrade
        self.last = last
        self.server: UpstreamServer | None = None
        self.connection: UpstreamEnd | None = None
        self.cancelled = False
        self.whole = not streamed
        self._parts = parts
        self._once = once
        self._streamed = streamed
        self._pending: list[bytes] | None = [] if streamed else None
        self._tried: tuple[UpstreamServer, ...] = ()
        self._fresh = False
        self._refusal: Refusal | None = None
        self._waited = False
        """Set once it has waited for a connection, so that the receiver is asked again whether to send it."""

    def start(self) -> None:
        """Send the request, now or once there is a connection. Reports to the receiver, possibly before this returns; never raises."""
        server = self.pool.choose(self._tried)
        if server is None:
            self.receiver.response_failed(
                self._refusal or UpstreamUnavailable("no server of the upstream service is available; try again later")
            )
            return
        self.server = server
        server.active += 1
        certain = self._once or self.method not in IDEMPOTENT
        connection = None if self._fresh else server.take(certain)
        if connection is not None:
            if not self.send_on(connection):
                server.unused(connection)
            return
        self._waited = True
        if not server.open_for(self, certain, self._fresh):
            self._leave_server(kind="overload")
            self.receiver.response_failed(
                Overloaded("too many requests are queued for this service; try again", resource="upstream_connections")
            )

    def send_on(self, connection: UpstreamEnd) -> bool:
        if self._waited and not self.receiver.request_due():
            self._leave_server()
            return False
        self._waited = True
        self.connection = connection
        self.sent_at = clock.stopwatch()
        if self.server is not None:
            self._parts[HOST] = self.server.host_line
        connection.begin(self, b"".join(self._parts))
        if self._pending is not None:
            pending, self._pending = self._pending, None
            for piece in pending:
                connection.write(piece)
            self.receiver.request_resume()
        return True

    def feed(self, piece: bytes, *, last: bool) -> None:
        """Send more of a streamed request, in the transfer coding of its head."""
        self.whole = last
        if self._pending is not None:
            self._pending.append(piece)
            self.receiver.request_pause()
        elif self.connection is not None:
            self.connection.write(piece)

    def cancel(self) -> None:
        """Abandon the request: nobody waits for its response."""
        self.cancelled = True
        connection = self.connection
        if connection is not None:
            connection.abandon()
        elif self.server is not None:
            self.server.forget(self)
        self._leave_server()

    def finished(self, last: bytes) -> None:
        server, self.server, self.connection = self.server, None, None
        if server is not None:
            server.active -= 1
            condition = server.condition
            if condition.failures:
                condition.succeeded()
            if self.held:
                server.release_share(self)
        self.receiver.response_end(last)

    def switched(self, head: ResponseHead, connection: UpstreamEnd, rest: bytes) -> None:
        """The connection has become a tunnel, which counts as one request on its server until it is closed."""
        if self.server is not None:
            self.server.condition.succeeded()
            self.server.release_share(self)
        self.server = self.connection = None
        self.receiver.response_switched(head, connection, rest)

    def connect_failed(self, reason: str) -> None:
        self._retry_on_another_server(
            UpstreamUnreachable("the upstream service could not be reached; try again", reason=reason), kind="connect"
        )

    def lost(self, reason: str, *, kind: str, reused: bool, head_seen: bool) -> None:
        self.connection = None
        refusal = self._outcome_unknown(UpstreamUnreachable("the upstream service closed the connection before it answered", reason=reason))
        if head_seen:
            self._leave_server(kind=kind)
            self.receiver.response_broken()
        elif self.method not in IDEMPOTENT or self._streamed or self.upgrade or self._once:
            self._leave_server(kind=kind, server_fault=not reused)
            self.receiver.response_failed(refusal)
        elif reused:
            self._leave_server()
            self._fresh = True
            self.pool.metrics.upstream_retries[self.pool.name] += 1
            self.start()
        else:
            self._retry_on_another_server(refusal, kind=kind)

    def timed_out(self, *, head_seen: bool) -> None:
        self._leave_server(kind="timeout")
        if head_seen:
            self.receiver.response_broken()
        else:
            self.receiver.response_failed(self._outcome_unknown(UpstreamTimeout("the upstream service did not answer in time")))

    def queue_timeout(self) -> None:
        self._leave_server(kind="overload", server_fault=False)
        self.receiver.response_failed(
            Overloaded("too many requests are queued for this service; try again", resource="upstream_connections")
        )

    def _outcome_unknown(self, refusal: Refusal) -> Refusal:
        """The refusal, with a warning if the request must not be repeated and may have been executed."""
        if self._once:
            refusal.detail += UNKNOWN
            refusal.extras = {"outcome": "unknown"}
        return refusal

    def _retry_on_another_server(self, refusal: Refusal, *, kind: str) -> None:
        if self.server is not None:
            self._tried += (self.server,)
        self._leave_server(kind=kind)
        self._refusal = refusal
        if len(self._tried) < len(self.pool.servers):
            self.pool.metrics.upstream_retries[self.pool.name] += 1
        self.start()

    def _leave_server(self, *, kind: str = "", server_fault: bool = True) -> None:
        """Leave the server; ``kind`` names the failure, if any, ``server_fault`` is whether it counts against the server."""
        server, self.server, self.connection = self.server, None, None
        if server is None:
            return
        server.active -= 1
        server.release_share(self)
        if kind:
            self.pool.metrics.upstream_errors[(self.pool.name, kind)] += 1
            if server_fault and kind != "overload":
                server.failed()
