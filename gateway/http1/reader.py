"""The common base of the request and response readers: turns bytes into heads, content and ends of messages. Pure.

A head is passed to llhttp, exactly to its end, and then checked by the rules of this package. Content never passes through llhttp: lengths
and chunks are counted here, by the same rules in both directions, so that no trailer is mistaken for a header, no byte after a head for
part of it, and llhttp's view of content cannot differ from what is forwarded. All input is checked before any of it is returned.
"""

from typing import Any, Final

import httptools

from gateway.errors import HeadersTooLarge
from gateway.http1.chunked import ChunkedBody
from gateway.http1.framing import CHUNKED, UNTIL_CLOSE, malformed

HEAD_END: Final = b"\r\n\r\n"
_NO_START: Final = "a message must begin with its start line, after at most one empty line"


class _HeadEnd:
    """What llhttp reports of heads. Apart from the reader, so that reader and parser do not form a cycle, which only a rare full garbage
    collection would free.
    """

    __slots__ = ("reached",)

    def __init__(self) -> None:
        self.reached = False

    def on_headers_complete(self) -> None:
        """Called by llhttp."""
        self.reached = True


class Reader:
    """Base of both readers.

    After each step, ``content`` is the content it produced, ``ended`` whether the message is complete, and ``rest`` the bytes after it.
    """

    __slots__ = ("_chunks", "_feed", "_head_end", "_held", "_left", "content", "ended", "rest")

    def __init__(self) -> None:
        self._chunks: ChunkedBody | None = None
        self._feed: Any = None
        self._head_end = _HeadEnd()
        self._held = b""
        self._left = 0
        self.content = b""
        self.ended = False
        self.rest = b""

    def _renew(self) -> None:
        """Use a new llhttp parser for the next head, since the state of the last one is unknown."""
        self._feed = None

    def _new_feed(self) -> Any:
        """The ``feed_data`` method of a new llhttp parser, which reports to ``_head_end``."""
        raise NotImplementedError

    def _cure(self, reason: str, head: bytes) -> str:  # noqa: ARG002
        """What a client can do about a malformed head, after a colon; ``""`` where the reason says enough.

        :param reason: llhttp's, or that there is no start line
        :param head: its bytes so far
        """
        return ""

    def _take_head(self, data: bytes, limit: int) -> bytes:
        """A complete head that llhttp has accepted; the bytes after it become ``rest``. ``b""`` while it is incomplete.

        llhttp sees each byte as it arrives, so that a malformed head is refused early.

        :raises MalformedRequest: the head is malformed
        :raises HeadersTooLarge: it exceeds ``limit`` bytes
        """
        held = self._held
        head = held + data if held else data
        end = head.find(HEAD_END, max(0, len(held) - 3) if held else 0) + 4
        if end < 4:
            _check_size(len(head), limit)
            self._feed_parser(data, head)
            self._held = head
            return b""
        _check_size(end, limit)
        self._feed_parser(head[len(held) : end], head)
        if not self._head_end.reached:
            raise malformed(f"{_NO_START}{self._cure(_NO_START, head)}")
        self._head_end.reached = False
        self._held = b""
        self.rest = head[end:]
        return head[:end]

    def _feed_parser(self, data: bytes, head: bytes) -> None:
        if self._feed is None:
            self._feed = self._new_feed()
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade:
            pass  # raised at the end of the head; the fields decide whether this is an upgrade
        except httptools.HttpParserError as error:
            raise malformed(f"not HTTP/1.1: {error}{self._cure(str(error), head)}") from None

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
