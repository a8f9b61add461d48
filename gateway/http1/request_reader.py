"""Reads the requests of one client connection: separates their heads and content. Pure."""

from typing import Any, Final

import httptools

from gateway.errors import Refusal
from gateway.http1.framing import Field, Framing, frame
from gateway.http1.memo import remember
from gateway.http1.reader import Reader
from gateway.http1.request_head import RequestLine, read_request_line, split_fields, with_target_authority
from gateway.http1.shape import Shape, shape_of

NO_FIELDS: Final[list[Field]] = []
"""A placeholder for a request's fields after they have been taken."""
_NOTHING_READ: Final = RequestLine(b"", b"", http10=False)
_NOTHING_FRAMED: Final = Framing(0, keep_alive=False, http10=False, host=b"")
_NO_SHAPES: Final[tuple[Shape, ...]] = ()
_of_peer: Final[dict[str, tuple[Shape, ...]]] = {}
"""The last shapes of each address's connections: some clients open a connection for each request."""
PEERS: Final = 1_024
"""Maximum number of remembered addresses."""
SHAPES: Final = 4
"""Maximum number of a connection's shapes."""
PATIENCE: Final = 16
"""Consecutive new shapes after which most are no longer recorded, since the client's heads all differ."""


_CURES: Final = (
    ("Invalid char in url", "percent-encode what is not ASCII, then sign what is sent"),
    ("Expected HTTP/", "send a space in the target as %20, then sign what is sent"),
    ("Invalid method", "send the method in upper case, and content with its Content-Length, or it is read as another request"),
)
"""llhttp's reasons, by their beginning, that a client's developer cannot act on."""
_OTHER_PROTOCOLS: Final = (
    (b"\x16\x03", "this is TLS, and the port has none: use http:// and ws://"),
    (b"PRI * HTTP/2", "HTTP/2 is not supported: set the client to HTTP/1.1"),
    (b"PROXY ", "a PROXY header is not expected from this address"),
    (b"\r\n\r\n\x00\r\nQUIT\n", "a PROXY header is not expected from this address"),
)
"""Beginnings of what is sent to a wrong port or in another protocol. The client rarely shows the answer; the log has it as the reason."""


class RequestReader(Reader):
    """Reads the requests of one connection: :meth:`read_head` until it is complete, then :meth:`read_content` until ``ended``."""

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
        """The shape of the last head, if recognized."""
        self._shapes = _NO_SHAPES
        self._strange = 0

    def _new_feed(self) -> Any:
        parser: Any = httptools.HttpRequestParser(self._head_end)
        return parser.feed_data

    def _cure(self, reason: str, head: bytes) -> str:
        cure = next((cure for beginning, cure in _OTHER_PROTOCOLS if head.startswith(beginning)), "")
        return f": {cure}" if cure else next((f": {cure}" for beginning, cure in _CURES if reason.startswith(beginning)), "")

    def come_from(self, peer: str) -> None:
        """Set the client's address, whose shapes from earlier connections are used."""
        self._peer = peer
        self._shapes = _of_peer.get(peer, _NO_SHAPES)

    @property
    def begun(self) -> bool:
        """Whether part of a head has been received. An empty line does not count: some clients send one after content (RFC 9112 §2.2)."""
        return len(self._held) > 2 or self._held not in b"\r\n"

    def read_head(self, data: bytes, max_bytes: int) -> bool:
        """Read more of a head. Returns whether it is complete, and then sets ``line``, ``fields`` and ``framing``.

        :param max_bytes: maximum size of the head, and of trailers
        :raises Refusal: it is malformed, or the end of the request is ambiguous; the connection must be closed
        """
        if not self._held:
            for shape in self._shapes:
                if shape.recognizes(data) and shape.size <= max_bytes:
                    self.line, self.fields = shape.line, shape.fields
                    self.rest = data[shape.size :] if len(data) > shape.size else b""
                    if self.shape is not shape:
                        self.shape, self.framing, self._strange = shape, shape.framing, 0
                        self._special = None  # the framing does not belong to the fields read last
                    if shape.framing.length:
                        self._begin_content(shape.framing.length, max_bytes, padded=False)
                    else:
                        self.ended = True
                    return True
        held = self._held
        head = self._take_head(data, max_bytes)
        if head:
            try:
                self._read_new(head, max_bytes)
            except Refusal:
                self._held = held  # for partial_head
                raise
        return bool(head)

    def _read_new(self, head: bytes, max_bytes: int) -> None:
        """Parse a head that is not of a known shape."""
        lines = head[:-4].split(b"\r\n")
        if not lines[0]:
            del lines[0]  # the one empty line
        self.line = line = read_request_line(lines[0])
        fields, special = split_fields(lines)
        if line.authority:
            fields = with_target_authority(line.authority, fields, http10=line.http10)
            special = with_target_authority(line.authority, special, http10=line.http10)
        framing = self.framing
        if special != self._special or line.http10 is not framing.http10:
            self.framing = framing = frame(special, http10=line.http10)  # a client's requests usually have the same framing
            self._special = special
        self.fields = fields
        self.shape = None
        self._remember_shape(head, line, fields, framing)
        if not framing.alone:
            self._renew()
        self._begin_content(framing.length, max_bytes, padded=False)

    def _remember_shape(self, head: bytes, line: RequestLine, fields: list[Field], framing: Framing) -> None:
        self._strange += 1
        if self._strange > PATIENCE and self._strange % PATIENCE:
            return
        shape = shape_of(head, line, fields, framing)
        if shape is not None and shape not in self._shapes:
            self._shapes = (shape, *self._shapes[: SHAPES - 1])
            if self._peer:
                remember(_of_peer, self._peer, self._shapes, PEERS)

    def partial_head(self, data: bytes) -> bytes:
        """What was received of a refused head, without what followed it.

        :param data: the last input of :meth:`read_head`
        """
        received = self._held + data
        head, end, _ = received[2:].partition(b"\r\n\r\n")  # one empty line may precede it
        return received[:2] + head + end

    def partial_line(self, data: bytes) -> tuple[bytes, bytes]:
        """Method and path of a refused head, as far as received, which determine the form of the refusal.

        :param data: the last input of :meth:`read_head`
        """
        parts = self.partial_head(data).removeprefix(b"\r\n").partition(b"\r\n")[0].split(b" ")
        if len(parts) not in (2, 3):
            return b"", b""
        target = parts[1]
        if not target.startswith(b"/"):  # absolute-form (RFC 9112 §3.2.2), or invalid
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        return parts[0], target.partition(b"?")[0]

    def read_content(self, data: bytes) -> bytes:
        """The content in these bytes, transfer coding removed.

        :raises Refusal: the coding is malformed; the connection must be closed
        """
        self._take_content(data)
        return self.content
