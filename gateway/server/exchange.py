"""One request/response exchange, from the request head to the last byte of the answer.

The steps, in order: route → content (buffered where a signature covers it, else streamed) → decide (see ``admission.driver``) → forward
or answer → relay the response. For a read with a cached key all of it happens inside one call from the
event loop: no task, no await.

The phases are listed in ``phases``.
"""

import structlog

from gateway.admission.brief import BriefRefusal
from gateway.admission.driver import Pending, confirm, drive, fetch_and_retry
from gateway.admission.outcome import Admitted, KeyNeeded
from gateway.admission.routes import Route
from gateway.errors import InternalError, Refusal, UpstreamUnavailable
from gateway.forward.call import Call
from gateway.forward.ports import Receiver, UpstreamEnd
from gateway.forward.tunnel import Place
from gateway.http1 import answer
from gateway.http1.body import BodyBuffer
from gateway.http1.forwarding import hops_left, one_hop_less
from gateway.http1.framing import CHUNKED, LAST_CHUNK, Framing, chunk
from gateway.http1.message import Answer, Request
from gateway.http1.response import ResponseHead
from gateway.runtime import clock
from gateway.runtime.tasks import spawn
from gateway.server import reports, upgrade, upstream_request
from gateway.server.phases import DECIDING, DISCARDING, FORWARDED, OVER, RECEIVING, RESPONDING
from gateway.server.ports import ClientEnd
from gateway.server.serving import Serving
from gateway.server.worker_state import WorkerState
from gateway.telemetry.tracing import Trace, Tracing

_log = structlog.get_logger(__name__)

BUFFER_ANYWAY = 65_536
"""Content up to this size is buffered on public routes, too, so that it can be sent again after an idle-connection race."""
DISCARD_AT_MOST = 65_536
"""Bytes of a refused request's content that are read and discarded to keep the connection open; beyond that it is closed."""


