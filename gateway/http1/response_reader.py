"""Reads the responses on one upstream connection: interim and final heads, content, and the end of each response. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import httptools

from gateway.errors import Refusal
from gateway.http1.framing import UNTIL_CLOSE
from gateway.http1.reader import HEAD_END, Reader
from gateway.http1.response import KNOWN_HEADS, ResponseHead, Unframable, known_head, read_head

MAX_RESPONSE_HEAD: Final = 65_536
"""Maximum bytes of all heads of one response, and of its trailers."""
_NONE: Final[tuple[ResponseHead, ...]] = ()
_known: Final = KNOWN_HEADS
"""A name of this module: of an imported one, CPython makes an object for each call of a method."""


class ResponseReader(Reader):
    """Reads the responses on one connection: :meth:`begin` for each request, then :meth:`feed` until ``ended``."""

    __slots__ = ("_head_only", "_room", "_upgrade", "head", "interims")

    def __init__(self) -> None:
        super().__init__()
        self._head_only = self._upgrade = False
        self._room = 0
        self.head: ResponseHead | None = None
        """The final response's head, or a 101; ``None`` until it has been received."""
        self.interims: Sequence[ResponseHead] = _NONE
        """The other 1xx heads in the last input (RFC 9110 §15.2)."""

    def _new_feed(self) -> Any:
        parser: Any = httptools.HttpResponseParser(self._head_end)
        return parser.feed_data

    def begin(self, head_only: bool, upgrade: bool) -> None:
        """Expect the response to a request.

        :param head_only: whether the request is a HEAD
        :param upgrade: whether it is a WebSocket handshake
        """
        self._head_only = head_only
        self._upgrade = upgrade
        self._room = MAX_RESPONSE_HEAD
        self.head = None
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Read bytes from the server. After the end, ``rest`` contains unsolicited bytes; after a 101 it belongs to the tunnel.

        :raises Unframable: the framing is ambiguous; none of these bytes may be used
        """
        self.interims = _NONE
        if self.head is None and not (self._held or self._head_only):  # usually a complete response whose head is cached
            end = data.find(HEAD_END) + 4
            head = _known.get(data[:end])
            if head is not None and head.status >= 200 and head.length == len(data) - end and end <= self._room:
                self.head, self.content, self.ended = head, data[end:], True
                return
        self._feed_further(data)

    def _feed_further(self, data: bytes) -> None:
        self.content = b""
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
        except Refusal as refusal:  # the rules are shared with requests
            raise Unframable(refusal.detail) from None

    def end_of_input(self) -> bool:
        """The server has closed its side. Returns whether that properly ends the response."""
        return self.head is not None and not self.ended and self._left == UNTIL_CLOSE

    def _next_head(self, data: bytes) -> ResponseHead | None:
        """The next complete head; ``None``: it is incomplete. A cached head is not passed to llhttp again."""
        if not self._held and not self._head_only:
            end = data.find(HEAD_END) + 4
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
            raise Unframable("too many interim responses")
        if head.status == 101 and not (self._upgrade and head.upgrade == b"websocket"):
            raise Unframable("an unrequested protocol switch")
        return head
