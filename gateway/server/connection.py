"""The client's connection: bytes to requests one after the other, and answers back in the same order.

One exchange at a time: what a client sends behind a request waits, in bounded memory, until that request has its answer. Each state of
the connection is a method that takes the next bytes (``_take``); every time limit is one deadline that the ticker watches.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import httptools

from gateway.errors import HeadersTooLarge, MalformedRequest, Overloaded, Refusal, RequestTimeout
from gateway.forward.tunnel import Tunnel
from gateway.http1 import answer
from gateway.http1.body import Body, ChunkedBody, LengthBody
from gateway.http1.framing import CHUNKED, Field, Framing, frame, read_request_line
from gateway.http1.message import Request
from gateway.http1.request_head import HeadReader, cut_fields
from gateway.runtime import clock
from gateway.runtime.ticker import NEVER
from gateway.server.exchange import Exchange

if TYPE_CHECKING:
    from gateway.server.plane import Plane

MAX_BACKLOG = 65_536
"""Bytes held behind a request that has no answer yet, before reading pauses."""
LINGER_MS = 1_000
"""How long a closing connection goes on reading, so that the client can read the answer (RFC 9112 §9.6)."""

_NOTHING_FRAMED = Framing(0, keep_alive=False, http10=False, host=b"")


class ClientConnection:
    """See the module. An :class:`asyncio.Protocol` by its methods; it inherits nothing, for a class that is compiled could not."""

    __slots__ = (
        "_advancing", "_backlog", "_body", "_exchange", "_framing", "_full", "_held", "_lines", "_lines_host", "_lines_ip", "_new",
        "_paused", "_plane", "_reader", "_special", "_take", "_tunnel", "deadline_ms", "peer", "secure", "transport",
    )  # fmt: skip

    def __init__(self, plane: "Plane", *, peer: str | None = None) -> None:
        self._plane = plane
        self._reader = HeadReader()
        self._special: list[Field] | None = None
        self._framing = _NOTHING_FRAMED
        self._held = b""
        self._backlog = b""
        self._body: Body | None = None
        self._exchange: Exchange | None = None
        self._tunnel: Tunnel | None = None
        self._advancing = self._paused = self._full = False
        self._new = True
        self._lines = b""
        self._lines_ip, self._lines_host = "", b""
        self._take: Callable[[ClientConnection, bytes], None] = ClientConnection._read_head
        self.deadline_ms = NEVER
        self.peer = peer or ""
        self.secure = False
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self.peer:
            name = transport.get_extra_info("peername")
            self.peer = str(name[0]) if isinstance(name, tuple) else ""
        self.secure = transport.get_extra_info("sslcontext") is not None
        self.deadline_ms = self._plane.ticker.now_ms + self._plane.limits.header_timeout_ms
        reason = self._plane.opened(self)
        if reason == "at once":
            self.transport.abort()
        elif reason:
            self._refuse(Overloaded(f"too many connections {reason}; try again later", close=True))

    def data_received(self, data: bytes) -> None:
        self._take(self, data)

    def eof_received(self) -> None:
        """The client has gone, or will at least send no more: either way nobody waits (the transport closes itself)."""

    def connection_lost(self, _exc: Exception | None) -> None:
        self._take = ClientConnection._discard
        self.deadline_ms = NEVER
        self._plane.closed(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.client_closed()

    def pause_writing(self) -> None:
        """The client reads slower than it is sent to."""
        self._full = True
        if self._tunnel is not None:
            self._tunnel.client_full()
            return
        self.deadline_ms = self._plane.ticker.now_ms + self._plane.limits.idle_timeout_ms
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self._full = False
        if self._tunnel is not None:
            self._tunnel.client_drained()
        elif self._exchange is not None:
            self.deadline_ms = NEVER
            self._exchange.resume()
        elif self._take is ClientConnection._hold:
            self._next()

    # -- states: each takes the next bytes

    def _read_head(self, data: bytes) -> None:
        """Between requests, or inside a head. llhttp sees each byte as it comes, so that a broken head is refused early."""
        held = self._held
        head = held + data if held else data
        end = head.find(b"\r\n\r\n", max(0, len(held) - 3) if held else 0) + 4
        try:
            if end >= 4:
                self._check_size(end)
                self._feed(head[len(held) : end])
                self._held = b""
                self._begin(head[:end], head[end:])
            else:
                self._check_size(len(head))
                self._feed(data)
                if not held and not self._new:  # the first head's time runs from the connection's opening
                    self.deadline_ms = self._plane.ticker.now_ms + self._plane.limits.header_timeout_ms
                self._held = head
        except Refusal as refusal:
            self._refuse(refusal)

    def _read_body(self, data: bytes) -> None:
        """Inside a request's content."""
        body, exchange = self._body, self._exchange
        if body is None or exchange is None:
            return
        try:
            content, rest = body.feed(data)
        except Refusal as refusal:
            exchange.fail(refusal)
            return
        if exchange.streaming:
            self.deadline_ms = self._plane.ticker.now_ms + self._plane.limits.body_timeout_ms
        if body.done:
            self._body = None
            self._backlog = rest
            self._take = ClientConnection._hold
            self.deadline_ms = NEVER
        exchange.content(content, last=body.done)

    def _hold(self, data: bytes) -> None:
        """A request waits for its answer; what comes behind it waits, too."""
        self._backlog += data
        if len(self._backlog) > MAX_BACKLOG:
            self.pause_reading()

    def _pass_on(self, data: bytes) -> None:
        """The connection has become a tunnel."""
        if self._tunnel is not None:
            self._tunnel.client_data(data)

    def _discard(self, data: bytes) -> None:
        """Closing: nothing that comes is read as a request."""

    # -- steps of reading

    def _check_size(self, size: int) -> None:
        limit = self._plane.max_header_bytes
        if size > limit:
            raise HeadersTooLarge(f"the header section is over {limit} bytes", close=True, extras={"limit": limit})

    def _feed(self, data: bytes) -> None:
        """Let llhttp see more of a head.

        :raises Refusal: it is not one
        """
        try:
            self._reader.feed(data)
        except httptools.HttpParserUpgrade:
            pass  # exactly at the head's end; what the request asks for is seen in its framing
        except httptools.HttpParserError as error:
            raise MalformedRequest(f"not an HTTP/1.1 request: {error}", close=True) from None

    def _begin(self, head: bytes, rest: bytes) -> None:
        """A head is complete: the exchange takes over.

        :raises Refusal: it cannot be framed
        """
        reader, plane = self._reader, self._plane
        if not reader.complete:
            raise MalformedRequest("a request begins with a request line", close=True)
        lines = head[:-4].split(b"\r\n")
        if not lines[0]:
            del lines[0]  # one blank line before a request is nothing (RFC 9112 §2.2)
        read = read_request_line(lines[0])
        fields, special = cut_fields(lines)
        framing = self._framing
        if special != self._special or read.http10 is not framing.http10:
            self._framing = framing = frame(special, http10=read.http10)  # a client's requests are mostly framed alike
            self._special = special
        request = Request(
            read.method, read.target, read.path, read.query, fields, b"", self.peer, self.secure, clock.now_ms(), plane.next_request_id()
        )
        self._new = False
        self._backlog = rest
        self._exchange = exchange = Exchange(plane, self, request, framing)
        if framing.length == 0:
            reader.complete = False
            self._take = ClientConnection._hold
            self.deadline_ms = NEVER
            exchange.start()
        else:
            self._begin_content(framing.length, exchange)

    def _begin_content(self, length: int, exchange: Exchange) -> None:
        limits = self._plane.limits
        self._reader = HeadReader()
        self._body = ChunkedBody(limits.max_header_bytes) if length == CHUNKED else LengthBody(length)
        self._take = ClientConnection._read_body
        self.deadline_ms = self._plane.ticker.now_ms + limits.body_timeout_ms
        exchange.start()
        if self._backlog:
            self._advance()

    def _advance(self) -> None:
        """Go through bytes that have waited, without recursion: each request may have its answer at once."""
        if self._advancing:
            return
        self._advancing = True
        while self._backlog and self._take is not ClientConnection._hold:
            data, self._backlog = self._backlog, b""
            self._take(self, data)
        self._advancing = False

    # -- what an exchange asks of it

    def write(self, data: bytes) -> None:
        self._plane.outbox.put(self.transport, data)

    def finish(self, *, keep_alive: bool) -> None:
        """The exchange has been answered to its end."""
        self._exchange = None
        if not keep_alive or self._plane.draining:
            self.close()
        elif not self._full:
            self._next()
        # else the next one begins when the client has read what it has got

    def _next(self) -> None:
        self._take = ClientConnection._read_head
        self.deadline_ms = self._plane.ticker.now_ms + self._plane.idle_timeout_ms
        if self._paused:
            self.resume_reading()
        if self._backlog:
            self._advance()

    def client_lines(self, client_ip: str, host: bytes) -> bytes:
        """What the upstream is told about the connection; rendered once as long as nothing changes."""
        if self._lines_ip != client_ip or self._lines_host != host or not self._lines:
            self._lines_ip, self._lines_host = client_ip, host
            ip = client_ip.encode()
            proto = b"https" if self.secure else b"http"
            lines = b"x-client-ip: " + ip + b"\r\nx-forwarded-for: " + ip + b"\r\nx-forwarded-proto: " + proto + b"\r\n"
            self._lines = lines + (b"x-forwarded-host: " + host + b"\r\n" if host else b"")
        return self._lines

    def pause_reading(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def pause_content(self) -> None:
        """The upstream takes the content slower than it comes; that is not held against the client."""
        self.deadline_ms = NEVER
        self.pause_reading()

    def resume_content(self) -> None:
        if self._body is not None:
            self.deadline_ms = self._plane.ticker.now_ms + self._plane.limits.body_timeout_ms
        self.resume_reading()

    def become(self, tunnel: Tunnel) -> None:
        """Hand everything that comes, and what has come already, to a tunnel."""
        self._exchange = None
        self._tunnel = tunnel
        self._take = ClientConnection._pass_on
        self.deadline_ms = NEVER
        self.resume_reading()
        backlog, self._backlog = self._backlog, b""
        if backlog:
            tunnel.client_data(backlog)

    def close(self) -> None:
        """Close when all is written, and in such a way that the client can read it: end our side, then read on for a moment."""
        if self._take is ClientConnection._discard:
            return
        self._plane.outbox.flush()
        self._take = ClientConnection._discard
        self._exchange = None
        self._backlog = self._held = b""
        if not self.transport.can_write_eof() or self.transport.is_closing():
            self.transport.close()
            return
        self.deadline_ms = self._plane.ticker.now_ms + LINGER_MS
        self.resume_reading()
        self.transport.write_eof()

    def abort(self) -> None:
        self.transport.abort()

    # -- what the plane asks of it

    def close_idle(self) -> None:
        """Close between requests: nothing unread is expected, so there is nothing to linger for."""
        self._plane.outbox.flush()
        self._take = ClientConnection._discard
        self.transport.close()

    @property
    def idle(self) -> bool:
        """Between requests, with nothing of the next one read."""
        return self._exchange is None and not self._held and self._take is ClientConnection._read_head

    def expired(self) -> None:
        """Its deadline has passed."""
        self.deadline_ms = NEVER
        if self._take is ClientConnection._read_head and self._held:
            self._plane.metrics.timeouts["header"] += 1
            self._refuse(RequestTimeout("the header section did not come in time", close=True))
        elif self._take is ClientConnection._read_body and self._exchange is not None:
            self._plane.metrics.timeouts["body"] += 1
            self._exchange.fail(RequestTimeout("the content did not come in time", close=True))
        elif self._take is ClientConnection._read_head:
            self._plane.metrics.timeouts["idle"] += 1
            self.close_idle()
        elif self._take is ClientConnection._discard:
            self.transport.abort()
        else:
            self._plane.metrics.timeouts["write"] += 1
            self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is not even a request, and close."""
        plane = self._plane
        plane.refused(refusal, None)
        given = plane.current().render(refusal, None, plane.next_request_id())
        self.write(answer.own(given, date=plane.date, more=b"", keep_alive=False, http10=False, head_only=False))
        self.close()
