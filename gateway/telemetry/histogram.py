"""A histogram for the hot path: two additions per observation."""

from typing import Final

SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the histograms' buckets; the last, unbounded one is implied."""

_FIRST: Final = 0.0005
_SECOND: Final = 0.001
_THIRD: Final = 0.002


class Histogram:
    """Counts of durations in the buckets of :data:`SECONDS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        bucket = 0
        if seconds <= _FIRST:  # the common case: comparing constants creates no objects
            bucket = 0
        elif seconds <= _SECOND:
            bucket = 1
        elif seconds <= _THIRD:
            bucket = 2
        else:
            for bound in SECONDS:
                if seconds <= bound:
                    break
                bucket += 1
        self.counts[bucket] += 1
        self.total += seconds
