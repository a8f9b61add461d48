"""Rate limits per caller in process memory: bounded, and independent of Redis. Pure.

Guesses of codes are limited by the lock-out in the database; this limiter keeps one caller from overloading the service.
"""

import math
from collections import OrderedDict

from gateway.config.values import Rate
from gateway.runtime import gcra

_ENTRIES = 50_000


class Limiter:
    """A GCRA limiter: ``rate.units`` at once, then evenly over the period.

    :param entries: maximum number of callers; beyond it the least recently seen is evicted
    """

    def __init__(self, rate: Rate, *, entries: int = _ENTRIES) -> None:
        self._rate = rate
        self._entries = entries
        self._tats: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str, now_ms: int) -> int:
        """Take one unit and return 0, or return how long to wait and take nothing.

        :param now_ms: monotonic milliseconds
        """
        charge = gcra.charge(self._tats.get(caller, 0.0), 1, now_ms, self._rate)
        if charge.allowed:
            self._tats[caller] = charge.tat_ms
            self._tats.move_to_end(caller)
            if len(self._tats) > self._entries:
                self._tats.popitem(last=False)
        return math.ceil(charge.retry_after_ms)
