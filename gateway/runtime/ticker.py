"""A coarse timer that drives all timeouts: one per process instead of one per request.

An object with a time limit stores a deadline (``ticker.now_ms + limit``), which is checked at each tick.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from gateway.runtime import clock
from gateway.runtime.tasks import LATE_SECONDS

NEVER: Final = 4_611_686_018_427_387_904
"""A deadline that never passes."""
READING_SECONDS: Final = 0.01
"""Delay of a late tick, so that the loop polls its sockets first."""


class Ticker:
    """Calls its subscribers with the current time, and provides that time between ticks without a system call.

    A deadline is detected up to one period early or late, so the period is a small fraction of the smallest limit. A tick that is late
    because the loop was busy is postponed until pending data has been read, so that an answer already received does not time out.
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
        self._put_off = late and not self._put_off  # only once: deadlines must also pass in a loop that is always late
        self._due = self._loop.time() + (READING_SECONDS if self._put_off else self.period_ms / 1000)
        self._handle = self._loop.call_at(self._due, self._tick)
        if not self._put_off:
            for subscriber in self._subscribers:
                subscriber(self.now_ms)
