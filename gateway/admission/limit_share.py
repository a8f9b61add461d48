"""One worker's share of one key's rate limit: what it may admit before it settles with the ledger. Pure.

All times are monotonic milliseconds, given as arguments.
"""

from collections.abc import Sequence
from typing import Any, Final

from gateway.config.values import Rate
from gateway.runtime.gcra import Charge, ShareNeeded

CAP: Final = 1.03
"""The most that the ledger admits in one period, as a multiple of the limit: see ``settle.lua``."""
SHARE: Final = 100
"""A worker admits at most this fraction (one in so many) of the limit before it settles."""
WORKERS: Final = 32
"""A worker admits at most this fraction (one in so many) of what the ledger has left, so that evenly loaded workers run out together."""
GRANT_MS: Final = 1_000
"""How long granted units may be used: the requests that wait for them use them at once or not at all."""


class Share:
    """See the module."""

    __slots__ = (
        "granted", "granted_until_ms", "key_id", "learned_ms", "max_unsettled", "rate", "room", "settle_above", "smallest_wanted", "tat_ms",
        "unsettled", "unsettled_since_ms", "wanted", "window_full_until_ms",
    )  # fmt: skip

    def __init__(self, key_id: str, rate: Rate) -> None:
        self.key_id = key_id
        self.rate = rate
        self.tat_ms = 0.0
        """Theoretical arrival time: the ledger's, plus what was admitted here since. Too late by what other workers have refunded since."""
        self.room = rate.units
        """Units left in the window: the ledger's count, less what was admitted here since."""
        self.learned_ms = -1e15
        """When the ledger was last read."""
        self.window_full_until_ms = 0.0
        """Time until which the window is known to be full."""
        self.unsettled = 0
        """Units admitted here and not yet reported to the ledger."""
        self.max_unsettled = rate.units // SHARE
        """Maximum number of unsettled units: beyond it a settlement must come first."""
        self.settle_above = self.max_unsettled * 3 // 4
        """Number of unsettled units from which a settlement is requested."""
        self.unsettled_since_ms = 0.0
        """When the first unsettled unit was admitted."""
        self.wanted = 0
        """Units that waiting requests need."""
        self.smallest_wanted = 0
        """The smallest weight among the waiting requests."""
        self.granted = 0
        """Unused units granted by the ledger; void after :attr:`granted_until_ms`."""
        self.granted_until_ms = 0.0

    def take_granted(self, weight: int, now_ms: float) -> bool:
        """Use ``weight`` granted units, which must be there. ``False``: they are void."""
        if now_ms > self.granted_until_ms:
            self.granted = 0
            return False
        self.granted -= weight
        return True

    def over_window(self, now_ms: float) -> Charge:
        """The refusal of a request that GCRA allows but the window does not.

        :raises ShareNeeded: the ledger must be read to know whether the window has room
        """
        if now_ms >= self.window_full_until_ms:
            raise ShareNeeded(self.key_id)
        wait_ms = self.window_full_until_ms - now_ms
        return Charge(allowed=False, tat_ms=self.tat_ms, remaining=max(0, self.room), reset_ms=wait_ms, retry_after_ms=wait_ms)

    def give_back(self, weight: int) -> None:
        """Refund an allowed charge."""
        self.tat_ms -= weight * self.rate.period_ms / self.rate.units
        self.unsettled -= weight
        self.room += weight

    def used(self, now_ms: float) -> int:
        """Units used in the last period: the ledger's count, plus what was admitted here since."""
        if now_ms - self.learned_ms >= self.rate.period_ms:  # or never: all that the ledger counted is more than a period old
            return max(0, self.unsettled)
        return max(0, int(self.rate.units * CAP) - self.room)

    def learn(self, answer: Sequence[Any], sent_ms: int) -> None:
        """Adopt the ledger's state, and add what was admitted while the settlement was under way.

        :param answer: of ``settle.lua``: units granted, milliseconds to the theoretical arrival time, room in the window, milliseconds
            until it has room again
        """
        rate = self.rate
        granted, tat_in_ms, room, full_for_ms = int(answer[0]), float(answer[1]), int(answer[2]), float(answer[3])
        self.tat_ms = sent_ms + tat_in_ms + self.unsettled * rate.period_ms / rate.units
        self.room = room - self.unsettled
        self.max_unsettled = min(rate.units // SHARE, max(0, room) // WORKERS)
        self.settle_above = self.max_unsettled * 3 // 4
        self.learned_ms = float(sent_ms)
        self.window_full_until_ms = sent_ms + full_for_ms if full_for_ms else 0.0
        if granted:
            self.granted = granted + (self.granted if sent_ms <= self.granted_until_ms else 0)
            self.granted_until_ms = float(sent_ms + GRANT_MS)
