"""WebSocket frames (RFC 6455 §5): parsing, masking and building. Pure."""

import secrets
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # no extension module for this platform
    from websockets.utils import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
INVALID_DATA: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009

LONGEST_HEAD: Final = 14
FRAMES_AT_ONCE: Final = 4_096
FRAMES_PER_SECOND: Final = 1_000
"""Maximum frames per second from a client: in a tunnel all frames, in a session control frames and fragments."""
_FIN: Final = 0x80
_MASKED: Final = 0x80
_NEVER: Final = 0
_FRAME: Final = 1
_MESSAGE: Final = 2


class FrameBudget:
    """A rate limit of frames."""

    __slots__ = ("_credit", "_credit_ms")

    def __init__(self) -> None:
        self._credit = FRAMES_AT_ONCE * 1_000
        """The remaining budget, in thousandths of a frame."""
        self._credit_ms = 0

    def spend(self, frames: int, now_ms: int) -> bool:
        """Spend frames. Returns whether they were within the budget."""
        elapsed_ms = max(0, now_ms - self._credit_ms)
        self._credit_ms = now_ms
        self._credit = min(FRAMES_AT_ONCE * 1_000, self._credit + elapsed_ms * FRAMES_PER_SECOND) - 1_000 * frames
        return self._credit >= 0


class FrameTracker:
    """Tracks frame boundaries in one direction of a connection, without reading payloads."""

    __slots__ = ("_header", "_left", "_open", "frames")

    def __init__(self) -> None:
        self.frames = 0
        """Frames begun; read and reset by the code that limits them."""
        self._header = b""
        self._left = 0
        self._open = False
        """Whether a message has begun whose last fragment has not been seen (RFC 6455 §5.4)."""

    @property
    def between_frames(self) -> bool:
        return not self._left and not self._header

    @property
    def between_messages(self) -> bool:
        """Whether a message may be inserted here: between frames, and not between fragments."""
        return not self._left and not self._header and not self._open

    def follow(self, data: bytes) -> None:
        """Track these bytes."""
        self._advance(data, _NEVER)

    def until_frame_end(self, data: bytes) -> int:
        """Track the bytes up to the end of the current frame. Returns their number; 0 between frames."""
        return 0 if self.between_frames else self._advance(data, _FRAME)

    def until_message_end(self, data: bytes) -> int:
        """Track the bytes up to the end of the current message. Returns their number; 0 between messages."""
        return 0 if self.between_messages else self._advance(data, _MESSAGE)

    def _advance(self, data: bytes, stop: int) -> int:
        """Track frames; returns the position where it stopped."""
        position, end = 0, len(data)
        while position < end:
            if self._left:
                passed = min(self._left, end - position)
                self._left -= passed
                position += passed
            else:
                header = self._header + data[position : position + LONGEST_HEAD - len(self._header)]
                size = head_size(header)
                if len(header) < size:
                    self._header = header
                    return end
                position += size - len(self._header)
                self._header = b""
                self._left = payload_size(header)
                self.frames += 1
                if header[0] & 0x0F < CLOSE:
                    self._open = not header[0] & _FIN
            if not self._left and (stop == _FRAME or (stop == _MESSAGE and not self._open)):
                return position
        return position


def head_size(head: bytes) -> int:
    """The size of the frame head that begins with these bytes; 2 if it is not known yet."""
    if len(head) < 2:
        return 2
    short = head[1] & 0x7F
    return 2 + (2 if short == 126 else 8 if short == 127 else 0) + (4 if head[1] & _MASKED else 0)


def payload_size(head: bytes) -> int:
    """The payload size in a complete frame head."""
    short = head[1] & 0x7F
    if short < 126:
        return short
    return int.from_bytes(head[2:4] if short == 126 else head[2:10], "big")


def frame(opcode: int, payload: bytes, *, mask: bytes = b"") -> bytes:
    """Build an unfragmented message, or a control frame.

    :param mask: four random bytes towards a server, none towards a client (RFC 6455 §5.3)
    """
    size, flag = len(payload), _MASKED if mask else 0
    if size < 126:
        head = bytes((_FIN | opcode, flag | size))
    elif size < 65_536:
        head = bytes((_FIN | opcode, flag | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, flag | 127)) + size.to_bytes(8, "big")
    return head + mask + masked(payload, mask) if mask else head + payload


def masked(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask a payload, which is the same operation (RFC 6455 §5.3)."""
    return apply_mask(payload, mask)


def close_frame(code: int, reason: str, *, mask: bytes = b"") -> bytes:
    """A Close frame (RFC 6455 §5.5.1); a reason that is too long is truncated.

    :param mask: as for :func:`frame`
    """
    payload = code.to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()
    return frame(CLOSE, payload, mask=mask)


class Masks:
    """Unpredictable masking keys (RFC 6455 §10.3), read from the system in batches."""

    __slots__ = ("_at", "_drawn")

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        """Four new random bytes."""
        at = self._at
        if at >= len(self._drawn):
            self._drawn, at = secrets.token_bytes(4_096), 0
        self._at = at + 4
        return self._drawn[at : at + 4]
