"""Decodes the chunked transfer coding (RFC 9112 §7.1) of requests and responses. Pure.

Chunks are decoded here and not by llhttp, because httptools reports neither how long a chunk's extensions are nor trailers from headers.
Lines must end in CRLF; extensions and trailers are bounded, checked for control bytes, and dropped.
"""

import re
from collections.abc import Callable

from gateway.errors import HeadersTooLarge, MalformedRequest, Refusal

MAX_CHUNK_LINE = 256
"""Maximum bytes of a chunk's size and extensions."""

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?)")
_PADDED_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*((?:;[^\x00-\x08\x0a-\x1f\x7f]*)?)")
"""Some servers pad the size with spaces."""
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")

Step = Callable[["ChunkedBody", bytes, int, list[bytes]], int | None]
"""Not bound to its object, which would be a reference cycle."""


class ChunkedBody:
    """Content in the chunked coding.

    :param max_trailer_bytes: maximum size of the trailer section
    :param padded: accept white space after a chunk's size, which some servers send; not accepted from clients
    """

    __slots__ = ("_held", "_left", "_line", "_max_trailer", "_step", "done")

    def __init__(self, max_trailer_bytes: int, *, padded: bool = False) -> None:
        self._max_trailer = max_trailer_bytes
        self._line = _PADDED_LINE if padded else _CHUNK_LINE
        self._held = b""
        self._left = 0
        self._step: Step = ChunkedBody._size
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The content in ``data``, and what follows the content's end (``b""`` while it has not ended).

        :raises MalformedRequest: a size, line end, extension or trailer violates the grammar
        :raises HeadersTooLarge: the trailers exceed the limit
        """
        data, self._held = self._held + data, b""
        content: list[bytes] = []
        position: int | None = 0
        while position is not None and not self.done:
            begin = position
            position = self._step(self, data, begin, content)
            if position is None:
                self._held = data[begin:]
        return b"".join(content), data[position:] if position is not None else b""

    # Each step parses what it can from ``begin`` on and returns where the next step begins; None: it needs more data.

    def _size(self, data: bytes, begin: int, _content: list[bytes]) -> int | None:
        end = _line_end(data, begin, MAX_CHUNK_LINE, MalformedRequest)
        if end is None:
            return None
        match = self._line.fullmatch(data, begin, end)
        if match is None:
            raise MalformedRequest("a chunk's size must be hexadecimal digits, followed by at most small extensions", close=True)
        self._left = int(match[1], 16)
        self._step = ChunkedBody._data if self._left else ChunkedBody._trailer
        return end + 2

    def _data(self, data: bytes, begin: int, content: list[bytes]) -> int | None:
        piece = data[begin : begin + self._left]
        if not piece:
            return None
        content.append(piece)
        self._left -= len(piece)
        if self._left == 0:
            self._step = ChunkedBody._data_end
        return begin + len(piece)

    def _data_end(self, data: bytes, begin: int, _content: list[bytes]) -> int | None:
        found = data[begin : begin + 2]
        if found != b"\r\n"[: len(found)]:
            raise MalformedRequest("a chunk is not followed by CRLF", close=True)
        if len(found) < 2:
            return None
        self._step = ChunkedBody._size
        return begin + 2

    def _trailer(self, data: bytes, begin: int, _content: list[bytes]) -> int | None:
        end = _line_end(data, begin, self._max_trailer, HeadersTooLarge)
        if end is None:
            return None
        self._max_trailer = max(0, self._max_trailer - (end + 2 - begin))
        if end == begin:
            self.done = True
        elif not _TRAILER.fullmatch(data, begin, end):
            raise MalformedRequest("a trailer is not a field line", close=True)
        return end + 2


def _line_end(data: bytes, begin: int, limit: int, too_long: type[Refusal]) -> int | None:
    """The position of the CRLF that ends the line at ``begin``; ``None``: not received yet.

    :raises Refusal: ``too_long`` if there are more than ``limit`` bytes before it
    A bare LF is refused at once, without waiting for a CRLF.
    """
    newline = data.find(b"\n", begin)
    if (len(data) if newline < 0 else newline) - begin > limit + 1:
        raise too_long("a chunk's extensions or the trailers are too long", close=True)
    if newline < 0:
        return None
    if newline == begin or data[newline - 1] != 0x0D:
        raise MalformedRequest("a line of the chunked coding does not end in CRLF", close=True)
    return newline - 1
