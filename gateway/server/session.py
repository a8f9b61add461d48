"""A WebSocket session: each client message is admitted individually, in order; the upstream's frames pass unchanged.

    client ─► reader ─► queue ─► decision ─► member ``gateway`` added ─► masked again ─► service
    client ◄─ refusals, between two messages of the service ◄────── unchanged frames ◄─ service

While one message waits for a look-up or a claim, up to :data:`~gateway.server.queued.MAX_WAITING` more are queued; then the client is
not read. Behind a message that waits only for its claim, others are decided meanwhile, so that their claims share a round trip; all are
delivered in order. The client is not read either while the service or the client itself reads more slowly than the other side sends.
Control frames pass at once.
"""

import asyncio
from typing import Final

import structlog

from gateway.admission import rules
from gateway.admission.brief import BriefRefusal
from gateway.admission.driver import confirm, drive
from gateway.admission.outcome import Admitted
from gateway.admission.routes import Route
from gateway.admission.sessions import LOG_IN, LOG_OUT, SESSIONS, STATUS, Message, Shape
from gateway.errors import InternalError, NoRoute, Overloaded, Refusal, UpstreamUnavailable
from gateway.forward.ports import UpstreamEnd
from gateway.forward.tunnel import Downstream, Tunnel
from gateway.http1.message import Identity, Request
from gateway.runtime import clock
from gateway.server.queued import MessageQueue, Queued
from gateway.server.serving import Serving
from gateway.server.worker_state import WorkerState
from gateway.websocket.frames import CLOSE, GOING_AWAY, POLICY_VIOLATION, TEXT, Masks, frame
from gateway.websocket.messages import FAILED, Event, MessageReader

_log = structlog.get_logger(__name__)

AT_ONCE: Final = 64
"""Messages and control frames processed in one turn, before other connections have theirs."""
BYTES_AT_ONCE: Final = 4_096
"""Bytes of messages processed in one turn. A longer message has a turn of its own."""
MAX_KEYS: Final = 32
"""Keys that one connection may use."""
MAX_HELD: Final = 65_536
"""Bytes of refusals held while a message of the service is incomplete, before the client is not read. A refusal that answers a subscription
to many events is up to forty times as long as it."""
SHUTDOWN_MS: Final = 1_000
"""How long a session continues after its client has been notified that the gateway is about to close it."""
CLOSE_MS: Final = 5_000
"""How long the service may take to answer the client's Close frame."""

_masks = Masks()


