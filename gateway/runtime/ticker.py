"""A coarse timer that drives every timeout: one per process instead of one per request.

Who has a time limit writes down a deadline (``ticker.now_ms + limit``) and is asked at each tick whether it has passed.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from gateway.runtime import clock

NEVER: Final = 4_611_686_018_427_387_904
"""A deadline that does not pass."""


class Ticker:
    """Calls its subscribers with the present time, and knows that time between two ticks without asking the system.

    A limit is noticed between one period early and one period late, so the period is a small share of the smallest limit.
    """

    __slots__ = ("_handle", "_loop", "_subscribers", "now_ms", "period_ms")

    def __init__(self) -> None:
        self.now_ms = clock.monotonic_ms()
        self.period_ms = 250
        self._subscribers: list[Callable[[int], None]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def fit(self, limits_ms: Iterable[int]) -> None:
        """Choose the period for these limits: an eighth of the smallest, between 10 and 250 ms."""
        self.period_ms = max(10, min(250, min(limits_ms, default=2_000) // 8))

    def subscribe(self, subscriber: Callable[[int], None]) -> None:
        self._subscribers.append(subscriber)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
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
        self._handle = self._loop.call_later(self.period_ms / 1000, self._tick)
        for subscriber in self._subscribers:
            subscriber(self.now_ms)