class Exchange(Receiver):
    """See the module. Receives the upstream's response as a :class:`gateway.forward.ports.Receiver`.

    :param serving: the configuration version that applies to this request from admission to the access log
    """

    __slots__ = (
        "_admitted", "_buffer", "_call", "_chunked", "_connection", "_framing", "_keep_alive", "_logged", "_pending", "_place",
        "_request", "_route", "_serving", "_trace", "_unsent", "_whole", "_worker", "phase", "streamed",
    )  # fmt: skip

    def __init__(self, worker: WorkerState, serving: Serving, connection: ClientEnd, request: Request, framing: Framing) -> None:
        self._worker = worker
        self._serving = serving
        self._connection = connection
        self._request = request
        self._framing = framing
        self._keep_alive = framing.keep_alive
        self._route: Route | None = None
        self._pending: Pending | None = None
        self._admitted: Admitted | None = None
        self._call: Call | None = None
        self._place: Place | None = None
        self._buffer: BodyBuffer | None = None
        self._unsent = b""
        """The head of the answer, until it is written together with the first content."""
        self._logged: tuple[int, float, float] | None = None
        self._trace: Trace | None = None
        self.phase = RECEIVING
        self.streamed = self._chunked = False
        """The request's content is streamed; the answer is sent chunked."""
        self.authenticated = False
        """Whether it was admitted with a key."""
        self._whole = not framing.length
        """Whether all of the request's content has been received."""

    # -- receiving the request

    def start(self, arrived: int = 0) -> None:
        """The head is complete.

        :param arrived: bytes already received behind it
        """
        request, serving = self._request, self._serving
        if request.method == b"OPTIONS" and (own := _own_options(request, serving)) is not None:
            self._answer(own)
            return
        try:
            self._route = route = serving.gate.route(request)
            if route.websocket and self._framing.upgrade:
                self._keep_alive = False  # whatever the answer: the bytes behind a handshake may be frames
            if self._whole:
                if self._connection.shared:
                    self._decide_in_turn()
                else:
                    self._decide()
                return
            if 0 <= self._framing.length <= arrived:
                self._collect(())  # all of it has been received, and is decided on in this turn
            else:
                self._check_head()
        except KeyNeeded as needed:
            self.phase = DECIDING
            self._connection.pause_content()
            spawn(self._look_up(needed), name="look up a key at the head")
        except Exception as error:  # noqa: BLE001 - a refusal, or a defect that is answered 500
            self._handle_error(error)

    def _check_head(self) -> None:
        """Check the head before any content is buffered.

        :raises Refusal: the head alone shows that the request is refused
        :raises KeyNeeded: the key is not in memory
        """
        if self._route is not None:
            self._collect(self._serving.gate.begin(self._request, self._route))

    async def _look_up(self, needed: KeyNeeded) -> None:
        """Fetch the key, without reading from the client meanwhile."""
        try:
            await fetch_and_retry(self._serving.gate, needed, self._decide_again)
        except Exception as error:  # noqa: BLE001 - a refusal, or a defect that is answered 500
            self._handle_error(error)
        if self.phase == DISCARDING:  # the next request comes behind the content
            self._connection.resume_content()

    def _decide_again(self) -> None:
        if self.phase != DECIDING or self._route is None:  # the client has gone
            return
        owners = self._serving.gate.begin(self._request, self._route)
        self.phase = RECEIVING
        self._collect(owners)
        self._connection.resume_content()

    def _collect(self, owners: tuple[str, ...]) -> None:
        """Begin to accept content.

        :raises BodyTooLarge: the announced length exceeds the limit
        """
        length = self._framing.length
        self._buffer = BodyBuffer(self._serving.limits.max_body_bytes, length, self._worker.memory, owners)
        if self._route is not None and self._route.scope == "public" and not 0 <= length <= BUFFER_ANYWAY:
            self.streamed = True
            self._decide()
        if self._framing.expects_continue and self.phase <= FORWARDED:
            self._connection.write(answer.CONTINUE)

    def content(self, data: bytes, *, last: bool) -> None:
        """Take more of the content, its transfer coding removed."""
        self._whole = last
        if self.phase == DISCARDING:
            if last:
                self._complete()
            return
        if self._buffer is None or self.phase == OVER:
            return
        try:
            self._buffer.add(data, keep=not self.streamed)
        except Refusal as refusal:
            self.fail(refusal)
            return
        if self.streamed:
            self._stream(data, last=last)
        elif last:
            self._request = self._request.with_content(self._buffer.whole(), clock.now_ms())
            self._decide_in_turn()

    def _stream(self, data: bytes, *, last: bool) -> None:
        if self._framing.length == CHUNKED:
            data = chunk(data) if data else b""
            data += LAST_CHUNK if last else b""
        if self._call is not None:
            self._call.feed(data, last=last)

    # -- admission

    def _decide_in_turn(self) -> None:
        """Decide in the turn in which it was read; on a connection shared by many clients, in a turn of the client's own."""
        scheduler = self._worker.scheduler
        if not self._connection.needs_own_turn() or scheduler.may_run():
            self._decide()
        else:
            scheduler.schedule(self._serving.gate.client(self._request), self._take_turn)

    def _take_turn(self) -> None:
        if self.phase == RECEIVING:  # else its client has gone
            self._decide()

    def _decide(self) -> None:
        """Decide, at once unless a key must be looked up or the signature claimed first."""
        route = self._route
        if route is None:
            return
        try:
            decided = drive(self._serving.gate, self._request, route, self._decided)
            if isinstance(decided, Admitted):
                self._on_admitted(decided)
            elif isinstance(decided, BriefRefusal):
                self._refuse_briefly(decided)
            else:
                self._pending = decided
                self.phase = DECIDING
        except Exception as error:  # noqa: BLE001 - a refusal, or a defect that is answered 500
            self._handle_error(error)

    def _decided(self, admitted: Admitted | None, error: BaseException | None) -> None:
        """Continue with the outcome of a decision that had to wait."""
        self._pending = None
        self._admitted = admitted
        if error is not None:  # not raised again: its traceback would refer to this frame, a cycle
            self._handle_error(error)
            return
        try:
            if admitted is not None:
                self._on_admitted(admitted)
        except Exception as failure:  # noqa: BLE001 - a refusal, or a defect that is answered 500
            self._handle_error(failure)

    # -- forwarding

    def _on_admitted(self, admitted: Admitted) -> None:
        """Forward the request, unless the gate answers it itself."""
        self._admitted = admitted
        self.authenticated = admitted.identity is not None
        request, route, serving, framing = self._request, admitted.route, self._serving, self._framing
        self._worker.metrics.admitted[route.pattern] += 1
        if route.builtin:
            self._answer_itself(admitted)
            return
        pool = serving.pools.get(route.upstream)
        if pool is None:
            raise UpstreamUnavailable("this service is not configured", reason=f"no pool {route.upstream!r}")
        if request.method == b"OPTIONS" and (hops := hops_left(request.headers)) is not None:
            if hops == 0:
                self._answer(answer.OPTIONS, more=admitted.answer_headers)
                return
            request = request.replace(headers=one_hop_less(request.headers, hops))
        trace = self._begin_trace(serving.tracing) if serving.tracing is not None else None
        switching = route.websocket and bool(framing.upgrade) and request.method == b"GET"
        parts = upstream_request.parts(request, framing, serving, admitted, pool, self._connection, trace, self.streamed, switching)
        client = admitted.client_ip or request.peer
        if switching:
            key_id = admitted.identity.key_id if admitted.identity is not None else ""
            self._place = self._worker.tunnels.place(serving.limits, client, key_id)
        self.phase = FORWARDED
        once = route.scope == "trade" or admitted.replay is not None
        last = upstream_request.is_last(request.method, framing) if framing.length else False
        self._call = call = Call(pool, self, request.method, parts, self.streamed, switching, once, last, client)
        call.start()

    def _answer_itself(self, admitted: Admitted) -> None:
        serving = self._serving
        if serving.tracing is not None:
            self._begin_trace(serving.tracing)
        given = serving.gate.answer(admitted, self._request)
        self._end_trace(status=given.status)
        self._answer(given, more=admitted.answer_headers)

    def _begin_trace(self, tracing: Tracing) -> Trace:
        """Begin the span, once for each request: after admission or refusal, with what is known then."""
        request = self._request
        self._trace = trace = reports.begin_trace(
            tracing, request, self._route, self._admitted, trusted=lambda: self._serving.proxies.contains(request.peer)
        )
        return trace

    # -- the response (gateway.forward.ports.Receiver)

    def response_interim(self, head: ResponseHead) -> None:
        if head.status != 100 and not self._framing.http10:
            self._connection.write(answer.interim(head))

    def response_head(self, head: ResponseHead) -> None:
        worker, admitted, http10 = self._worker, self._admitted, self._framing.http10
        if admitted is None:
            return
        framing, end, serving = head.framing, answer.END, self._serving
        if head.length < 0:
            self._chunked = not http10
            if http10:  # it has no chunks: the content ends with the connection
                framing, self._keep_alive = b"", False
        if not self._whole or worker.draining:
            self._keep_alive = False
        if http10 or not self._keep_alive:
            end = answer.connection_end(keep_alive=self._keep_alive, http10=http10)
        self.phase = RESPONDING
        cors = b"" if serving.cors is None else serving.cors.lines(self._request)
        self._unsent = answer.relayed(head, worker.date, admitted.answer_headers, framing, end, cors)
        access = serving.access
        if access.enabled and access.sampled() and self._call is not None:
            self._logged = (head.status, *self._stages(self._call))
        if self._trace is not None and self._call is not None:
            self._trace.responded(head.status, *self._stages(self._call))

    def _cors_lines(self) -> bytes:
        cors = self._serving.cors
        return b"" if cors is None else cors.lines(self._request)

    def _stages(self, call: Call) -> tuple[float, float]:
        """Milliseconds from receiving the request to sending it to the upstream, and from then until now."""
        upstream_ms = (clock.stopwatch() - call.sent_at) * 1000
        return max(0.0, clock.now_ms() - self._request.received_ms - upstream_ms), upstream_ms

    def response_data(self, data: bytes) -> None:
        unsent, self._unsent = self._unsent, b""
        if self._chunked and data:
            data = chunk(data)
        if unsent or data:
            self._connection.write(unsent + data)

    def response_end(self, last: bytes) -> None:
        self._call = None
        if self._chunked:
            last = (chunk(last) if last else b"") + LAST_CHUNK
        self._connection.write(self._unsent + last)
        if self._logged is not None and self._admitted is not None:
            status, admission_ms, upstream_ms = self._logged
            reports.log_admitted(self._request, self._admitted, status=status, admission_ms=admission_ms, upstream_ms=upstream_ms)
        if self._trace is not None:
            self._end_trace()
        self._complete()

    def response_switched(self, head: ResponseHead, connection: UpstreamEnd, rest: bytes) -> None:
        self._call = None
        admitted, place = self._admitted, self._place
        self._place = None
        if admitted is None or place is None:
            connection.abandon()
            return
        self.phase = OVER
        self._end_trace(status=head.status)
        upgrade.switch(self._worker, self._serving, self._connection, connection, self._request, admitted, place, head, rest)

    def response_failed(self, refusal: Refusal) -> None:
        self._call = None
        self.fail(refusal)

    def response_broken(self) -> None:
        self._call = None
        self._end_trace("response_broken")
        self._abort()

    def request_due(self) -> bool:
        """Whether its key is unchanged since it was admitted; if not, it waits until the key has been checked again."""
        admitted, gate = self._admitted, self._serving.gate
        if admitted is None or gate.still_valid(admitted):
            return True
        self._pending = confirm(gate, self._request, admitted, self._confirmed)
        return False

    def _confirmed(self, _admitted: Admitted | None, error: BaseException | None) -> None:
        self._pending = None
        try:
            if error is not None:
                raise error
            if self._call is not None:
                self._call.start()
        except Exception as failure:  # noqa: BLE001 - a refusal, or a defect that is answered 500
            self._handle_error(failure)

    def request_pause(self) -> None:
        if not self._whole:
            self._connection.pause_content()

    def request_resume(self) -> None:
        if not self._whole:
            self._connection.resume_content()

    # -- the client's side

    def pause(self) -> None:
        """The client reads more slowly than the upstream sends."""
        if self._call is not None and self._call.connection is not None:
            self._call.connection.pause()

    def resume(self) -> None:
        if self._call is not None and self._call.connection is not None:
            self._call.connection.resume()

    def client_gone(self) -> None:
        self._release()
        self._end_trace("client_gone")
        if self.phase < DISCARDING:
            self._worker.metrics.aborted += 1
        self.phase = OVER

    # -- refusals, and the end

    def fail(self, refusal: Refusal) -> None:
        """Answer with a refusal; a response that has begun is aborted instead, and after a complete answer nothing is sent."""
        self._release()
        phase, serving = self.phase, self._serving
        if phase >= DISCARDING:
            self.phase = OVER
            if phase == DISCARDING:
                self._connection.close()
            return
        if self._trace is None and serving.tracing is not None and phase != RESPONDING:
            self._begin_trace(serving.tracing)
        self._end_trace(refusal.code, None if phase == RESPONDING else refusal.status)
        if phase == RESPONDING:
            self._abort()
            return
        given = serving.gate.render(refusal, self._request)  # decides whether it is explained, and logged
        self._worker.refused(serving, refusal, self._request, self._route.pattern if self._route is not None else None, self._admitted)
        limits = self._admitted.answer_headers if self._admitted is not None else b""
        self._answer(given, more=limits, close=refusal.close)

    def _refuse_briefly(self, refused: BriefRefusal) -> None:
        """As :meth:`fail`, for floods: one write of a pre-rendered answer, and two counters."""
        serving, worker, framing = self._serving, self._worker, self._framing
        plain = serving.tracing is None and serving.cors is None and not framing.http10 and self._request.method != b"HEAD"
        if not (plain and self._whole and self._keep_alive) or worker.draining:
            self.fail(refused.refusal())
            return
        worker.refused_briefly(refused)
        brief = serving.gate.brief(refused, self._request)
        self._connection.write(brief.whole(refused, self._request.request_id, worker.date))
        self._complete()

    def _handle_error(self, error: BaseException) -> None:
        """Answer a refusal; anything else is a defect: 500, with its traceback in the log."""
        if isinstance(error, Refusal):
            self.fail(error)
            return
        _log.error("exchange_failed", request_id=self._request.request_id, exc_info=error)
        self.fail(InternalError("internal error: contact support with the request id", close=True))

    def _answer(self, given: Answer, *, more: bytes = b"", close: bool = False) -> None:
        """Write one of the gate's own answers, then continue with the next request once the rest of this one has been discarded."""
        framing, worker = self._framing, self._worker
        if close or worker.draining or not (self._whole or self._may_discard()):
            self._keep_alive = False
        self._connection.write(
            answer.own(
                given, date=worker.date, more=more + self._cors_lines(), keep_alive=self._keep_alive,
                http10=framing.http10, head_only=self._request.method == b"HEAD",
            )
        )  # fmt: skip
        if self._whole or not self._keep_alive:
            self._complete()
        else:
            self.phase = DISCARDING

    def _complete(self) -> None:
        """End the exchange after a complete answer."""
        if self._place is not None:
            self._release_place()
        self.phase = OVER
        self._connection.finish(self._keep_alive, self.authenticated)

    def _abort(self) -> None:
        """Abort the connection: the only way to tell the client that its response is incomplete."""
        self.phase = OVER
        self._connection.abort()

    def _may_discard(self) -> bool:
        """Whether the rest of the content is small enough to discard, and certain to be sent."""
        return 0 <= self._framing.length <= DISCARD_AT_MOST and not self._framing.expects_continue

    def _release_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.release()

    def _release(self) -> None:
        """Release the pending decision, the upstream call, the buffered content and the tunnel's place."""
        if self._buffer is not None:
            self._buffer.whole()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._release_place()

    def _end_trace(self, error: str = "", status: int | None = None) -> None:
        if self._trace is not None:
            self._trace.end(error, status)
            self._trace = None


def _own_options(request: Request, serving: Serving) -> Answer | None:
    """The gate's own answer to an OPTIONS: one for the gate itself, or a preflight. ``None``: it is routed like any request."""
    if request.target == b"*":
        return answer.OPTIONS
    return serving.cors.preflight(request) if serving.cors is not None else None