class Session(Tunnel):
    """See the module. Reads on the client's side, and closes as a tunnel does.

    :param client: the handshake that opened it
    :param route: its route, per ``serving``
    """

    __slots__ = (
        "_authenticated", "_client", "_client_full", "_end", "_finished", "_gateway_frames", "_key_id", "_leaving", "_logged_in_ms",
        "_queue", "_reader", "_route", "_scheduled", "_service_full", "_serving", "_shapes", "_since_ms", "_stopped", "_worker", "_working",
    )  # fmt: skip

    def __init__(
        self, worker: WorkerState, serving: Serving, downstream: Downstream, upstream: UpstreamEnd, *, client: Request, route: Route
    ) -> None:
        super().__init__(downstream, upstream, worker.tunnels)
        self._worker = worker
        self._serving = serving
        self._client = client
        self._route = route
        self._reader = MessageReader(serving.limits.max_message_bytes)
        self._queue = MessageQueue()
        self._end: Event | None = None
        """The last frame from the client: its Close frame, or a protocol error."""
        self._gateway_frames = b""
        """The gateway's own frames for the client, held until the service's current message ends."""
        self._key_id = ""
        """The id of the key that has logged in."""
        self._since_ms = client.received_ms
        self._logged_in_ms = 0
        self._authenticated = False
        """Whether the latest message was admitted with a key; other clients are scheduled by :mod:`~.fair_scheduler`."""
        self._shapes: list[Shape] | None = None
        """Shapes of earlier messages; recorded only once a message was admitted with a key."""
        self._client_full = self._service_full = self._scheduled = self._working = self._leaving = self._finished = self._stopped = False

    # -- from the client

    def client_data(self, data: bytes) -> None:
        if self._stopped or self._end is not None:
            return
        self.active_ms = self._registry.now_ms
        self._reader.feed(data)
        self._work()

    def client_full(self) -> None:
        self._client_full = True
        self._upstream.pause()
        self._read_or_not()

    def client_drained(self) -> None:
        self._client_full = False
        self._upstream.resume()
        self._work()

    def client_closed(self) -> None:
        self._stop()
        super().client_closed()

    # -- from the service

    def upstream_data(self, data: bytes) -> None:
        if self._closing or not self._gateway_frames:
            super().upstream_data(data)
            return
        rest = self._down.until_message_end(data)
        if rest:
            self._downstream.write(data[:rest])
        if self._down.between_messages:
            frames, self._gateway_frames = self._gateway_frames, b""
            self._downstream.write(frames)
            if rest < len(data):
                super().upstream_data(data[rest:])
            self._work()

    def upstream_full(self) -> None:
        self._service_full = True
        self._read_or_not()

    def upstream_drained(self) -> None:
        self._service_full = False
        self._work()

    def upstream_closed(self) -> None:
        self._stop()
        super().upstream_closed()

    # -- from the gate

    def close(self, code: int, reason: str, *, now_ms: int) -> None:
        """See :meth:`Tunnel.close`. Queued messages are dropped."""
        self._stop()
        super().close(code, reason, now_ms=now_ms)

    def shut_down(self, *, now_ms: int) -> None:
        """Notify the client, continue for a moment, then close."""
        if self._leaving or self._finished or self._closing:
            return
        self._leaving = True
        notice = SESSIONS[self._route.session].shutdown_notice(clock.now_ms())
        if notice:
            self._send(notice)
        self._end_by(now_ms + SHUTDOWN_MS)

    def deadline_passed(self) -> None:
        """Abort both connections: a time limit has passed."""
        if self._leaving and not self._closing:
            self.close(GOING_AWAY, "shutting down", now_ms=self._worker.ticker.now_ms)
        else:
            super().deadline_passed()

    # -- messages, in order

    def _work(self, *, turn: bool = False) -> None:
        """Process what has been received, as far as there is room, and decide the next messages.

        :param turn: whether the first message may be processed without waiting for a turn
        """
        if self._working:
            return
        self._working = True
        try:
            self._process(turn=turn)
        finally:
            self._working = False
        self._read_or_not()

    def _process(self, *, turn: bool) -> None:
        now_ms, scheduler, queue = self._worker.ticker.now_ms, self._worker.scheduler, self._queue
        room = BYTES_AT_ONCE
        for _ in range(AT_ONCE):
            if self._stopped:
                return
            if room <= 0 or not (self._authenticated or turn or scheduler.may_run()):
                break
            turn = False
            if self._service_full or self._client_full or len(self._gateway_frames) >= MAX_HELD:
                return
            if queue.undecided and queue.may_decide():
                text = queue.take()
                room -= len(text)
                self._decide(text)
                continue
            if self._end is not None:
                if not queue.begun:
                    self._finish_client(self._end)
                return
            if queue.is_full(self._reader.max_bytes):
                return
            event = self._reader.next(now_ms)
            if event is None:
                return
            room -= len(event.payload)
            self._receive(event)
        if not self._scheduled:  # the rest is processed after other connections have had their turn
            self._scheduled = True
            if self._authenticated:
                asyncio.get_running_loop().call_soon(self._again)
            else:
                scheduler.schedule(self.place.owners if self.place is not None else ("",), self._again)

    def _receive(self, event: Event) -> None:
        if event.opcode == TEXT:
            if not self._queue.undecided and self._queue.may_decide():
                self._decide(event.payload)
            else:
                self._queue.receive(event.payload)
        elif event.opcode in {CLOSE, FAILED}:
            self._end = event
        else:
            self._set_authenticated(False)
            self._upstream.write(frame(event.opcode, event.payload, mask=_masks.next()))

    def _again(self) -> None:
        self._scheduled = False
        self._work(turn=True)

    def _read_or_not(self) -> None:
        """Read from the client only while there is room for more."""
        full = self._service_full or self._client_full or self._reader.waiting or len(self._gateway_frames) >= MAX_HELD
        if self._stopped or not (full or self._queue.is_full(self._reader.max_bytes)):
            self._downstream.resume_reading()
        else:
            self._downstream.pause_reading()

    def _decide(self, text: bytes) -> None:
        worker = self._worker
        decision = Queued(worker.next_request_id(), len(text), self.decided)
        try:
            route = self._current_route()
            gate = self._serving.gate
            dialect = SESSIONS[route.session]
            decision.message = message = dialect.read(text, self._client, self._key_id, clock.now_ms(), decision.request_id, self._shapes)
            decided = drive(gate, message, gate.method(message, route), decision.settled)
            if isinstance(decided, Admitted):
                decision.admitted, decision.known = decided, True
            elif isinstance(decided, BriefRefusal):
                decision.error, decision.known = decided.refusal(), True
            else:
                decision.pending = decided
        except Exception as error:  # noqa: BLE001 - a refusal, or a defect that is logged with its traceback
            decision.error, decision.known = error, True
        if decision.known and not self._queue.begun:
            self._carry_out(decision)
            return
        if decision.error is not None:
            self._set_authenticated(False)  # messages behind it are scheduled from now on; the refusal itself is sent in its turn
        self._queue.append(decision)

    def decided(self) -> None:
        """A look-up or claim has finished: deliver or refuse the messages at the head of the queue that have been decided."""
        queue = self._queue
        while (decision := queue.first()) is not None and decision.known and not self._confirms(decision):
            queue.remove_first()
            self._carry_out(decision)
        self._work()

    def _confirms(self, decision: Queued) -> bool:
        """Whether the decision must be confirmed first, because its key may have changed while the message was queued."""
        admitted, message, gate = decision.admitted, decision.message, self._serving.gate
        if admitted is None or message is None or decision.error is not None or gate.still_valid(admitted):
            return False
        decision.known = False
        decision.pending = confirm(gate, message, admitted, decision.settled)
        return True

    def _carry_out(self, decision: Queued) -> None:
        message, admitted = decision.message, decision.admitted
        try:
            if decision.error is not None:
                raise decision.error
            if admitted is not None and message is not None:
                self._passed(message, admitted)
        except Refusal as refusal:
            self._refuse(refusal, message, decision.request_id)
        except Exception as defect:  # noqa: BLE001 - a defect is logged with its traceback
            self._defect(defect, message, decision.request_id)
        finally:
            decision.error = None  # its traceback refers to the decision: a cycle, which would keep both connections in memory

    def _current_route(self) -> Route:
        """The session's route per the configuration in force.

        :raises Refusal: the route no longer exists
        """
        serving = self._worker.serving
        if serving is not self._serving:
            route = serving.gate.route(self._client)
            if route.session != self._route.session or route.upstream != self._route.upstream:
                raise NoRoute("the configuration of this connection has changed: reconnect")
            self._route, self._serving = route, serving
            self._reader.max_bytes = serving.limits.max_message_bytes
        return self._route

    # -- admitted

    def _passed(self, message: Message, admitted: Admitted) -> None:
        route, identity = admitted.route, admitted.identity
        pool = self._serving.pools.get(route.upstream)
        if pool is None:
            raise UpstreamUnavailable("this service is not configured", reason=f"no pool {route.upstream!r}")
        if identity is not None:
            self._use(identity, admitted.expires_ms)
        self._set_authenticated(identity is not None)
        self._worker.metrics.admitted[route.pattern] += 1
        if message.act == LOG_IN and identity is not None:
            self._key_id, self._logged_in_ms = identity.key_id, message.received_ms
        elif message.act == LOG_OUT:
            self._key_id = ""
        elif message.act == STATUS:
            self._send(message.dialect.status(message, since_ms=self._since_ms, logged_in_ms=self._logged_in_ms))
            return
        members = pool.identity_lines.members_at(identity, message.received_ms) if identity is not None else b""
        member = b'"gateway":{%b"client_ip":"%b","request_id":"%b"}' % (
            members, admitted.client_ip.encode(), message.request_id.encode(),
        )  # fmt: skip
        self._upstream.write(frame(TEXT, message.forwarded(member), mask=_masks.next()))

    def _set_authenticated(self, authenticated: bool) -> None:
        """Unless its client is authenticated, the connection's input is scheduled, too."""
        self._authenticated = authenticated
        self._downstream.set_authenticated(authenticated)
        if authenticated and self._shapes is None:
            self._shapes = []

    def _use(self, identity: Identity, expires_ms: int | None) -> None:
        """Close the connection from now on when this key is revoked or expires.

        :raises RateLimited: the connection already uses :data:`MAX_KEYS` keys
        :raises Overloaded: too many connections use the key
        """
        key_id = identity.key_id
        if key_id in self.key_ids:
            return
        if len(self.key_ids) >= MAX_KEYS:
            raise rules.rate_limited(f"a connection can use at most {MAX_KEYS} keys: open another one", float("inf"))
        if not self._registry.may_use(self, key_id, self._serving.limits):
            limit = self._serving.limits.max_tunnels_per_key
            raise Overloaded(f"{limit} WebSocket connections are already open for this key: close some")
        self._registry.use(self, key_id, expires_ms)

    # -- refused

    def _refuse(self, refusal: Refusal, message: Message | None, request_id: str) -> None:
        self._set_authenticated(False)
        serving, route = self._serving, self._route
        asked = f"{route.pattern} {message.names[0]}" if message is not None and message.names else route.pattern
        self._worker.refused(serving, refusal, self._client.replace(request_id=request_id), asked[:200], None)
        self._send(serving.gate.render_message(refusal, route, message, request_id))
        if not serving.gate.count_refused_message(refusal, self._client, with_key=bool(self.key_ids)):
            self.close(POLICY_VIOLATION, "too many refused messages from your address", now_ms=self._worker.ticker.now_ms)

    def _defect(self, error: BaseException, message: Message | None, request_id: str) -> None:
        _log.error("message_failed", request_id=request_id, exc_info=error)
        self._refuse(InternalError("internal error: contact support with the request id"), message, request_id)

    def _send(self, text: bytes) -> None:
        """Send a message of the gateway to the client, between two messages of the service."""
        if self._stopped:
            return
        if self._gateway_frames or not self._down.between_messages:
            self._gateway_frames += frame(TEXT, text)
        else:
            self._downstream.write(frame(TEXT, text))

    # -- the end

    def _finish_client(self, end: Event) -> None:
        """Act on the client's last frame, once every message before it has been decided."""
        now_ms = self._worker.ticker.now_ms
        if end.opcode == FAILED:
            self.close(end.code or POLICY_VIOLATION, end.payload.decode(), now_ms=now_ms)
        elif not self._finished:
            self._finished = True  # nothing more is sent behind a Close frame (RFC 6455 §5.5.1)
            self._leaving = False
            self._upstream.write(frame(CLOSE, end.payload, mask=_masks.next()))
            self._end_by(now_ms + CLOSE_MS)

    def _stop(self) -> None:
        """Decide nothing more: the client, the service or the gateway has ended the session."""
        self._stopped = True
        self._queue.cancel()
