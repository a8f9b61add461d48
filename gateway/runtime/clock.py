"""The only module that reads the system clock; everything else takes the time as an argument."""

import time
from collections.abc import Callable


def now_ms() -> int:
    """Wall-clock time in Unix milliseconds: signatures' timestamps, expiries, audit."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that never steps: timeouts, cache freshness, rate limits within one process."""
    return time.monotonic_ns() // 1_000_000


stopwatch: Callable[[], float] = time.perf_counter
"""Seconds of a fine clock with no fixed beginning: for durations that are measured, not for limits."""
