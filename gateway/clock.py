"""The only place that asks what time it is; everything else takes the time as an argument."""

import time


def now_ms() -> int:
    """Wall-clock time in Unix milliseconds: signatures' timestamps, expiries, audit."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that never steps: timeouts, cache freshness, rate limits within one process."""
    return time.monotonic_ns() // 1_000_000
