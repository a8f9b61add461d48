"""A rate limit in this process's memory (GCRA): bounded, and never open because a server is down. Pure.

Guesses at codes are bounded by the database's own lock-out; this keeps one caller from using the service up.
"""

from collections import OrderedDict

from gateway.config.settings import Rate

_ENTRIES = 50_000


class Limiter:
    """``rate.units`` at once, then one more for each share of the period that passes.

    :param entries: callers remembered; beyond that the one longest unseen is forgotten
    """

    def __init__(self, rate: Rate, *, entries: int = _ENTRIES) -> None:
        self._interval_ms = rate.period_ms / rate.units
        self._tolerance_ms = rate.period_ms - self._interval_ms
        self._entries = entries
        self._due_ms: OrderedDict[str, float] = OrderedDict()

    def wait_ms(self, caller: str, now_ms: int) -> int:
        """How long until the caller's next unit; 0 when there is one. Takes nothing."""
        return max(0, int(self._due_ms.get(caller, 0.0) - self._tolerance_ms - now_ms + 0.999))

    def take(self, caller: str, now_ms: int) -> int:
        """Take one unit and answer 0, or answer how long to wait and take nothing.

        :param now_ms: of the monotonic clock
        """
        wait_ms = self.wait_ms(caller, now_ms)
        if wait_ms == 0:
            self._due_ms[caller] = max(self._due_ms.get(caller, 0.0), now_ms) + self._interval_ms
            self._due_ms.move_to_end(caller)
            if len(self._due_ms) > self._entries:
                self._due_ms.popitem(last=False)
        return wait_ms
