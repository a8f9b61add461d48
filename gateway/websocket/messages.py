"""Assembles a client's WebSocket frames into messages (RFC 6455 §5 and §8.1). Pure; the time is an argument.

It takes bytes in pieces of any size and returns one event after the other: a text message, unmasked and reassembled from its fragments,
or a control frame, which may come between fragments. Extensions are not supported, so a reserved bit is an error. The first error is
the last event, and contains the close code.
"""

from typing import Final

from gateway.websocket.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FRAMES_PER_SECOND,
    INVALID_DATA,
    LONGEST_HEAD,
    POLICY_VIOLATION,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    UNSUPPORTED,
    FrameBudget,
    head_size,
    masked,
    payload_size,
)

FAILED: Final = -1
"""The opcode of the final event, an error."""


class Event:
    """A message, a control frame or an error."""

    __slots__ = ("code", "opcode", "payload")

    def __init__(self, opcode: int, payload: bytes, code: int = 0) -> None:
        self.opcode = opcode
        """``TEXT``, ``PING``, ``PONG``, ``CLOSE``, or :data:`FAILED`."""
        self.payload = payload
        """For a text message, valid UTF-8; for a failure, the reason."""
        self.code = code
        """The close code of a failure, or the client's (1005: none was sent)."""


class MessageReader:
    """See the module.

    :param max_bytes: maximum size of a message
    """

    __slots__ = ("_at", "_budget", "_data", "_ended", "_held", "_message", "_need", "_open", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._data = b""
        self._at = 0
        self._held = bytearray()
        """The beginning of an incomplete frame; ``_data`` is then used up."""
        self._need = 2
        """Size of ``_held`` from which parsing is tried again."""
        self._message = bytearray()
        self._open = False
        self._ended = False
        self._budget = FrameBudget()
        """For frames that are not messages; messages are limited by their methods' rate limits."""

    @property
    def waiting(self) -> bool:
        """Whether there are bytes that :meth:`next` has not processed."""
        return self._at < len(self._data) and not self._ended

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if self._ended:
            return
        if self._at < len(self._data):
            self._data, self._at = self._data[self._at :] + data, 0
        elif not self._held:
            self._data, self._at = data, 0
        else:
            self._held += data
            if len(self._held) >= self._need:
                self._data, self._at = bytes(self._held), 0
                self._held.clear()

    def next(self, now_ms: int) -> Event | None:
        """The next event; ``None``: more bytes are needed, or the connection has ended.

        :param now_ms: monotonic milliseconds
        """
        while not self._ended:
            at = self._at
            head = self._data[at : at + LONGEST_HEAD]
            size = head_size(head)
            if len(head) < 2:
                self._hold(size)
                return None
            wrong = self._wrong_start(head)
            if wrong:
                return self._fail(UNSUPPORTED if head[0] & 0x0F == BINARY and not self._open else PROTOCOL_ERROR, wrong)
            if len(head) < size:
                self._hold(size)
                return None
            length = payload_size(head)
            short = head[1] & 0x7F
            if (short == 126 and length < 126) or (short == 127 and not 65_536 <= length < 1 << 63):
                return self._fail(PROTOCOL_ERROR, "the payload length is not minimally encoded")
            if head[0] & 0x0F < CLOSE and len(self._message) + length > self.max_bytes:
                return self._fail(TOO_BIG, f"a message must have at most {self.max_bytes} bytes")
            end = at + size + length
            if end > len(self._data):
                self._hold(size + length)
                return None
            self._at = end
            event = self._take(head[0], masked(self._data[at + size : end], head[size - 4 : size]), now_ms)
            if event is not None:
                return event
        return None

    def _wrong_start(self, head: bytes) -> str:
        """The error in the first two bytes of a frame, or ``""``."""
        first, opcode = head[0], head[0] & 0x0F
        if first & 0x70:
            return "a reserved bit is set, and no extension was negotiated"
        if not head[1] & 0x80:
            return "a client's frames must be masked"
        if opcode >= CLOSE:
            if opcode > PONG:
                return "unknown opcode"
            if not first & 0x80 or head[1] & 0x7F > 125:
                return "a control frame must not be fragmented or longer than 125 bytes"
            return ""
        if opcode > BINARY:
            return "unknown opcode"
        if (opcode == CONTINUATION) is not self._open:
            return "a new message inside a fragmented one" if self._open else "a continuation frame without a message"
        return "messages must be text" if opcode == BINARY else ""

    def _take(self, first: int, payload: bytes, now_ms: int) -> Event | None:
        """Process a complete, unmasked frame."""
        opcode, fin = first & 0x0F, first & 0x80
        if (opcode != TEXT or not fin) and not self._budget.spend(1, now_ms):
            return self._fail(POLICY_VIOLATION, f"more than {FRAMES_PER_SECOND} control frames and fragments per second")
        if opcode >= CLOSE:
            return self._closed(payload) if opcode == CLOSE else Event(opcode, payload)
        if not fin or self._open:
            self._message += payload
            self._open = not fin
            if not fin:
                return None
            payload = bytes(self._message)
            self._message.clear()
        try:
            payload.decode()
        except UnicodeDecodeError:
            return self._fail(INVALID_DATA, "the text is not UTF-8")
        return Event(TEXT, payload)

    def _closed(self, payload: bytes) -> Event:
        """Process the client's Close frame (RFC 6455 §5.5.1, §7.4), after which nothing is read."""
        if len(payload) == 1:
            return self._fail(PROTOCOL_ERROR, "a close code must have two bytes")
        code = int.from_bytes(payload[:2], "big") if payload else 1005
        if payload and not (3_000 <= code <= 4_999 or 1_000 <= code <= 1_003 or 1_007 <= code <= 1_014):
            return self._fail(PROTOCOL_ERROR, "the close code must not be sent")
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            return self._fail(INVALID_DATA, "the close reason is not UTF-8")
        self._end()
        return Event(CLOSE, payload, code)

    def _hold(self, need: int) -> None:
        """Buffer an incomplete frame, of which ``need`` bytes are required."""
        self._held += self._data[self._at :]
        self._data, self._at = b"", 0
        self._need = need

    def _fail(self, code: int, why: str) -> Event:
        self._end()
        return Event(FAILED, why.encode(), code)

    def _end(self) -> None:
        self._ended = True
        self._data, self._at = b"", 0
        self._held.clear()
        self._message.clear()
