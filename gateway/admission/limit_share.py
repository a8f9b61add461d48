"""One worker's share of one key's rate limit: what it admits on its own, and what it takes over from the ledger. Pure.

All times are monotonic milliseconds, given as arguments.
"""

from collections.abc import Sequence
from typing import Any, Final

from gateway.config.values import Rate
from gateway.runtime.gcra import Charge, ShareNeeded

CAP: Final = 1.03
"""The ledger's own bound for one period, in limits: see ``settle.lua``."""
SHARE: Final = 100
"""A worker admits one part in this many of the limit before it has settled, however long that takes: what is not settled is bounded."""
WORKERS: Final = 32
"""A worker admits one part in this many of what the ledger has left: so many workers that are used alike end together."""
GRANT_MS: Final = 1_000
"""For how long units that were granted may be used: whoever waited for them comes at once, or not at all."""


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
        """As the ledger had it, and what was admitted here since: later than the true one at most by what others gave back since."""
        self.room = rate.units
        """Units left in the window, as the ledger had it, less what was admitted here since."""
        self.learned_ms = -1e15
        """When the ledger was last asked."""
        self.window_full_until_ms = 0.0
        """Until when the window is known to have no room."""
        self.unsettled = 0
        """Units admitted that the ledger does not know of."""
        self.max_unsettled = rate.units // SHARE
        """With more unsettled units than these nothing is admitted before a settlement."""
        self.settle_above = self.max_unsettled * 3 // 4
        """With more unsettled units than these a settlement is asked for."""
        self.unsettled_since_ms = 0.0
        """When the first of them was admitted."""
        self.wanted = 0
        """Units that requests wait for."""
        self.smallest_wanted = 0
        """The smallest weight among those requests."""
        self.granted = 0
        """Units that the ledger has granted and nobody has used; void after :attr:`granted_until_ms`."""
        self.granted_until_ms = 0.0

    def take_granted(self, weight: int, now_ms: float) -> bool:
        """Use so many of the granted units, of which there are enough, unless they are void."""
        if now_ms > self.granted_until_ms:
            self.granted = 0
            return False
        self.granted -= weight
        return True

    def over_window(self, now_ms: float) -> Charge:
        """The refusal of what GCRA allows, when the window has no room for it.

        :raises ShareNeeded: it is not known whether the window has room
        """
        if now_ms >= self.window_full_until_ms:
            raise ShareNeeded(self.key_id)
        wait_ms = self.window_full_until_ms - now_ms
        return Charge(allowed=False, tat_ms=self.tat_ms, remaining=max(0, self.room), reset_ms=wait_ms, retry_after_ms=wait_ms)

    def give_back(self, weight: int) -> None:
        """Undo a charge that was allowed."""
        self.tat_ms -= weight * self.rate.period_ms / self.rate.units
        self.unsettled -= weight
        self.room += weight

    def used(self, now_ms: float) -> int:
        """Units used in the last period: as the ledger had it, and what was admitted here since."""
        if now_ms - self.learned_ms >= self.rate.period_ms:  # or never: everything that the ledger knew of is a period old by now
            return max(0, self.unsettled)
        return max(0, int(self.rate.units * CAP) - self.room)

    def learn(self, answer: Sequence[Any], sent_ms: int) -> None:
        """Take over what the ledger says, and add what was admitted while it was being asked.

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
