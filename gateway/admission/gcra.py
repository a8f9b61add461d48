"""The generic cell rate algorithm, in weights: the model of every rate limit here. Pure.

Source: ITU-T I.371 Annex A, virtual scheduling; written with one stored number, the theoretical arrival time (TAT). A limit of ``units``
in ``period_ms`` admits at most that many at once, and then one unit each ``period_ms / units``.
"""

from typing import NamedTuple

from gateway.config import Rate
from gateway.errors import GerbangError

_new = tuple.__new__


class Charge(NamedTuple):
    """What became of one charge. All in milliseconds from now, or in units."""

    allowed: bool
    tat_ms: float
    """The new theoretical arrival time, unchanged when refused."""
    remaining: int
    """Units that could be charged right now, after this."""
    reset_ms: float
    """Until the whole limit is there again."""
    retry_after_ms: float
    """Until the same charge would pass; 0 when it did. Infinite when the weight is above the limit itself."""


class ShareNeeded(GerbangError):
    """A limiter cannot say yes or no on its own: it has to be asked again after it has settled with the others. Nothing was charged."""


def charge(tat_ms: float, weight: int, now_ms: float, rate: Rate) -> Charge:
    """Charge ``weight`` units at ``now_ms`` to a limit whose theoretical arrival time is ``tat_ms`` (0: never used).

    A weight of 0 always passes. On the hot path: comparisons instead of calls of ``max``, and the tuple made directly.
    """
    units, period_ms = rate
    interval = period_ms / units
    base = tat_ms if tat_ms > now_ms else now_ms  # noqa: FURB136
    new = base + weight * interval
    used = new - now_ms
    left = period_ms - used
    if left >= -1e-6 or not weight:
        return _new(Charge, (True, new, int(left / interval + 1e-6) if left > 0 else 0, used, 0.0))
    free = period_ms - (base - now_ms)
    retry_ms = -left if weight <= units else float("inf")
    return Charge(
        allowed=False, tat_ms=tat_ms, remaining=max(0, int(free / interval + 1e-6)), reset_ms=base - now_ms, retry_after_ms=retry_ms
    )
