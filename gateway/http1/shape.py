"""Recognizes request heads that differ from an earlier one only in the values that change with every signed request. Pure.

A client's requests differ in a timestamp, a signature and a query. If nothing else has changed and each new value consists of characters
without a meaning in the grammar, llhttp and the rules of this package would parse the head like the earlier one: both are skipped.
"""

from typing import Final

from gateway.http1.framing import CHUNKED, Field, Framing
from gateway.http1.headers import request_lines
from gateway.http1.memo import remember
from gateway.http1.request_head import STEADY, RequestLine

LONGEST: Final = 1_024
"""Maximum size of a head that is recorded."""
CHANGING: Final = frozenset({b"x-request-signature", b"x-request-timestamp"})
"""Fields whose values may change. None is forwarded, so all heads of a shape have the same forwarded lines."""
_SHAPES: Final = 256
_VISIBLE: Final = bytes(byte if 0x21 <= byte < 0x7F else 0x21 for byte in range(256))
"""The allowed characters, as translation tables that replace any other: a valid value is left unchanged."""
_QUERY: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@%/"
"""The characters of RFC 3986 §3.4; a query with others is parsed in full."""
_IN_QUERY: Final = bytes(byte if byte in _QUERY else 0x21 for byte in range(256))
_LINE_END: Final = b"\r"
_TARGET_END: Final = b" "
_IN_LINE: Final = -1
"""In place of a field's index: the query, which is in the request line."""


class Shape:
    """One shape, shared by connections."""

    __slots__ = ("_begun", "_drop", "_fields", "_forwarded", "_line", "_rest", "_sizes", "fields", "framing", "line", "size")

    def __init__(self, parts: tuple[bytes, ...], indices: list[int], line: RequestLine, fields: list[Field], framing: Framing) -> None:
        self._begun = parts[0]
        """The text before the first value."""
        places = indices if line.query is None else [_IN_LINE, *indices]
        self._rest = [
            (part, len(part), _IN_QUERY if place == _IN_LINE else _VISIBLE, place, b"" if place == _IN_LINE else fields[place][0])
            for part, place in zip(parts[1:], places, strict=True)
        ]
        """For each value: the text after it, that text's size, the value's allowed characters, and index and name of its field."""
        self._line = line
        self._fields = fields
        """The fields, with empty values where they change."""
        self._sizes = [0] * len(self._rest)
        """Length of each value in the last head, usually the same in the next."""
        self.framing = framing
        self.line = line
        """The request line of the last recognized head."""
        self.fields = fields
        """Its fields."""
        self.size = len(parts[0])
        """Its size in bytes."""
        self._drop: frozenset[bytes] | None = None
        self._forwarded = b""

    def recognizes(self, data: bytes) -> bool:
        """Whether ``data`` begins with a head of this shape; if so, sets :attr:`line`, :attr:`fields` and :attr:`size`."""
        begun = self._begun
        if not data.startswith(begun):
            return False
        if not self._rest:  # nothing changes in it
            return True
        fields, sizes, line = self._fields[:], self._sizes, self._line
        at = len(begun)
        for number, (part, length, allowed, place, name) in enumerate(self._rest):
            end = at + sizes[number]
            after = end + length
            # The first byte of the part ends the value: no value contains that byte, which is checked below.
            if data[end:after] != part or end == at:
                end = data.find(_TARGET_END if place == _IN_LINE else _LINE_END, at, at + LONGEST)
                after = end + length
                if end <= at or data[end:after] != part:
                    return False
                sizes[number] = end - at
            value = data[at:end]
            if value.translate(allowed) != value:
                return False
            if place == _IN_LINE:
                line = RequestLine(line.method, line.path + b"?" + value, http10=False)
            else:
                fields[place] = (name, value)
            at = after
        self.line, self.fields, self.size = line, fields, at
        return True

    def forwarded(self, drop: frozenset[bytes]) -> bytes:
        """See :func:`gateway.http1.headers.request_lines`; rendered once for each ``drop``, without those that ``Connection`` names."""
        if self._drop is not drop:
            self._forwarded = request_lines(self._fields, drop | CHANGING | self.framing.named)
            self._drop = drop
        return self._forwarded


_shapes: Final[dict[tuple[bytes, ...], Shape]] = {}
"""Recently used shapes, by their parts."""


def shape_of(head: bytes, line: RequestLine, fields: list[Field], framing: Framing) -> Shape | None:
    """The shape of a head that was parsed in full; ``None`` if it may contain a secret, or anything unusual.

    :param fields: all of its fields, in order
    """
    if len(head) > LONGEST or line.http10 or line.authority or line.query == b"" or framing.upgrade or framing.length == CHUNKED:
        return None
    rows = head[:-4].split(b"\r\n")
    begun = b"%b %b" % (line.method, line.path)
    if len(rows) != len(fields) + 1 or rows[0] != (begun if line.query is None else begun + b"?" + line.query) + b" HTTP/1.1":
        return None
    parts: list[bytes] = []
    indices: list[int] = []
    blank = fields[:]
    start = 0
    at = len(rows[0])
    if line.query is not None:
        parts.append(begun + b"?")
        start = at - len(b" HTTP/1.1")
    for index, (name, value) in enumerate(fields):
        end = at + 2 + len(rows[index + 1])
        if name in CHANGING:
            if not value or not rows[index + 1].endswith(value):
                return None
            parts.append(head[start : end - len(value)])
            start = end
            indices.append(index)
            blank[index] = (name, b"")
        elif name not in STEADY:
            return None
        at = end
    key = (*parts, head[start:])
    known = _shapes.get(key)
    if known is None:
        if line.query is not None:
            line = RequestLine(line.method, line.path + b"?", http10=False)
        known = Shape(key, indices, line, blank, framing)
        remember(_shapes, key, known, _SHAPES)
    return known
