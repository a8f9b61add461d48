"""Incremental HTTP/1.1 readers, one per direction: bytes in; heads, content and message ends out. Pure.

A head goes to llhttp, exactly to its end, and then to the rules of this room. Content never passes through llhttp: lengths and chunks are
counted here, by the same rules in both directions, so that no trailer can pass for a header, no byte behind a head for part of it, and
nothing that llhttp makes of content can differ from what is passed on. A whole read is judged before any of it is handed over.
"""

from collections.abc import Sequence
from typing import Any, Final

import httptools

from gateway.errors import HeadersTooLarge, Refusal
from gateway.http1.body import ChunkedBody
from gateway.http1.framing import CHUNKED, UNTIL_CLOSE, Field, Framing, frame, malformed
from gateway.http1.memo import remember
from gateway.http1.request_head import RequestLine, asked_of, cut_fields, read_request_line
from gateway.http1.response import ResponseHead, Unframable, known_head, read_head
from gateway.http1.shape import Shape, shape_of

MAX_RESPONSE_HEAD: Final = 65_536
"""Bytes of all heads of one response; of its trailers, too."""

NO_FIELDS: Final[list[Field]] = []
"""What a reader has instead of a request's fields once somebody else has them."""
_NOTHING_READ = RequestLine(b"", b"", http10=False)
_NOTHING_FRAMED = Framing(0, keep_alive=False, http10=False, host=b"")
_NONE: Final[tuple[ResponseHead, ...]] = ()
_NO_SHAPES: Final[tuple[Shape, ...]] = ()
_END = b"\r\n\r\n"
_of_peer: Final[dict[str, tuple[Shape, ...]]] = {}
"""Shapes seen last on a connection from an address, for the next one: some clients open one for each request."""
PEERS: Final = 1_024
"""Of those remembered."""
SHAPES: Final = 4
"""Of a connection's requests that are remembered."""
PATIENCE: Final = 16
"""Heads of new shapes in a row after which most are not remembered any more: each is of its own."""


class Reader:
    """What both directions share.

    After each step, ``content`` is what it brought, ``ended`` says whether the message is whole, and ``rest`` is what stands behind it.
    """

    __slots__ = ("_chunks", "_complete", "_feed", "_held", "_left", "content", "ended", "rest")

    def __init__(self) -> None:
        self._chunks: ChunkedBody | None = None
        self._complete = False
        self._feed: Any = None
        self._held = b""
        self._left = 0
        self.content = b""
        self.ended = False
        self.rest = b""

    def on_headers_complete(self) -> None:
        """Called by llhttp."""
        self._complete = True

    def _renew(self) -> None:
        """The next head gets a new llhttp: the last one may be anywhere in a message."""
        self._feed = None

    def _new_feed(self) -> Any:
        """What a new llhttp is given bytes by."""
        raise NotImplementedError

    def _take_head(self, data: bytes, limit: int) -> bytes:
        """A whole head that llhttp has accepted; what follows it becomes ``rest``. ``b""`` while it has not ended.

        llhttp sees each byte as it comes, so that a broken head is refused early.

        :raises MalformedRequest: it is not one
        :raises HeadersTooLarge: there are more than ``limit`` bytes of it
        """
        held = self._held
        head = held + data if held else data
        end = head.find(_END, max(0, len(held) - 3) if held else 0) + 4
        if end < 4:
            _check_size(len(head), limit)
            self._judge(data)
            self._held = head
            return b""
        _check_size(end, limit)
        self._judge(head[len(held) : end])
        if not self._complete:
            raise malformed("a message begins with its first line, behind at most one empty line")
        self._complete = False
        self._held = b""
        self.rest = head[end:]
        return head[:end]

    def _judge(self, data: bytes) -> None:
        if self._feed is None:
            self._feed = self._new_feed()
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade:
            pass  # exactly at the head's end; whether it is one is seen in its fields
        except httptools.HttpParserError as error:
            raise malformed(f"not HTTP/1.1: {error}") from None

    def _begin_content(self, length: int, max_trailer_bytes: int, *, padded: bool) -> None:
        self._left = length
        self._chunks = ChunkedBody(max_trailer_bytes, padded=padded) if length == CHUNKED else None
        self.ended = length == 0

    def _take_content(self, data: bytes) -> None:
        """:raises MalformedRequest, HeadersTooLarge: see :class:`gateway.http1.body.ChunkedBody`"""
        chunks, left = self._chunks, self._left
        if chunks is not None:
            self.content, self.rest = chunks.feed(data)
            self.ended = chunks.done
        elif len(data) < left or left == UNTIL_CLOSE:
            self.content, self.rest = data, b""
            if left != UNTIL_CLOSE:
                self._left = left - len(data)
        else:
            self.content, self.rest = data[:left], data[left:]
            self.ended = True


