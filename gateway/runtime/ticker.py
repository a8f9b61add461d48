"""A coarse timer that drives every timeout: one per process instead of one per request.

Who has a time limit writes down a deadline (``ticker.now_ms + limit``) and is asked at each tick whether it has passed.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from gateway.runtime import clock
from gateway.runtime.tasks import LATE_SECONDS

NEVER: Final = 4_611_686_018_427_387_904
"""A deadline that does not pass."""
READING_SECONDS: Final = 0.01
"""By how much a late tick is put off: the loop polls its sockets before that."""


class Ticker:
    """Calls its subscribers with the present time, and knows that time between two ticks without asking the system.

    A limit is noticed between one period early and one period late, so the period is a small share of the smallest limit. A tick that the
    loop was too busy for is put off until what has come meanwhile is read: an answer that is there is not too late.
    """

    __slots__ = ("_due", "_handle", "_loop", "_put_off", "_subscribers", "now_ms", "period_ms")

    def __init__(self) -> None:
        self.now_ms = clock.monotonic_ms()
        self.period_ms = 250
        self._subscribers: list[Callable[[int], None]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = 0.0
        self._put_off = False

    def fit(self, limits_ms: Iterable[int]) -> None:
        """Choose the period for these limits: an eighth of the smallest, between 10 and 250 ms."""
        self.period_ms = max(10, min(250, min(limits_ms, default=2_000) // 8))

    def subscribe(self, subscriber: Callable[[int], None]) -> None:
        self._subscribers.append(subscriber)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._tick()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._loop = None

    def _tick(self) -> None:
        if self._loop is None:
            return
        self.now_ms = clock.monotonic_ms()
        late = self._loop.time() - self._due > LATE_SECONDS
        self._put_off = late and not self._put_off  # once: a loop that is always late has time limits, too
        self._due = self._loop.time() + (READING_SECONDS if self._put_off else self.period_ms / 1000)
        self._handle = self._loop.call_at(self._due, self._tick)
        if not self._put_off:
            for subscriber in self._subscribers:
                subscriber(self.now_ms)
