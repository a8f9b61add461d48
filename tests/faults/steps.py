"""A wall clock that steps, for the processes of a gateway: what a scenario sets, and what was in force when."""

import mmap
import os
import struct
from pathlib import Path

from gateway.runtime import clock
from tests.faults.load import Seen

_CODE = Path(__file__).with_name("stepped")


class SteppedClock:
    """The wall clock of every process that is started with :attr:`environment`: the true one, plus what :meth:`step` says.

    :param file: where the offset is kept
    """

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), 8)
        earlier = os.environ.get("PYTHONPATH")
        self.environment = {"GERBANG_TEST_CLOCK": str(file), "PYTHONPATH": os.pathsep.join(filter(None, (str(_CODE), earlier)))}
        self.offset_ms = 0
        self._steps: list[tuple[int, int, int]] = [(0, 0, 0)]

    def step(self, offset_ms: int) -> int:
        """Let the clock go wrong by so much, or right again (0); returns from when on that is so, monotonic."""
        before_ms = clock.monotonic_ms()
        self._shared[:] = struct.pack("=q", offset_ms * 1_000_000)
        self.offset_ms = offset_ms
        after_ms = clock.monotonic_ms()
        self._steps.append((before_ms, after_ms, offset_ms))
        return after_ms

    def now_ms(self) -> int:
        """What the gateway takes for the time."""
        return clock.now_ms() + self.offset_ms

    def during(self, seen: Seen) -> int | None:
        """By how much the clock was wrong while a request was under way; ``None`` when that changed meanwhile."""
        from_ms = (*self._steps[1:], (1 << 62, 0, 0))
        for (_before_ms, after_ms, offset_ms), (next_ms, *_) in zip(self._steps, from_ms, strict=True):
            if after_ms < seen.sent_ms and seen.answered_ms < next_ms:
                return offset_ms
        return None