class RequestReader(Reader):
    """Requests of one connection, one after the other: :meth:`read_head` until it is whole, then :meth:`read_content` until ``ended``."""

    __slots__ = ("_peer", "_shapes", "_special", "_strange", "fields", "framing", "line", "shape")

    def __init__(self) -> None:
        super().__init__()
        self._peer = ""
        self.line = _NOTHING_READ
        self.fields = NO_FIELDS
        """All field lines of the head; names in lower case, values without surrounding white space."""
        self.framing = _NOTHING_FRAMED
        self._special: list[Field] | None = None
        self.shape: Shape | None = None
        """Of the last head, when it was known before."""
        self._shapes = _NO_SHAPES
        self._strange = 0

    def _new_feed(self) -> Any:
        parser: Any = httptools.HttpRequestParser(self)
        return parser.feed_data

    def come_from(self, peer: str) -> None:
        """Whose requests these are, by address: what was known of them on another connection is known here."""
        self._peer = peer
        self._shapes = _of_peer.get(peer, _NO_SHAPES)

    @property
    def begun(self) -> bool:
        """Whether part of a head has come. An empty line before one is nothing: some clients end content with it (RFC 9112 §2.2)."""
        return len(self._held) > 2 or self._held not in b"\r\n"

    def read_head(self, data: bytes, max_bytes: int) -> bool:
        """Take more of a head, and say whether that was all of it: ``line``, ``fields`` and ``framing`` are the request's then.

        :param max_bytes: of the head, and of trailers
        :raises Refusal: it cannot be one, or it cannot be told beyond doubt where the request ends; all of them close the connection
        """
        if not self._held and self._read_known(data, max_bytes):
            return True
        head = self._take_head(data, max_bytes)
        if not head:
            return False
        lines = head[:-4].split(b"\r\n")
        if not lines[0]:
            del lines[0]  # the one empty line
        self.line = line = read_request_line(lines[0])
        fields, special = cut_fields(lines)
        if line.authority:
            fields = asked_of(line.authority, fields, http10=line.http10)
            special = asked_of(line.authority, special, http10=line.http10)
        framing = self.framing
        if special != self._special or line.http10 is not framing.http10:
            self.framing = framing = frame(special, http10=line.http10)  # a client's requests are mostly framed alike
            self._special = special
        self.fields = fields
        self.shape = None
        self._remember_shape(head, line, fields, framing)
        if not framing.alone:
            self._renew()
        self._begin_request(framing.length, max_bytes)
        return True

    def _read_known(self, data: bytes, max_bytes: int) -> bool:
        """A head of a shape that was read before; what follows it becomes ``rest``."""
        for shape in self._shapes:
            values = shape.values_in(data)
            if values is None:
                continue
            size = shape.size(values)
            if size > max_bytes:
                return False
            self.line, self.fields, self.framing, self.shape = shape.line(values), shape.fields(values), shape.framing, shape
            self._special = None  # the framing is not of the fields that were read last
            self.rest = data[size:]
            self._strange = 0
            self._begin_request(shape.framing.length, max_bytes)
            return True
        return False

    def _remember_shape(self, head: bytes, line: RequestLine, fields: list[Field], framing: Framing) -> None:
        self._strange += 1
        if self._strange > PATIENCE and self._strange % PATIENCE:
            return
        shape = shape_of(head, line, fields, framing)
        if shape is not None and shape not in self._shapes:
            self._shapes = (shape, *self._shapes[: SHAPES - 1])
            if self._peer:
                remember(_of_peer, self._peer, self._shapes, PEERS)

    def _begin_request(self, length: int, max_bytes: int) -> None:
        if length:
            self._begin_content(length, max_bytes, padded=False)
        else:
            self.ended = True

    def asked(self, data: bytes) -> tuple[bytes, bytes]:
        """Method and path of a head that was refused, as far as its first line tells: for the form of the refusal, and nothing else.

        :param data: what was last given to :meth:`read_head`
        """
        parts = (self._held + data).removeprefix(b"\r\n").partition(b"\r\n")[0].split(b" ")
        return (parts[0], parts[1].partition(b"?")[0]) if len(parts) == 3 else (b"", b"")

    def read_content(self, data: bytes) -> bytes:
        """What these bytes bring of the content, coding removed.

        :raises Refusal: the coding is broken; the connection is of no more use
        """
        self._take_content(data)
        return self.content


