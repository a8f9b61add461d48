"""One request and its answer, from the head to the last byte.

The story, top to bottom: route → content (buffered where the signature covers it, streamed where nobody signs) → admit (a key that is
not in memory is looked up first; a trade is claimed at the replay guard) → forward or answer → relay the response. On the read path of a
known key all of it happens inside one call from the event loop: no task, no await.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from gateway.admission.gate import Admitted, Gate, KeyNeeded
from gateway.admission.routes import Route
from gateway.errors import InternalError, KeyStoreUnavailable, Refusal, UpstreamUnavailable
from gateway.forward.call import Call, Receiver
from gateway.forward.connection import UpstreamConnection
from gateway.forward.tunnel import Tunnel
from gateway.http1 import answer
from gateway.http1.body import BodyBuffer
from gateway.http1.framing import CHUNKED, Framing
from gateway.http1.headers import request_lines
from gateway.http1.message import Answer, Request
from gateway.http1.response import ResponseHead
from gateway.runtime import clock
from gateway.runtime.tasks import spawn
from gateway.server import reports
from gateway.telemetry.tracing import Trace, Tracing

if TYPE_CHECKING:
    from gateway.server.connection import ClientConnection
    from gateway.server.plane import Plane

_log = structlog.get_logger(__name__)

BUFFER_ANYWAY = 65_536
"""Content up to this size is buffered on public routes, too: what is held whole can be sent again after an idle-connection race."""
DISCARD_AT_MOST = 65_536
"""Content of a refused request that is read and thrown away to keep the connection; over that it is closed."""
MAX_LOOKUPS = 3
"""A key that vanishes from memory right after it was looked up is asked for again, but not for ever."""
# What happens to the request's content as it comes. Plain integers: an enumeration's members are slow to name for every request.
_NONE: Final = 0
_BUFFERED: Final = 1
_STREAMED: Final = 2
_DISCARDED: Final = 3
_WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})


class Exchange(Receiver):
    """See the module. Receives the upstream's response as a :class:`gateway.forward.call.Receiver`."""

    __slots__ = (
        "_admitted", "_answered", "_buffer", "_call", "_chunked", "_connection", "_content", "_framing", "_gate", "_gone", "_head_sent",
        "_keep_alive", "_logged", "_out", "_plane", "_pools", "_request", "_route", "_trace", "_whole",
    )  # fmt: skip

    def __init__(self, plane: "Plane", connection: "ClientConnection", request: Request, framing: Framing) -> None:
        self._plane = plane
        self._connection = connection
        self._request = request
        self._framing = framing
        self._keep_alive = framing.keep_alive and not framing.upgrade
        self._gate: Gate = plane.current()
        self._pools = plane.upstreams.pools
        self._route: Route | None = None
        self._admitted: Admitted | None = None
        self._call: Call | None = None
        self._content = _NONE
        self._buffer: BodyBuffer | None = None
        self._whole = framing.length == 0
        self._out: list[bytes] = []
        self._logged: tuple[int, float, float] | None = None
        self._trace: Trace | None = None
        self._chunked = self._head_sent = self._answered = self._gone = False

    # -- the request, as it comes

    def start(self) -> None:
        """The head is complete."""
        try:
            self._route = route = self._gate.route(self._request)
            if self._whole:
                self._admit()
                return
            self._buffer = BodyBuffer(self._plane.limits.max_body_bytes, self._framing.length, self._plane.memory)
        except Refusal as refusal:
            self.fail(refusal)
            return
        except Exception as error:  # noqa: BLE001 - a defect answers 500, with its traceback in the log
            self._defect(error)
            return
        streamed = route.scope == "public" and not 0 <= self._framing.length <= BUFFER_ANYWAY
        self._content = _STREAMED if streamed else _BUFFERED
        if streamed:
            self._admit()
        if self._framing.expects_continue and not self._answered:
            self._connection.write(answer.CONTINUE)

    def content(self, data: bytes, *, last: bool) -> None:
        """More of the content, coding removed."""
        self._whole = last
        if self._content == _DISCARDED or self._buffer is None:
            if last and self._answered:
                self._connection.finish(keep_alive=self._keep_alive)
            return
        try:
            self._buffer.add(data, keep=self._content == _BUFFERED)
        except Refusal as refusal:
            self.fail(refusal)
            return
        if self._content == _STREAMED:
            self._stream(data, last=last)
        elif last:
            self._request = self._request.with_content(self._buffer.whole(), clock.now_ms())
            self._admit()

    @property
    def streaming(self) -> bool:
        return self._content == _STREAMED

    def _stream(self, data: bytes, *, last: bool) -> None:
        if self._framing.length == CHUNKED:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            data += answer.LAST_CHUNK if last else b""
        if self._call is not None:
            self._call.feed(data, last=last)

    # -- may it pass?

    def _admit(self, lookups: int = 0) -> None:
        gate, route = self._gate, self._route
        if route is None or self._gone:
            return
        try:
            self._admitted = admitted = gate.admit(self._request, route)
            if admitted.replay is None:
                self._passed(admitted)
            else:
                gate.claim(admitted).add_done_callback(self._claimed)
        except KeyNeeded as needed:
            spawn(self._look_up(needed, lookups + 1), name="look up a key")
        except Refusal as refusal:
            self.fail(refusal)
        except Exception as error:  # noqa: BLE001 - a defect answers 500, with its traceback in the log
            self._defect(error)

    async def _look_up(self, needed: KeyNeeded, lookups: int) -> None:
        """The key is not in this process's memory."""
        try:
            if lookups > MAX_LOOKUPS:
                raise KeyStoreUnavailable("the key could not be held; try again", reason="evicted as soon as it was fetched")
            await self._gate.resolve(needed)
        except Refusal as refusal:
            self.fail(refusal)
        except Exception as error:  # noqa: BLE001 - a defect answers 500, with its traceback in the log
            self._defect(error)
        else:
            self._admit(lookups)

    def _claimed(self, claim: "asyncio.Future[None]") -> None:
        """The replay guard has answered."""
        if self._gone or claim.cancelled() or self._admitted is None:
            return
        error = claim.exception()
        if error is None:
            try:
                self._passed(self._admitted)
            except Exception as defect:  # noqa: BLE001 - a defect answers 500, with its traceback in the log
                self._defect(defect)
        elif isinstance(error, Refusal):
            self.fail(error)
        else:
            self._defect(error)

    # -- it may

    def _passed(self, admitted: Admitted) -> None:
        route = admitted.route
        self._plane.metrics.admitted[route.pattern] += 1
        if route.builtin:
            if self._plane.tracing is not None:
                self._begin_trace(self._plane.tracing)
            given = self._gate.answer(admitted, self._request)
            self._end_trace(status=given.status)
            self._give(given, more=admitted.answer_headers)
        else:
            self._forward(admitted)

    def _forward(self, admitted: Admitted) -> None:
        """Strip first, set last (architecture decision 7)."""
        request, framing, route = self._request, self._framing, admitted.route
        pool = self._pools.get(route.upstream)
        if pool is None:
            raise UpstreamUnavailable("this service is not configured", reason=f"no pool {route.upstream!r}")
        upgrade = route.websocket and bool(framing.upgrade)
        drop = self._plane.dropped
        if framing.named:
            drop |= framing.named
        parts = [
            request.method + b" " + request.target + b" HTTP/1.1\r\n",
            b"",  # the server's Host line, once a server is chosen
            request_lines(request.headers, drop),
            pool.identity_lines.at(admitted.identity, request.received_ms),
            self._connection.client_lines(admitted.client_ip, framing.host),
            b"x-request-id: ",
            request.request_id.encode(),
            b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n" if upgrade else self._content_lines(),
            request.body,
        ]
        if self._plane.tracing is not None:
            trace = self._begin_trace(self._plane.tracing)
            if trace.line:
                parts[2] = request_lines(request.headers, drop | trace.replaced) + trace.line
        self._call = call = Call(pool, self, request.method, parts, streamed=self._content == _STREAMED, upgrade=upgrade)
        call.start()

    def _begin_trace(self, tracing: Tracing) -> Trace:
        """Once for a request, at whatever end of the admission: with what is known by then."""
        request = self._request
        self._trace = trace = reports.begin_trace(
            tracing, request, self._route, self._admitted, trusted=lambda: self._plane.is_trusted(request.peer)
        )
        return trace

    def _content_lines(self) -> bytes:
        """From the end of the request id's line to the end of the head."""
        if self._content == _STREAMED:
            length = self._framing.length
            return b"\r\ntransfer-encoding: chunked\r\n\r\n" if length == CHUNKED else b"\r\ncontent-length: %d\r\n\r\n" % length
        body = self._request.body
        if body or self._request.method in _WITH_CONTENT:
            return b"\r\ncontent-length: %d\r\n\r\n" % len(body)
        return b"\r\n\r\n"

    # -- the response (gateway.forward.call.Receiver)

    def response_interim(self, head: ResponseHead) -> None:
        if head.status != 100 and not self._framing.http10:
            self._connection.write(answer.interim(head))

    def response_head(self, head: ResponseHead) -> None:
        plane, admitted, http10 = self._plane, self._admitted, self._framing.http10
        if admitted is None:
            return
        framing, self._chunked = head.framing, head.length < 0
        if http10 and self._chunked:  # chunks do not exist there: the content ends with the connection
            framing, self._chunked, self._keep_alive = b"", False, False
        if not self._whole or plane.draining:
            self._keep_alive = False
        self._head_sent = True
        end = answer.connection_end(keep_alive=self._keep_alive, http10=http10)
        self._out.append(answer.relayed(head, plane.date, admitted.answer_headers, framing, end))
        if plane.access.enabled and plane.access.sampled() and self._call is not None:
            self._logged = (head.status, *self._stages(self._call))
        if self._trace is not None and self._call is not None:
            self._trace.responded(head.status, *self._stages(self._call))

    def _stages(self, call: Call) -> tuple[float, float]:
        """Milliseconds from the request's receipt to its sending to the upstream, and from there to now."""
        upstream_ms = (clock.stopwatch() - call.sent_at) * 1000
        return max(0.0, clock.now_ms() - self._request.received_ms - upstream_ms), upstream_ms

    def response_data(self, data: bytes) -> None:
        self._out.append(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def response_flush(self) -> None:
        if self._out:
            out, self._out = b"".join(self._out), []
            self._connection.write(out)

    def response_end(self) -> None:
        self._call = None
        self._answered = True
        if self._chunked:
            self._out.append(answer.LAST_CHUNK)
        out = self._out
        self._connection.write(out[0] if len(out) == 1 else b"".join(out))
        if self._logged is not None and self._admitted is not None:
            status, admission_ms, upstream_ms = self._logged
            reports.log_admitted(
                self._plane.access, self._request, self._admitted, status=status, admission_ms=admission_ms, upstream_ms=upstream_ms
            )
        self._end_trace()
        self._connection.finish(keep_alive=self._keep_alive)

    def response_switched(self, head: ResponseHead, connection: UpstreamConnection, rest: bytes) -> None:
        self._call = None
        admitted, tunnels = self._admitted, self._plane.tunnels
        if admitted is None or self._gone:
            connection.abandon()
            return
        self._end_trace(status=head.status)
        key_id = admitted.identity.key_id if admitted.identity is not None else None
        tunnel = Tunnel(self._connection, connection, tunnels, key_id=key_id, expires_ms=admitted.expires_ms)
        self._connection.write(answer.switching(head, admitted.answer_headers))
        connection.far = tunnel
        tunnels.add(tunnel)
        self._connection.become(tunnel)
        if rest:
            tunnel.upstream_data(rest)

    def response_failed(self, refusal: Refusal) -> None:
        self._call = None
        self.fail(refusal)

    def response_broken(self) -> None:
        """The client has part of a response: only cutting the connection tells it so."""
        self._call = None
        self._end_trace("response_broken")
        self._connection.abort()

    def request_pause(self) -> None:
        if not self._whole:
            self._connection.pause_content()

    def request_resume(self) -> None:
        if not self._whole:
            self._connection.resume_content()

    # -- the client's side

    def pause(self) -> None:
        """The client does not read as fast as the upstream sends."""
        if self._call is not None and self._call.connection is not None:
            self._call.connection.pause()

    def resume(self) -> None:
        if self._call is not None and self._call.connection is not None:
            self._call.connection.resume()

    def client_gone(self) -> None:
        self._gone = True
        self._let_go()
        self._end_trace("client_gone")
        if not self._answered:
            self._plane.metrics.aborted += 1

    # -- it may not

    def fail(self, refusal: Refusal) -> None:
        """Answer with a refusal, once; a response that has begun is cut off instead."""
        self._let_go()
        if self._trace is None and self._plane.tracing is not None and not (self._answered or self._head_sent or self._gone):
            self._begin_trace(self._plane.tracing)
        self._end_trace(refusal.code, None if self._head_sent or self._gone else refusal.status)
        if self._gone or self._answered:
            if self._answered:
                self._connection.close()
            return
        if self._head_sent:
            self._connection.abort()
            return
        self._plane.refused(refusal, self._request, self._route.pattern if self._route is not None else None, self._admitted)
        limits = self._admitted.answer_headers if self._admitted is not None else b""
        self._give(self._gate.render(refusal, self._request), more=limits, close=refusal.close)

    def _defect(self, error: BaseException) -> None:
        _log.error("exchange_failed", request_id=self._request.request_id, exc_info=error)
        self.fail(InternalError("the gate failed; the request id tells us where", close=True))

    def _give(self, given: Answer, *, more: bytes = b"", close: bool = False) -> None:
        """Write an answer of the gate's own, then go on to the next request once the rest of this one is out of the way."""
        framing = self._framing
        if close or self._plane.draining or not (self._whole or self._may_discard()):
            self._keep_alive = False
        self._answered = True
        self._connection.write(
            answer.own(
                given, date=self._plane.date, more=more, keep_alive=self._keep_alive,
                http10=framing.http10, head_only=self._request.method == b"HEAD",
            )
        )  # fmt: skip
        if self._whole or not self._keep_alive:
            self._connection.finish(keep_alive=self._keep_alive)
        else:
            self._content = _DISCARDED

    def _may_discard(self) -> bool:
        """Whether what is left of the content is small enough to wait for, and will surely come."""
        return 0 <= self._framing.length <= DISCARD_AT_MOST and not self._framing.expects_continue

    def _let_go(self) -> None:
        """Of the upstream and of content held."""
        if self._buffer is not None:
            self._buffer.whole()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _end_trace(self, error: str = "", status: int | None = None) -> None:
        if self._trace is not None:
            self._trace.end(error, status)
            self._trace = None
