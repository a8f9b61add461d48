"""One keep-alive connection to an upstream server: sends a request, reads one response, returns to the pool.

Responses are parsed by ``gateway.http1.response_reader``. An ambiguously framed response closes the connection, and so do unsolicited
bytes (RFC 9112 §9.3, §11.1).
"""

import asyncio
import select
from abc import ABC, abstractmethod
from typing import cast

from gateway.forward.ports import UpstreamEnd, Waiter
from gateway.http1.response import ResponseHead, Unframable
from gateway.http1.response_reader import ResponseReader
from gateway.runtime.outbox import Outbox
from gateway.runtime.ticker import NEVER, Ticker


class Owner(ABC):
    """The server of a connection, as the connection uses it."""

    __slots__ = ("active", "outbox", "response_timeout_ms", "stream_idle_timeout_ms", "ticker")

    active: int
    """Current requests and tunnels, including waiting ones."""
    outbox: Outbox
    response_timeout_ms: int
    """Time limit for the head of a response."""
    stream_idle_timeout_ms: int
    """Time limit between two pieces of a response's content."""
    ticker: Ticker

    @abstractmethod
    def observe(self, waiter: Waiter, status: int) -> None:
        """Count a response whose head has been received."""

    @abstractmethod
    def release(self, connection: "UpstreamConnection", reusable: bool) -> None:
        """Take back a connection whose exchange has ended."""

    @abstractmethod
    def switched(self, connection: "UpstreamConnection") -> None:
        """Note that a connection has become a tunnel, which does not count against the limit for requests."""

    @abstractmethod
    def gone(self, connection: "UpstreamConnection") -> None:
        """Note that a connection is closed."""


class UpstreamConnection(UpstreamEnd):
    """See the module. Has the methods of :class:`asyncio.Protocol`, like ``server.connection``.

    ``call`` is the exchange in progress, ``None`` while idle.
    """

    __slots__ = (
        "_head",
        "_paused",
        "_poll",
        "_reader",
        "_tunnelling",
        "_untouched",
        "call",
        "deadline_ms",
        "server",
        "transport",
    )  # fmt: skip

    def __init__(self, server: Owner) -> None:
        self.server = server
        self.call: Waiter | None = None
        self.tunnel = None
        self.deadline_ms = NEVER
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._poll: select.poll | None = None
        self._paused = self._tunnelling = False
        self._untouched = False
        """Whether nothing has been received since it was idle: if it is lost now, the server was probably closing it."""
        self._reader = ResponseReader()

    # -- called by the pool and the call

    def begin(self, waiter: Waiter, request: bytes) -> None:
        self.call = waiter
        self._head: ResponseHead | None = None
        self._reader.begin(waiter.head_only, waiter.upgrade)
        server = self.server
        self.deadline_ms = server.ticker.now_ms + server.response_timeout_ms if waiter.whole else NEVER
        server.outbox.put(self.transport, request)

    def write(self, piece: bytes) -> None:
        if self.call is not None and self.call.whole:
            self.deadline_ms = self._response_deadline()
        self.server.outbox.put(self.transport, piece)

    def is_certainly_open(self) -> bool:
        """Check the socket for a close or data from the server, before sending a request that must not be sent twice."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return not self._poll.poll(0)

    def pause(self) -> None:
        self.deadline_ms = NEVER
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
            if self.tunnel is None:
                self.deadline_ms = self._response_deadline()

    def park(self, until_ms: int) -> None:
        """Keep the connection idle until ``until_ms``."""
        if self._paused:
            self.resume()
        self._untouched = True
        self.deadline_ms = until_ms

    def abandon(self) -> None:
        self.call = self.tunnel = None
        self.transport.abort()

    def close(self) -> None:
        self.server.outbox.flush()
        self.transport.close()

    def expired(self) -> None:
        """Act on a deadline that has passed."""
        self.deadline_ms = NEVER
        call, self.call = self.call, None
        if call is None:
            self.transport.close()
            return
        self.transport.abort()
        call.timed_out(head_seen=self._head is not None)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            if self.tunnel is not None:
                self.tunnel.upstream_data(data)
            else:
                self.transport.abort()
            return
        self._untouched = False
        reader = self._reader
        try:
            reader.feed(data)
        except Unframable as error:
            self._fail(f"response cannot be framed: {error}")
            return
        if reader.interims:
            for interim in reader.interims:
                call.receiver.response_interim(interim)
        if self._head is None:
            head = reader.head
            if head is None:
                return
            self.server.observe(call, head.status)
            if head.status == 101:
                self._switch(call, head, reader.rest)
                return
            self._head = head
            call.receiver.response_head(head)
        if reader.ended:
            self._finish(reader.content, not reader.rest)  # bytes behind it would be an unsolicited response
        else:
            self._more(reader.content)

    def eof_received(self) -> None:
        if self.call is not None and self._reader.end_of_input():
            self._finish(b"", False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.gone(self)
        if self._tunnelling:
            self.server.active -= 1
        tunnel, self.tunnel = self.tunnel, None
        call, self.call = self.call, None
        if tunnel is not None:
            tunnel.upstream_closed()
        elif call is not None:
            why = f"connection lost: {exc or 'closed by the server'}"
            call.lost(why, kind="broken", reused=self._untouched, head_seen=self._head is not None)

    def pause_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.upstream_full()
        elif self.call is not None:
            self.deadline_ms = self._response_deadline()
            self.call.receiver.request_pause()

    def resume_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.upstream_drained()
        elif self.call is not None:
            self.deadline_ms = self._response_deadline() if self.call.whole else NEVER
            self.call.receiver.request_resume()

    # -- steps

    def _response_deadline(self) -> int:
        """The deadline for the server to answer, continue, or read the request. None while waiting for the client."""
        server = self.server
        return server.ticker.now_ms + (server.response_timeout_ms if self._head is None else server.stream_idle_timeout_ms)

    def _more(self, content: bytes) -> None:
        if self.deadline_ms != NEVER:
            self.deadline_ms = self._response_deadline()
        if self.call is not None:
            self.call.receiver.response_data(content)

    def _finish(self, last: bytes, reusable: bool) -> None:
        call, self.call = self.call, None
        if call is None or self._head is None:
            return
        self.server.release(self, reusable and self._head.keep_alive and call.whole and not call.last)
        call.finished(last)

    def _switch(self, call: Waiter, head: ResponseHead, rest: bytes) -> None:
        self.deadline_ms = NEVER
        self.call = None
        self._tunnelling = True
        self.server.switched(self)
        call.switched(head, self, rest)

    def _fail(self, reason: str) -> None:
        call, self.call = self.call, None
        self.transport.abort()
        if call is not None:
            call.lost(reason, kind="unframable", reused=False, head_seen=self._head is not None)