class ResponseReader(Reader):
    """Responses on one connection, one after the other: :meth:`begin` for each request, then :meth:`feed` until ``ended``."""

    __slots__ = ("_head_only", "_room", "_upgrade", "head", "interims")

    def __init__(self) -> None:
        super().__init__()
        self._head_only = self._upgrade = False
        self._room = 0
        self.head: ResponseHead | None = None
        """The final response's head, or a 101; ``None`` until it has come."""
        self.interims: Sequence[ResponseHead] = _NONE
        """The other 1xx heads that the last bytes brought (RFC 9110 §15.2)."""

    def _new_feed(self) -> Any:
        parser: Any = httptools.HttpResponseParser(self)
        return parser.feed_data

    def begin(self, *, head_only: bool, upgrade: bool) -> None:
        """A request goes out.

        :param head_only: it is a HEAD
        :param upgrade: it asks for a WebSocket
        """
        self._head_only = head_only
        self._upgrade = upgrade
        self._room = MAX_RESPONSE_HEAD
        self.head = None
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Take what the server sent. ``rest`` belongs to nobody then, but behind a 101 to the tunnel.

        :raises Unframable: nothing of these bytes can be relied on
        """
        self.content = b""
        self.interims = _NONE
        try:
            while self.head is None:
                head = self._next_head(data)
                if head is None:
                    return
                data = self.rest
                if head.status < 200 and head.status != 101:
                    self.interims = [*self.interims, head]
                else:
                    self.head = head
                    self._begin_content(head.length, MAX_RESPONSE_HEAD, padded=True)
            if self.ended:
                self.rest = data
            elif data:
                self._take_content(data)
        except Refusal as refusal:  # the rules are those for requests
            raise Unframable(refusal.detail) from None

    def end_of_input(self) -> bool:
        """The server ended its side: whether that ends the response as it should."""
        return self.head is not None and not self.ended and self._left == UNTIL_CLOSE

    def _next_head(self, data: bytes) -> ResponseHead | None:
        """The next whole head, ``None`` while it has not ended. One that was accepted before is not shown to llhttp again."""
        if not self._held and not self._head_only:
            end = data.find(_END) + 4
            head = known_head(data[:end])
            if head is not None:
                self.rest = data[end:]
                return self._expected(head, end)
        raw = self._take_head(data, self._room) if data else b""
        if not raw:
            return None
        self._renew()
        return self._expected(read_head(raw, head_only=self._head_only), len(raw))

    def _expected(self, head: ResponseHead, size: int) -> ResponseHead:
        self._room -= size
        if self._room < 0:
            raise Unframable("too many heads before the response")
        if head.status == 101 and not (self._upgrade and head.upgrade == b"websocket"):
            raise Unframable("a switch of protocols that was not asked for")
        return head


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise HeadersTooLarge(f"the header section exceeds {limit} bytes", close=True, extras={"limit": limit})
