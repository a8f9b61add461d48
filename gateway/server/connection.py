"""A client connection: reads requests one after the other and writes answers in the same order.

One exchange at a time: what a client sends behind a request waits, in bounded memory, until that request has its answer. The connection
is in one of the states of ``states``, and its time limit follows from the state: :meth:`ClientConnection._enter` says how.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final, cast

import structlog

from gateway.errors import Overloaded, Refusal, RequestTimeout
from gateway.http1 import answer
from gateway.http1.framing import CHUNKED
from gateway.http1.message import Request
from gateway.http1.request_reader import NO_FIELDS, RequestReader
from gateway.net.closing import reset, unsent
from gateway.runtime import clock
from gateway.runtime.ticker import NEVER
from gateway.server.client_lines import ClientLines
from gateway.server.exchange import Exchange
from gateway.server.input_buffer import FREE_BACKLOG, InputBuffer
from gateway.server.lingering import DONE, LINGER, Lingering
from gateway.server.ports import ClientEnd, Upgraded
from gateway.server.serving import Serving
from gateway.server.states import BODY, ENDING, HEAD, IDLE, LINGER_MS, SLOWEST, TUNNEL, WAITING
from gateway.server.worker_state import WorkerState

_log = structlog.get_logger(__name__)

MAX_BACKLOG = 65_536
"""Bytes held behind a request that has no answer yet, before reading pauses."""
SLICE: Final = 4_096
"""Bytes of a tunnel, or of chunks, that are one item of work: seven hundred of the smallest frames or chunks."""
SHARED: Final = "connection "
"""How the name of an owner begins that is a connection of many clients."""


class ConnectionTracker(ABC):
    """Who counts the connections."""

    __slots__ = ()

    @abstractmethod
    def opened(self, connection: "ClientConnection") -> str:
        """Count a new connection. A reason when there are too many: ``"at once"`` when there is not even time to say so."""

    @abstractmethod
    def owner(self, connection: "ClientConnection") -> str:
        """Who shares turns with whom: an address, or a connection of many clients."""

    @abstractmethod
    def closed(self, connection: "ClientConnection") -> None:
        """Forget a connection."""


class ClientConnection(ClientEnd):
    """See the module. An :class:`asyncio.Protocol` by its methods; it does not inherit from that, for a class that is compiled could not.

    :param peer: who it is from, when not the transport's own peer
    :param believed: see :attr:`gateway.http1.message.Request.believed`
    :param secure: whether it is over TLS
    """

    __slots__ = (
        "_exchange", "_full", "_input", "_lingering", "_processing", "_reader", "_serving", "_state", "_tracker", "_unread", "_upgraded",
        "_worker", "believed", "deadline_ms", "peer", "secure", "transport",
    )  # fmt: skip

    def __init__(
        self, worker: WorkerState, tracker: ConnectionTracker, *, peer: str | None = None, believed: bool = True, secure: bool = False
    ) -> None:
        self._worker = worker
        self.believed = believed
        self._tracker = tracker
        self._serving: Serving = worker.serving
        """The version of the request in progress, or the one that was in force when the last state was entered."""
        self._reader = RequestReader()
        self._input = InputBuffer(worker.memory, worker.scheduler)
        self._exchange: Exchange | None = None
        self._upgraded: Upgraded | None = None
        self._processing = self._full = False
        self._unread = 0
        """Bytes that were written and not read by the client when the time limit for reading them began."""
        self.lines = ClientLines()
        self.shared = False
        self._lingering = Lingering()
        self._state = HEAD
        self.deadline_ms = NEVER
        self.peer = peer or ""
        self.secure = secure
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.peer:
            name = transport.get_extra_info("peername")
            self.peer = str(name[0]) if isinstance(name, tuple) else ""
        self._reader.come_from(self.peer)
        owner = self._tracker.owner(self)
        self.shared = owner.startswith(SHARED)
        self._input.open(self.transport, owner)
        self._enter(HEAD)
        self._worker.scheduler.measure()
        reason = self._tracker.opened(self)
        if reason == "at once":
            self.transport.abort()
        elif reason:
            self._refuse(Overloaded(f"too many connections {reason}; try again later", close=True, resource="connections"))

    def data_received(self, data: bytes) -> None:
        state, buffer = self._state, self._input
        if state == WAITING:
            self._hold(data)
            if not buffer.waiting and not buffer.may_process(len(data)):  # so much that the turn is full of it
                buffer.wait_turn(self._take_turn)
        elif state == ENDING:
            self._discard(len(data))
        elif buffer.waiting:
            buffer.data += data
            if self._charge_or_abort():
                buffer.update_reading()
        elif state <= IDLE:
            if buffer.authenticated or buffer.may_process(len(data)):
                self._read_head(data)
                return
            buffer.data = data
            if buffer.charge():
                buffer.wait_turn(self._take_turn)
            else:  # it cannot be held, so its first request is read; what stands behind that has to wait all the same
                self._process_buffer(turn=True)
        elif state == TUNNEL:
            buffer.data += data
            self._process_buffer()
        elif self._in_chunks():
            buffer.data += data
            self._process_buffer(turn=buffer.authenticated)
        else:
            self._read_body(data)
            if not buffer.waiting and not buffer.may_process(len(data)):  # what stands behind the content may wait already
                buffer.wait_turn(self._take_turn)

    def eof_received(self) -> None:
        """The client has gone, or will at least send no more: either way nobody waits (the transport closes itself)."""

    def connection_lost(self, _exc: Exception | None) -> None:
        self._enter(ENDING)
        self.deadline_ms = NEVER
        self._tracker.closed(self)
        self._input.drop()
        scheduler = self._worker.scheduler
        scheduler.measure()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._upgraded is not None:
            scheduler.schedule(self._input.owner, self._close_upgraded)  # many can end at once

    def _close_upgraded(self) -> None:
        """The other side of what was a tunnel hears of the end."""
        upgraded, self._upgraded = self._upgraded, None
        if upgraded is not None:
            upgraded.client_closed()

    def pause_writing(self) -> None:
        """The client reads slower than it is sent to."""
        self._full = True
        if self._upgraded is not None:
            self._upgraded.client_full()
            return
        self._reset_deadline()
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self._full = False
        if self._upgraded is not None:
            self._upgraded.client_drained()
        elif self._exchange is not None:
            self._reset_deadline()
            self._exchange.resume()
        elif self._state == WAITING:
            self._next()

    # -- states

    def _enter(self, state: int) -> None:
        """Change the state, and with it the time limit: see the table. What every request goes through does so itself, by the same rule."""
        self._state = state
        now_ms, serving = self._worker.ticker.now_ms, self._serving
        if BODY <= state <= WAITING:
            if self._full:
                self.deadline_ms = now_ms + serving.idle_timeout_ms
                self._unread = unsent(self.transport)
            elif state == WAITING or self._input.paused:
                self.deadline_ms = NEVER
            else:
                self.deadline_ms = now_ms + serving.body_timeout_ms
        elif state == IDLE:
            self.deadline_ms = now_ms + serving.idle_timeout_ms
        elif state == HEAD:
            self.deadline_ms = now_ms + serving.header_timeout_ms
        else:
            self.deadline_ms = NEVER if state == TUNNEL else now_ms + LINGER_MS

    def _reset_deadline(self) -> None:
        """What the time limit of the present state depends on has changed."""
        if BODY <= self._state <= WAITING:
            self._enter(self._state)

    # -- each takes the next bytes

    def _read_head(self, data: bytes) -> None:
        """Between requests, or inside a head."""
        reader = self._reader
        try:
            if reader.read_head(data, self._worker.serving.max_header_bytes):
                self._begin_exchange()
            elif reader.begun and self._state == IDLE:
                self._enter(HEAD)
        except Refusal as refusal:
            self._refuse(refusal, reader.partial_line(data))

    def _read_body(self, data: bytes) -> None:
        """Inside a request's content."""
        reader, exchange = self._reader, self._exchange
        if exchange is None:
            return
        try:
            content = reader.read_content(data)
        except Refusal as refusal:
            exchange.fail(refusal)
            return
        if reader.ended:
            self._input.data = reader.rest + self._input.data
            self._enter(WAITING)
        elif exchange.streamed and self.deadline_ms != NEVER:
            later_ms = self.deadline_ms + len(content) * 1_000 // SLOWEST
            self.deadline_ms = min(later_ms, self._worker.ticker.now_ms + self._serving.body_timeout_ms)
        exchange.content(content, last=reader.ended)
        if self._state == WAITING and len(self._input.data) > FREE_BACKLOG:
            self._charge_or_abort()

    def _hold(self, data: bytes) -> None:
        """A request waits for its answer; what comes behind it waits, too."""
        self._input.data += data
        self._charge_or_abort()
        if len(self._input.data) > MAX_BACKLOG:
            self._input.pause()

    def _discard(self, size: int) -> None:
        """What comes behind the last answer: the client may not have read that yet."""
        buffer = self._input
        more = self._lingering.drop(size)
        if not buffer.waiting and not (self._worker.scheduler.may_run(size) and more):
            buffer.pause()
            if more:
                buffer.wait_turn(self._take_turn)

    def _charge_or_abort(self) -> bool:
        """For what stands behind a request, or in a tunnel: who has no share of the memory left is cut off."""
        if self._input.charge():
            return True
        self._worker.metrics.resource_refused["body_memory_share"] += 1
        self._input.drop()
        self.abort()
        return False

    def _take_turn(self) -> None:
        buffer = self._input
        buffer.turn_came()
        if self._state == ENDING:
            buffer.resume()
        elif buffer.data and self._state != WAITING and not self.transport.is_closing():
            self._process_buffer(turn=True)
        buffer.update_reading()

    # -- steps of reading

    def _begin_exchange(self) -> None:
        """A head is complete: the exchange takes over, by the version of the configuration in force at this moment."""
        reader, worker = self._reader, self._worker
        line, fields, reader.fields = reader.line, reader.fields, NO_FIELDS
        request = Request(
            line.method, line.target, line.path, line.query, fields, b"", self.peer, self.secure, clock.now_ms(), worker.next_request_id(),
            self.believed, reader.shape,
        )  # fmt: skip
        buffer = self._input
        buffer.data = reader.rest
        self._serving = serving = worker.serving
        self._exchange = exchange = Exchange(worker, serving, self, request, reader.framing)
        if reader.ended:
            if self._full:
                self._enter(WAITING)
            else:
                self._state, self.deadline_ms = WAITING, NEVER  # as _enter does: the usual case of every request
            exchange.start()
            if self._state == WAITING and len(buffer.data) > FREE_BACKLOG:
                self._charge_or_abort()
        else:
            self._enter(BODY)
            exchange.start(len(buffer.data))
            if buffer.data:
                self._process_buffer(turn=buffer.authenticated)

    def _in_chunks(self) -> bool:
        """Whether content comes in chunks, each of which costs: it is read in slices, whoever the last request was from."""
        return self._state == BODY and self._reader.framing.length == CHUNKED

    def _process_buffer(self, *, turn: bool = False) -> None:
        """Go through bytes that have waited, without recursion: each request may have its answer at once.

        :param turn: there is time for the first
        """
        if self._processing:
            return
        self._processing = True
        try:
            self._process(turn=turn)
        except Exception as error:  # noqa: BLE001 - a defect, which ends this connection, whoever's call it was that led here
            _log.error("connection_failed", peer=self.peer, exc_info=error)
            self.abort()
        finally:
            self._processing = False

    def _process(self, *, turn: bool) -> None:
        buffer = self._input
        while buffer.data and not buffer.waiting:
            state = self._state
            if state == WAITING or (buffer.paused and state > IDLE):
                break
            in_chunks = self._in_chunks()
            if not (turn or (state == BODY and not in_chunks) or (self._worker.scheduler.may_run() if in_chunks else buffer.may_process())):
                if self._charge_or_abort():
                    buffer.wait_turn(self._take_turn)
                break
            turn = False
            if state <= IDLE:
                self._read_head(buffer.take())
            elif state == BODY:
                self._read_body(buffer.take(SLICE if in_chunks else 0))
            elif self._upgraded is not None:
                self._upgraded.client_data(buffer.take(0 if buffer.authenticated else SLICE))
            else:
                buffer.drop()

    # -- what an exchange asks of it (gateway.server.ports.ClientEnd)

    def write(self, data: bytes) -> None:
        if self._state == ENDING:
            return
        self._worker.outbox.put(self.transport, data)
        if self._full and self._exchange is not None:  # which has begun since then, or had no upstream connection to pause yet
            self._exchange.pause()

    def needs_own_turn(self) -> bool:
        return self.shared and not self._input.authenticated

    def finish(self, *, keep_alive: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self._input.authenticated = exchange is not None and exchange.authenticated
        if not keep_alive or self._worker.draining:
            if self._reader.framing.keep_alive or self._state != WAITING or self._input.data or self._full:
                self.close()
            else:
                self.close_idle()  # the client has said that this request is its last, and it is read: nothing is to be drained
        elif not self._full:
            self._next()
        # else the next one begins when the client has read what it has got

    def _next(self) -> None:
        worker = self._worker
        self._serving = serving = worker.serving
        self._state, self.deadline_ms = IDLE, worker.ticker.now_ms + serving.idle_timeout_ms  # as _enter does
        if self._input.paused:
            self._input.resume()
        if self._input.data:
            self._process_buffer()
        elif worker.draining:  # which began while the client had not read its answer
            self.close()

    def pause_reading(self) -> None:
        self._input.pause()

    def resume_reading(self) -> None:
        buffer = self._input
        if buffer.paused:
            buffer.resume()
            if self._state == TUNNEL and buffer.data and not buffer.paused:
                self._process_buffer()

    def pause_content(self) -> None:
        self._input.pause()
        self._reset_deadline()

    def resume_content(self) -> None:
        self._input.resume()
        self._reset_deadline()
        if self._state == BODY and self._input.data:
            self._process_buffer()

    def upgrade(self, upgraded: Upgraded) -> None:
        exchange, self._exchange = self._exchange, None
        self._input.authenticated = exchange is not None and exchange.authenticated
        self._upgraded = upgraded
        self._enter(TUNNEL)
        if self._full:
            upgraded.client_full()
        self._input.resume()
        self._process_buffer()

    def set_authenticated(self, authenticated: bool) -> None:
        self._input.authenticated = authenticated

    def close(self) -> None:
        """Ends our side, then reads on for a moment."""
        if self._state == ENDING:
            return
        self._worker.outbox.flush()
        self._enter(ENDING)
        self._exchange = None
        self._input.drop()
        if not self.transport.can_write_eof() or self.transport.is_closing():
            self.transport.close()
            return
        self._input.resume()
        self.transport.write_eof()

    def abort(self) -> None:
        reset(self.transport)

    # -- what the plane asks of it

    def close_idle(self) -> None:
        """Close between requests: nothing unread is expected, so there is nothing to linger for."""
        self._worker.outbox.flush()
        self._enter(ENDING)
        self.transport.close()

    @property
    def idle(self) -> bool:
        """Between requests, with nothing of the next one read."""
        return self._state <= IDLE and not self._reader.begun and not self._input.data

    def expired(self) -> None:
        """Its deadline has passed."""
        self.deadline_ms = NEVER
        state, timeouts = self._state, self._worker.metrics.timeouts
        if state <= BODY and self._input.waiting:
            self._enter(state)  # it is we who are late
        elif state == HEAD and self._reader.begun:
            timeouts["header"] += 1
            self._refuse(RequestTimeout("the header section was not received in time", close=True), self._reader.partial_line(b""))
        elif state <= IDLE:
            timeouts["idle"] += 1
            self.close_idle()
        elif state == BODY and not self._full and self._exchange is not None:
            timeouts["body"] += 1
            self._exchange.fail(RequestTimeout("the body was not received in time", close=True))
        elif state == ENDING:
            self._linger()
        elif self._unread - unsent(self.transport) >= SLOWEST * self._serving.idle_timeout_ms // 1_000:
            self._enter(state)  # it reads, slowly: the kernel asks for more only when much of what it holds is gone
        else:
            timeouts["write"] += 1
            self.transport.abort()

    def _linger(self) -> None:
        """Go when the client has had everything, and a moment to see that it was the last."""
        seen = self._lingering.look(self.transport, self._worker.ticker.now_ms, self._serving.idle_timeout_ms)
        if seen == LINGER:
            self._enter(ENDING)
            return
        if seen != DONE:
            self._worker.metrics.timeouts["write"] += 1
        self.transport.abort()

    def _refuse(self, refusal: Refusal, partial: tuple[bytes, bytes] = (b"", b"")) -> None:
        """Answer what is not even a request, and close.

        :param partial: method and path, as far as they are known
        """
        worker, serving = self._worker, self._worker.serving
        worker.refused(serving, refusal, None)
        given = serving.gate.render(refusal, None, worker.next_request_id(), partial)
        self.write(answer.own(given, date=worker.date, more=b"", keep_alive=False, http10=False, head_only=False))
        self.close()
