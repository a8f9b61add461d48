"""The only module that reads the system clock; everything else takes the time as an argument."""

import time
from collections.abc import Callable
from time import time_ns


def now_ms() -> int:
    """Wall-clock time in Unix milliseconds, for signatures' timestamps, expiries and the audit log."""
    return time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Monotonic milliseconds, for timeouts, cache freshness and rate limits within one process."""
    return monotonic_ns() // 1_000_000


monotonic_ns: Callable[[], int] = time.monotonic_ns
"""Monotonic nanoseconds, for the scheduling of one turn of the event loop."""
processor_ns: Callable[[], int] = time.thread_time_ns
"""Processor time of this thread in nanoseconds: the cost of a turn of the event loop, independent of other load."""
stopwatch: Callable[[], float] = time.perf_counter
"""Seconds of a high-resolution clock, for measuring durations, not for limits."""
