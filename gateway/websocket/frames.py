"""Where WebSocket frames begin and end in a stream of bytes (RFC 6455 §5.2), so that one can be put between two. Pure."""

GOING_AWAY = 1001
POLICY_VIOLATION = 1008

_LENGTH_BYTES = {126: 2, 127: 8}


class FrameTracker:
    """Follows one direction of a tunnel without looking at what it carries."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    @property
    def between_frames(self) -> bool:
        return not self._left and not self._header

    def follow(self, data: bytes) -> None:
        """These bytes pass."""
        position = 0
        while position < len(data):
            position = self._step(data, position)

    def until_frame_end(self, data: bytes) -> int:
        """Let pass what belongs to the frame in progress, and say how many bytes that is; 0 between frames."""
        position = 0
        while position < len(data) and not self.between_frames:
            position = self._step(data, position)
        return position

    def _step(self, data: bytes, position: int) -> int:
        """Take payload as far as there is any, else one byte of a header; returns where to go on."""
        if self._left:
            passed = min(self._left, len(data) - position)
            self._left -= passed
            return position + passed
        self._header += data[position : position + 1]
        length = _payload_length(self._header)
        if length is not None:
            self._header = b""
            self._left = length
        return position + 1


def _payload_length(header: bytes) -> int | None:
    """The payload's length, or ``None`` while the header is not whole."""
    if len(header) < 2:
        return None
    short = header[1] & 0x7F
    extended = _LENGTH_BYTES.get(short, 0)
    if len(header) < 2 + extended + (4 if header[1] & 0x80 else 0):
        return None
    return int.from_bytes(header[2 : 2 + extended], "big") if extended else short


def close_frame(code: int, reason: str, *, mask: bytes = b"") -> bytes:
    """A Close frame (RFC 6455 §5.5.1).

    :param mask: four random bytes on the way to a server, none on the way to a client (§5.3)
    """
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    if not mask:
        return bytes((0x88, len(payload))) + payload
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((0x88, 0x80 | len(payload))) + mask + masked
