"""Schedules the processing of unauthenticated input: a small time budget per turn of the event loop, shared fairly by client address.

A connection whose last request was admitted for a key is read at once. What comes on any other is read at once too, while this turn has
time left for it (:data:`SHARE_US`); then it waits, and its connection is not read on. In the turns of the loop that follow, addresses that
wait have one item done each, one after the other. A turn that took longer than :data:`TURN_US`, by whatever those items led to, is made up
for by turns without any (at most :data:`PATIENCE` in a row).

So what strangers send at once, however much it is, delays a customer by about one such turn for each that their request needs; a stranger
waits for one item of each other address, not for all items of one. As many items wait as there are connections, at the most.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.runtime import clock

SHARE_US: Final = 500
"""Microseconds of a turn in which items of strangers are begun. One is done in any case, so that they get on on any machine."""
TURN_US: Final = 1_000
"""Microseconds of the processor that a turn may take in all before strangers pause."""
LONG_US: Final = 5_000
"""Microseconds of the processor from which a turn is called long."""
PATIENCE: Final = 16
"""Turns in a row without an item of strangers."""
FOLLOWED: Final = 4
"""Turns that are watched after one that an item has filled."""


class Rounds:
    """See the module. One for each event loop."""

    __slots__ = ("_begun_us", "_debt_us", "_followed", "_open", "_passed", "_until_us", "_waiting", "deferred", "long_us")

    def __init__(self) -> None:
        self._open = False
        """Whether :meth:`_next` is going to be called."""
        self._begun_us = 0
        """When this turn began, by the processor's time."""
        self._until_us = 0
        """When the strangers' share of it ends, by the clock's."""
        self._debt_us = 0
        """By how much turns have been too long."""
        self._passed = 0
        """Turns in a row without an item."""
        self._followed = 0
        """Turns to be watched whatever they are of."""
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        """By owner, in the order of their turns."""
        self.deferred = 0
        """Items that had to wait, ever."""
        self.long_us = 0
        """What long turns have taken, ever."""

    def take(self, size: int = 0) -> bool:
        """Whether an item may be done now. If not: :meth:`wait`.

        :param size: bytes that have been read for it; each counts for half a nanosecond, which is about what it took to read it
        """
        if self._waiting or self._debt_us:
            return False
        now_us = clock.monotonic_us()
        if not self._open:
            self._open_at(now_us)
        self._until_us -= size >> 11
        return now_us < self._until_us

    def wait(self, owner: str, item: Callable[[], None]) -> None:
        """Do this in a turn to come.

        :param owner: with whom it shares turns: an address
        """
        self.deferred += 1
        items = self._waiting.get(owner)
        if items is None:
            items = self._waiting[owner] = deque()
        items.append(item)
        if not self._open:
            self._open_at(clock.monotonic_us())

    def turn(self, owner: str, takes_us: int) -> "asyncio.Future[None]":
        """The same for who awaits it.

        :param takes_us: what is done then, in microseconds, about: it comes when the turn has passed that woke it
        """
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            self._until_us -= takes_us
            if not begun.done():
                begun.set_result(None)

        self.wait(owner, begin)
        return begun

    def watch(self) -> None:
        """Something has come that cannot wait, and costs: a connection that is opened or closed."""
        if not self._open:
            self._open_at(clock.monotonic_us())

    def fill(self) -> None:
        """What is done now costs most in one of the next turns, as the start of TLS does: nothing else begins in this one."""
        self._until_us = 0
        self._followed = FOLLOWED

    def _open_at(self, now_us: int) -> None:
        self._open = True
        self._begun_us = clock.processor_us()
        self._until_us = now_us + SHARE_US
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Another turn of the loop begins."""
        now_us, used_us = clock.monotonic_us(), clock.processor_us()
        took_us, self._begun_us = used_us - self._begun_us, used_us
        if took_us > LONG_US:
            self.long_us += took_us
        self._debt_us = max(0, self._debt_us + took_us - TURN_US)
        self._until_us = now_us + SHARE_US
        if self._debt_us and self._passed < PATIENCE:
            self._passed += 1
        else:
            self._passed = self._debt_us = 0
        try:
            if not self._debt_us:
                self._go_round()
        finally:
            followed, self._followed = self._followed, max(0, self._followed - 1)
            if self._waiting or self._debt_us or followed:
                asyncio.get_running_loop().call_soon(self._next)
            else:
                self._open = False

    def _go_round(self) -> None:
        waiting = self._waiting
        while waiting:
            owner = next(iter(waiting))
            items = waiting.pop(owner)
            item = items.popleft()
            if items:
                waiting[owner] = items  # behind all others
            item()
            if clock.monotonic_us() >= self._until_us:
                break
