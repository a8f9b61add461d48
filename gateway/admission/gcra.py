"""The generic cell rate algorithm, in weights: the model of every rate limit here. Pure.

Source: ITU-T I.371 Annex A, virtual scheduling; written with one stored number, the theoretical arrival time (TAT). A limit of ``units``
in ``period_ms`` admits at most that many at once, and then one unit each ``period_ms / units``.
"""

from typing import NamedTuple

from gateway.config import Rate


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


def charge(tat_ms: float, weight: int, now_ms: float, rate: Rate) -> Charge:
    """Charge ``weight`` units at ``now_ms`` to a limit whose theoretical arrival time is ``tat_ms`` (0: never used)."""
    interval = rate.period_ms / rate.units
    base = max(tat_ms, now_ms)
    new = base + weight * interval
    over = new - now_ms - rate.period_ms
    if weight and over > 1e-6:
        used = base - now_ms
        retry = over if weight <= rate.units else float("inf")
        return Charge(False, tat_ms, max(0, int((rate.period_ms - used) / interval + 1e-6)), used, retry)
    used = new - now_ms
    return Charge(True, new, max(0, int((rate.period_ms - used) / interval + 1e-6)), used, 0.0)
