"""The client's connection: bytes to requests one after the other, and answers back in the same order.

One exchange at a time: what a client sends behind a request waits, in bounded memory, until that request has its answer. Each state of
the connection is a method that takes the next bytes (``_take``); every time limit is one deadline that the ticker watches.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from gateway.errors import Overloaded, Refusal, RequestTimeout
from gateway.forward.tunnel import Tunnel
from gateway.http1 import answer
from gateway.http1.message import Request
from gateway.http1.reader import NO_FIELDS, RequestReader
from gateway.runtime import clock
from gateway.runtime.ticker import NEVER
from gateway.server.exchange import Exchange

if TYPE_CHECKING:
    from gateway.server.plane import Plane

MAX_BACKLOG = 65_536
"""Bytes held behind a request that has no answer yet, before reading pauses."""
LINGER_MS = 1_000
"""How long a closing connection goes on reading, so that the client can read the answer (RFC 9112 §9.6)."""
_RESET = struct.pack("ii", 1, 0)
"""For ``SO_LINGER``: closing resets the connection (RST) instead of ending it."""


class ClientConnection:
    """See the module. An :class:`asyncio.Protocol` by its methods; it inherits nothing, for a class that is compiled could not."""

    __slots__ = (
        "_advancing", "_backlog", "_exchange", "_full", "_lines", "_lines_host", "_lines_ip", "_new", "_paused", "_plane", "_reader",
        "_take", "_tunnel", "deadline_ms", "peer", "secure", "transport",
    )  # fmt: skip

    def __init__(self, plane: "Plane", *, peer: str | None = None) -> None:
        self._plane = plane
        self._reader = RequestReader()
        self._backlog = b""
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
        """Between requests, or inside a head."""
        reader, plane = self._reader, self._plane
        begun = reader.begun
        try:
            if reader.read_head(data, plane.max_header_bytes):
                self._begin()
            elif reader.begun and not begun and not self._new:  # the first head's time runs from the connection's opening
                self.deadline_ms = plane.ticker.now_ms + plane.limits.header_timeout_ms
        except Refusal as refusal:
            self._refuse(refusal)

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
        if exchange.streaming:
            self.deadline_ms = self._plane.ticker.now_ms + self._plane.limits.body_timeout_ms
        if reader.ended:
            self._backlog = reader.rest
            self._take = ClientConnection._hold
            self.deadline_ms = NEVER
        exchange.content(content, last=reader.ended)

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

    def _begin(self) -> None:
        """A head is complete: the exchange takes over."""
        reader, plane = self._reader, self._plane
        line, fields, reader.fields = reader.line, reader.fields, NO_FIELDS
        request = Request(
            line.method, line.target, line.path, line.query, fields, b"", self.peer, self.secure, clock.now_ms(), plane.next_request_id()
        )
        self._new = False
        self._backlog = reader.rest
        self._exchange = exchange = Exchange(plane, self, request, reader.framing)
        if reader.ended:
            self._take = ClientConnection._hold
            self.deadline_ms = NEVER
            exchange.start()
        else:
            self._take = ClientConnection._read_body
            self.deadline_ms = plane.ticker.now_ms + plane.limits.body_timeout_ms
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
        if not self._reader.ended:
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
        self._backlog = b""
        if not self.transport.can_write_eof() or self.transport.is_closing():
            self.transport.close()
            return
        self.deadline_ms = self._plane.ticker.now_ms + LINGER_MS
        self.resume_reading()
        self.transport.write_eof()

    def abort(self) -> None:
        """Cut the connection so that the client notices: an end like any other is the end of an answer to who has no length of it."""
        connected: socket.socket | None = self.transport.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
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
        return self._exchange is None and not self._reader.begun and self._take is ClientConnection._read_head

    def expired(self) -> None:
        """Its deadline has passed."""
        self.deadline_ms = NEVER
        if self._take is ClientConnection._read_head and self._reader.begun:
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
