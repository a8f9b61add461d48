"""The only module that reads the system clock; everything else takes the time as an argument."""

import time
from collections.abc import Callable
from time import monotonic_ns, time_ns


def now_ms() -> int:
    """Wall-clock time in Unix milliseconds: signatures' timestamps, expiries, audit."""
    return time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that never steps: timeouts, cache freshness, rate limits within one process."""
    return monotonic_ns() // 1_000_000


stopwatch: Callable[[], float] = time.perf_counter
"""Seconds of a fine clock with no fixed beginning: for durations that are measured, not for limits."""
