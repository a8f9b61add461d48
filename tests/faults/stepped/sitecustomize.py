"""Python imports this by its name when it starts: with this folder on PYTHONPATH, a process's wall clock is the true one and an offset.

The offset stands in a file that whoever started the process writes to (:mod:`tests.faults.steps`); a step is seen at the very next look
at the clock. The monotonic clock stays what it is.
"""

import mmap
import os
import struct
import time
from pathlib import Path

_OFFSET = struct.Struct("=q")  # nanoseconds

with Path(os.environ["GERBANG_TEST_CLOCK"]).open("rb") as _file:
    _shared = mmap.mmap(_file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
_true_ns = time.time_ns  # noqa: TID251


def _time_ns() -> int:
    return _true_ns() + _OFFSET.unpack_from(_shared)[0]


time.time_ns = _time_ns  # noqa: TID251
time.time = lambda: _time_ns() / 1e9  # noqa: TID251
