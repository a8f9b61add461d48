"""A client connection: reads requests one at a time and writes the answers in the same order.

There is one exchange at a time: pipelined bytes wait, in bounded memory, until the request before them is answered. The connection
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
from gateway.net.tally import Owners
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
"""Prefix of an owner's name when the owner is a connection shared by many clients."""


class ConnectionTracker(ABC):
    """Counts client connections."""

    __slots__ = ()

    @abstractmethod
    def opened(self, connection: "ClientConnection") -> str:
        """Count a new connection. Returns the limit that it exceeds, or ``""``; ``"at once"``: drop it without an answer."""

    @abstractmethod
    def owners(self, connection: "ClientConnection") -> Owners:
        """The owners under which the connection shares turns: the client's, or the connection itself when many clients share it."""

    @abstractmethod
    def closed(self, connection: "ClientConnection") -> None:
        """Forget a connection."""


class ClientConnection(ClientEnd):
    """See the module. It has the methods of :class:`asyncio.Protocol` but does not inherit from it, because a compiled class cannot.

    :param peer: the client's address, if it is not the transport's peer
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
        """The configuration version of the request in progress, or the one in force when the current state was entered."""
        self._reader = RequestReader()
        self._input = InputBuffer(worker.memory, worker.scheduler)
        self._exchange: Exchange | None = None
        self._upgraded: Upgraded | None = None
        self._processing = self._full = False
        self._unread = 0
        """Bytes that the client had not read when the time limit for reading them began."""
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
        owners = self._tracker.owners(self)
        self.shared = owners[0].startswith(SHARED)
        self._input.open(self.transport, owners)
        self._enter(HEAD)
        self._worker.scheduler.measure()
        reason = self._tracker.opened(self)
        if reason == "at once":
            self.transport.abort()
        elif reason:
            self._refuse(Overloaded(f"too many connections {reason}; try again later", close=True, resource="connections"))

    def data_received(self, data: bytes) -> None:
        state, buffer = self._state, self._input
        if state <= IDLE and not buffer.waiting:  # the common case
            if buffer.authenticated or self._worker.scheduler.may_run(len(data)):  # as may_process does
                self._read_head(data)
                return
            buffer.data = data
            if buffer.charge():
                buffer.wait_turn(self._take_turn)
            else:  # it cannot be buffered, so its first request is read; the bytes behind that still have to wait
                self._process_buffer(turn=True)
        elif state == WAITING:
            self._hold(data)
            if not buffer.waiting and not buffer.may_process(len(data)):  # large enough to use up the turn
                buffer.wait_turn(self._take_turn)
        elif state == ENDING:
            self._discard(len(data))
        elif buffer.waiting:
            buffer.data += data
            if self._charge_or_abort():
                buffer.update_reading()
        elif state == TUNNEL:
            buffer.data += data
            self._process_buffer()
        elif self._in_chunks():
            buffer.data += data
            self._process_buffer(turn=buffer.authenticated)
        else:
            self._read_body(data)
            if not buffer.waiting and not buffer.may_process(len(data)):  # bytes behind the content may be waiting already
                buffer.wait_turn(self._take_turn)

    def eof_received(self) -> None:
        """The client has closed the connection or only its sending side, which look the same: answers given so far are sent, and a request
        in progress is cancelled, as in nginx, so that no resource is held for a client that has gone. The transport closes itself.
        """
        self._worker.outbox.flush()

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
            scheduler.schedule(self._input.owners, self._close_upgraded)  # many can end at once

    def _close_upgraded(self) -> None:
        """Tell the other side of the tunnel that the client has gone."""
        upgraded, self._upgraded = self._upgraded, None
        if upgraded is not None:
            upgraded.client_closed()

    def pause_writing(self) -> None:
        """The client reads more slowly than data is written to it."""
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
            self._next_or_close()

    # -- states

    def _enter(self, state: int) -> None:
        """Change the state and the time limit with it: see the table. The hot path sets both itself, by the same rule."""
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
        """Recompute the time limit of the current state, because something that it depends on has changed."""
        if BODY <= self._state <= WAITING:
            self._enter(self._state)

    # -- one reader for each state

    def _read_head(self, data: bytes) -> None:
        """Read between requests, or inside a head."""
        reader = self._reader
        try:
            if reader.read_head(data, self._worker.serving.max_header_bytes):
                self._begin_exchange()
            elif reader.begun and self._state == IDLE:
                self._enter(HEAD)
        except Refusal as refusal:
            self._refuse(refusal, reader.partial_line(data), reader.partial_head(data))

    def _read_body(self, data: bytes) -> None:
        """Read inside a request's content."""
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
        """Buffer what arrives while a request waits for its answer."""
        self._input.data += data
        self._charge_or_abort()
        if len(self._input.data) > MAX_BACKLOG:
            self._input.pause()

    def _discard(self, size: int) -> None:
        """Drop what arrives after the last answer, which the client may not have read yet."""
        buffer = self._input
        more = self._lingering.drop(size)
        if not buffer.waiting and not (self._worker.scheduler.may_run(size) and more):
            buffer.pause()
            if more:
                buffer.wait_turn(self._take_turn)

    def _charge_or_abort(self) -> bool:
        """Charge buffered bytes to their owner; abort the connection when its share of the memory is used up."""
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
        """A head is complete: start an exchange with the configuration version in force now."""
        reader, worker = self._reader, self._worker
        line, fields, reader.fields = reader.line, reader.fields, NO_FIELDS
        request = Request(
            line.method, line.target, line.path, line.query, fields, b"", self.peer, self.secure, clock.now_ms(), worker.next_request_id(),
            self.believed, reader.shape,
        )  # fmt: skip
        buffer, rest = self._input, reader.rest
        buffer.data = rest
        self._serving = serving = worker.serving
        self._exchange = exchange = Exchange(worker, serving, self, request, reader.framing)
        if reader.ended:
            if self._full:
                self._enter(WAITING)
            else:
                self._state, self.deadline_ms = WAITING, NEVER  # as _enter does: the common case
            exchange.start()
            if rest and self._state == WAITING and len(buffer.data) > FREE_BACKLOG:
                self._charge_or_abort()
        else:
            self._enter(BODY)
            exchange.start(len(rest))
            if buffer.data:
                self._process_buffer(turn=buffer.authenticated)

    def _in_chunks(self) -> bool:
        """Whether the content is chunked: each chunk costs time, so it is read in slices, even from an authenticated client."""
        return self._state == BODY and self._reader.framing.length == CHUNKED

    def _process_buffer(self, *, turn: bool = False) -> None:
        """Process buffered bytes in a loop, without recursion, since each request may be answered at once.

        :param turn: whether the first request may be processed without waiting for a turn
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

    # -- gateway.server.ports.ClientEnd

    def write(self, data: bytes) -> None:
        if self._state == ENDING:
            return
        self._worker.outbox.put(self.transport, data)
        if self._full and self._exchange is not None:  # it may have started since, or had no upstream connection to pause yet
            self._exchange.pause()

    def needs_own_turn(self) -> bool:
        return self.shared and not self._input.authenticated

    def finish(self, keep_alive: bool, authenticated: bool) -> None:
        self._exchange = None
        self._input.authenticated = authenticated
        if not keep_alive or self._worker.draining:
            if keep_alive and self._input.data:  # draining began while it was answered
                if not self._full:
                    self._next_or_close()
            elif self._reader.framing.keep_alive or self._state != WAITING or self._input.data or self._full:
                self.close()
            else:
                self.close_idle()  # this was the client's last request, and it has been read: there is nothing to drain
        elif not self._full:
            self._next()
        # else the next request is read once the client has read this answer

    def _next_or_close(self) -> None:
        """Answer what has been received even when draining: the client was not told that the connection would be closed."""
        self._next()
        if self._worker.draining and self.idle:
            self.close()

    def _next(self) -> None:
        worker, buffer = self._worker, self._input
        self._serving = serving = worker.serving
        self._state, self.deadline_ms = IDLE, worker.ticker.now_ms + serving.idle_timeout_ms  # as _enter does
        if buffer.paused:
            buffer.resume()
        if buffer.data:
            self._process_buffer()

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
        """Shut down the sending side, then read for a moment (see :mod:`gateway.server.lingering`)."""
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

    # -- called by the plane

    def close_idle(self) -> None:
        """Close between requests: nothing is unread, so there is no need to linger."""
        self._worker.outbox.flush()
        self._enter(ENDING)
        self.transport.close()

    @property
    def idle(self) -> bool:
        """Whether the connection is between requests, with nothing of the next one read."""
        return self._state <= IDLE and not self._reader.begun and not self._input.data

    def expired(self) -> None:
        """Act on a deadline that has passed."""
        self.deadline_ms = NEVER
        state, timeouts = self._state, self._worker.metrics.timeouts
        if state <= BODY and self._input.waiting:
            self._enter(state)  # the delay is ours
        elif state == HEAD and self._reader.begun:
            timeouts["header"] += 1
            late = RequestTimeout("the header section was not received in time", close=True)
            self._refuse(late, self._reader.partial_line(b""), self._reader.partial_head(b""))
        elif state <= IDLE:
            timeouts["idle"] += 1
            self.close_idle()
        elif state == BODY and not self._full and self._exchange is not None:
            timeouts["body"] += 1
            self._exchange.fail(RequestTimeout("the body was not received in time", close=True))
        elif state == ENDING:
            self._linger()
        elif self._unread - unsent(self.transport) >= SLOWEST * self._serving.idle_timeout_ms // 1_000:
            self._enter(state)  # it reads slowly: the kernel takes more only once much of its buffer is free
        else:
            timeouts["write"] += 1
            self.transport.abort()

    def _linger(self) -> None:
        """Close once the client has received everything and has had a moment to read it."""
        progress = self._lingering.look(self.transport, self._worker.ticker.now_ms, self._serving.idle_timeout_ms)
        if progress == LINGER:
            self._enter(ENDING)
            return
        if progress != DONE:
            self._worker.metrics.timeouts["write"] += 1
        self.transport.abort()

    def _refuse(self, refusal: Refusal, partial: tuple[bytes, bytes] = (b"", b""), head: bytes = b"") -> None:
        """Answer bytes that are not a valid request, and close.

        :param partial: method and path, as far as known
        :param head: what was received of the head
        """
        worker, serving = self._worker, self._worker.serving
        worker.refused(serving, refusal, None)
        given = serving.gate.render(refusal, None, worker.next_request_id(), partial)
        cors = b"" if serving.cors is None else serving.cors.lines_for_head(head)
        self.write(answer.own(given, date=worker.date, more=cors, keep_alive=False, http10=False, head_only=False))
        self.close()
