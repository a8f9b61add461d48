"""The only module that reads the system clock; everything else takes the time as an argument."""

import time
from collections.abc import Callable
from time import monotonic_ns, thread_time_ns, time_ns


def now_ms() -> int:
    """Wall-clock time in Unix milliseconds, for signatures' timestamps, expiries and the audit log."""
    return time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Monotonic milliseconds, for timeouts, cache freshness and rate limits within one process."""
    return monotonic_ns() // 1_000_000


def monotonic_us() -> int:
    """Monotonic microseconds, for the scheduling of one turn of the event loop."""
    return monotonic_ns() // 1_000


def processor_us() -> int:
    """Processor time of this thread in microseconds: the cost of a turn of the event loop, independent of other load."""
    return thread_time_ns() // 1_000


stopwatch: Callable[[], float] = time.perf_counter
"""Seconds of a high-resolution clock, for measuring durations, not for limits."""
