"""What both readers of HTTP/1.1 share: bytes in; heads, content and message ends out. Pure.

A head goes to llhttp, exactly to its end, and then to the rules of this room. Content never passes through llhttp: lengths and chunks are
counted here, by the same rules in both directions, so that no trailer can pass for a header, no byte behind a head for part of it, and
nothing that llhttp makes of content can differ from what is passed on. A whole read is judged before any of it is handed over.
"""

from typing import Any, Final

import httptools

from gateway.errors import HeadersTooLarge
from gateway.http1.chunked import ChunkedBody
from gateway.http1.framing import CHUNKED, UNTIL_CLOSE, malformed

HEAD_END: Final = b"\r\n\r\n"


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
        end = head.find(HEAD_END, max(0, len(held) - 3) if held else 0) + 4
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
        """:raises MalformedRequest, HeadersTooLarge: see :class:`gateway.http1.chunked.ChunkedBody`"""
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


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise HeadersTooLarge(f"the header section exceeds {limit} bytes", close=True, extras={"limit": limit})
