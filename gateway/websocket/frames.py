"""WebSocket frames (RFC 6455 §5): parsing, masking and building. Pure."""

import secrets
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its extension
    from websockets.utils import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED: Final = 1003
INVALID_DATA: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009

LONGEST_HEAD: Final = 14
FRAMES_AT_ONCE: Final = 4_096
FRAMES_PER_SECOND: Final = 1_000
"""What a client may send: all frames of a tunnel; of a session what is no message, control frames and fragments."""
_FIN: Final = 0x80
_MASKED: Final = 0x80
_NEVER: Final = 0
_FRAME: Final = 1
_MESSAGE: Final = 2


class FrameBudget:
    """How many frames may still come."""

    __slots__ = ("_credit", "_credit_ms")

    def __init__(self) -> None:
        self._credit = FRAMES_AT_ONCE * 1_000
        """In thousandths of a frame."""
        self._credit_ms = 0

    def spend(self, frames: int, now_ms: int) -> bool:
        """Whether so many more were still within it."""
        elapsed_ms = max(0, now_ms - self._credit_ms)
        self._credit_ms = now_ms
        self._credit = min(FRAMES_AT_ONCE * 1_000, self._credit + elapsed_ms * FRAMES_PER_SECOND) - 1_000 * frames
        return self._credit >= 0


class FrameTracker:
    """Follows one direction of a connection by the heads of its frames, without looking at what they carry."""

    __slots__ = ("_fin", "_header", "_left", "_open", "frames")

    def __init__(self) -> None:
        self.frames = 0
        """How many have begun; read and reset where they are bounded."""
        self._header = b""
        self._left = 0
        self._fin = True
        """Whether the frame in progress ends its message; true for control frames, which end nothing."""
        self._open = False
        """A message has begun, and its last fragment has not come (RFC 6455 §5.4)."""

    @property
    def between_frames(self) -> bool:
        return not self._left and not self._header

    @property
    def between_messages(self) -> bool:
        """Whether a whole message may be put in here: between frames, and not between two fragments."""
        return not self._left and not self._header and not self._open

    def follow(self, data: bytes) -> None:
        """These bytes pass."""
        self._advance(data, _NEVER)

    def until_frame_end(self, data: bytes) -> int:
        """Let pass what belongs to the frame in progress, and say how many bytes that is; 0 between frames."""
        return 0 if self.between_frames else self._advance(data, _FRAME)

    def until_message_end(self, data: bytes) -> int:
        """Let pass what belongs to the message in progress, and say how many bytes that is; 0 between messages."""
        return 0 if self.between_messages else self._advance(data, _MESSAGE)

    def _advance(self, data: bytes, stop: int) -> int:
        """Follow whole frames; returns where it stopped."""
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
    """Bytes in the head of a frame that begins like this; 2 while not even that is known."""
    if len(head) < 2:
        return 2
    short = head[1] & 0x7F
    return 2 + (2 if short == 126 else 8 if short == 127 else 0) + (4 if head[1] & _MASKED else 0)


def payload_size(head: bytes) -> int:
    """Bytes of payload behind a whole head."""
    short = head[1] & 0x7F
    if short < 126:
        return short
    return int.from_bytes(head[2:4] if short == 126 else head[2:10], "big")


def frame(opcode: int, payload: bytes, *, mask: bytes = b"") -> bytes:
    """One frame that is a whole message, or a control frame.

    :param mask: four random bytes on the way to a server, none on the way to a client (RFC 6455 §5.3)
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
    """The payload masked or, which is the same, unmasked (RFC 6455 §5.3)."""
    return apply_mask(payload, mask)


def close_frame(code: int, reason: str, *, mask: bytes = b"") -> bytes:
    """A Close frame (RFC 6455 §5.5.1); the reason is cut where it is too long for one.

    :param mask: as for :func:`frame`
    """
    payload = code.to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()
    return frame(CLOSE, payload, mask=mask)


class Masks:
    """Masking keys that nobody can foresee (RFC 6455 §10.3), drawn from the system many at a time."""

    __slots__ = ("_at", "_drawn")

    def __init__(self) -> None:
        self._drawn = b""
        self._at = 0

    def next(self) -> bytes:
        """Four bytes, each time others."""
        at = self._at
        if at >= len(self._drawn):
            self._drawn, at = secrets.token_bytes(4_096), 0
        self._at = at + 4
        return self._drawn[at : at + 4]
