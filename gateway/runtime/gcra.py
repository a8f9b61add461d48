"""The generic cell rate algorithm (GCRA), weighted: the model of every rate limit. Pure.

Source: ITU-T I.371 Annex A, virtual scheduling; written with one stored number, the theoretical arrival time (TAT). A limit of ``units``
in ``period_ms`` admits at most that many at once, and then one unit each ``period_ms / units``.
"""

from typing import Final

from gateway.errors import GerbangError

ROUNDING: Final = 5e-7
"""Half of the margin, in units, with which :attr:`Charge.remaining` is rounded down."""


class Charge:
    """The result of a charge, in milliseconds from now, or in units."""

    __slots__ = ("allowed", "of_account", "remaining", "reset_ms", "retry_after_ms", "tat_ms")

    def __init__(self, allowed: bool, tat_ms: float, remaining: int, reset_ms: float, retry_after_ms: float) -> None:
        self.allowed = allowed
        self.of_account = False
        """Whether the limit is the account's, shared by all its keys."""
        self.tat_ms = tat_ms
        """The new theoretical arrival time, unchanged when refused."""
        self.remaining = remaining
        """Units that could be charged now, after this charge."""
        self.reset_ms = reset_ms
        """Time until the limit is fully available again."""
        self.retry_after_ms = retry_after_ms
        """Time until the same charge would pass; 0 if it did. Infinite if the weight exceeds the limit itself."""


class ShareNeeded(GerbangError):
    """The limiter must settle with the other workers before it can decide: charge again afterwards. Nothing was charged."""


def charge(tat_ms: float, weight: int, now_ms: float, rate: tuple[int, int]) -> Charge:
    """Charge ``weight`` units at ``now_ms`` to a limit whose theoretical arrival time is ``tat_ms`` (0: never used).

    :param rate: units, and the period in milliseconds

    A weight of 0 always passes. On the hot path: comparisons instead of calls of ``max``.
    """
    units, period_ms = rate
    interval = period_ms / units
    base = tat_ms if tat_ms > now_ms else now_ms  # noqa: FURB136
    new = base + weight * interval
    used = new - now_ms
    left = period_ms - used
    if left >= -1e-6 or not weight:
        return Charge(True, new, int(left / interval + 1e-6) if left > 0 else 0, used, 0.0)
    free = period_ms - (base - now_ms)
    retry_ms = -left if weight <= units else float("inf")
    return Charge(
        allowed=False, tat_ms=tat_ms, remaining=max(0, int(free / interval + 1e-6)), reset_ms=base - now_ms, retry_after_ms=retry_ms
    )


def passed(tat_ms: float, weight: int, now_ms: float, rate: tuple[int, int]) -> float:
    """The new theoretical arrival time if :func:`charge` allows this charge, else -1; for callers that need nothing else of it."""
    units, period_ms = rate
    base = tat_ms if tat_ms > now_ms else now_ms  # noqa: FURB136
    new = base + weight * (period_ms / units)
    return new if period_ms - (new - now_ms) >= -1e-6 or not weight else -1.0


def whole_in_ms(charge: Charge, rate: tuple[int, int]) -> float:
    """Milliseconds until the whole limit is available again. Where less remains than GCRA allows, another rule holds it back: for at most
    one period.

    :param rate: units, and the period in milliseconds
    """
    units, period_ms = rate
    by_gcra = (period_ms - charge.reset_ms) * units / period_ms
    return charge.reset_ms if charge.remaining + 1 - by_gcra > ROUNDING else period_ms
