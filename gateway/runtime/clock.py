"""The only module that reads the system clock; everything else takes the time as an argument."""

import time
from collections.abc import Callable
from time import monotonic_ns, thread_time_ns, time_ns


def now_ms() -> int:
    """Wall-clock time in Unix milliseconds: signatures' timestamps, expiries, audit."""
    return time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that never steps: timeouts, cache freshness, rate limits within one process."""
    return monotonic_ns() // 1_000_000


def monotonic_us() -> int:
    """The same in microseconds: shares of one turn of the event loop."""
    return monotonic_ns() // 1_000


def processor_us() -> int:
    """Microseconds that this thread has run: what a turn of the event loop has taken, whoever else uses the machine."""
    return thread_time_ns() // 1_000


stopwatch: Callable[[], float] = time.perf_counter
"""Seconds of a fine clock with no fixed beginning: for durations that are measured, not for limits."""
