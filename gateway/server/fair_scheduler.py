"""Schedules the processing of unauthenticated input: a small time budget per turn of the event loop, shared fairly by client.

A connection whose last request was authenticated is processed at once. Input on any other connection is processed at once too, while the
current turn of the loop has budget left (:data:`BUDGET_NS`); then it is queued, and its connection is not read meanwhile. In the turns that
follow, queued owners are served round-robin, one item each: IPv4 addresses and IPv6 /48s, whose /64s are served round-robin in their turns.
When a turn takes longer than :data:`TURN_NS`, everything that those items caused included, the excess is repaid by turns without items (at
most :data:`MAX_SKIPPED_TURNS` in a row).

However much unauthenticated input arrives at once, an authenticated request is delayed by about one such turn for each that it needs; an
unauthenticated client waits for one item of each other owner, not for all items of one. At most one item is queued for each connection.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from gateway.net.tally import Owners
from gateway.runtime import clock

BUDGET_NS: Final = 500_000
"""Nanoseconds of a turn in which unauthenticated items are begun. At least one always runs, so that even a slow machine makes progress."""
TURN_NS: Final = 1_000_000
"""Nanoseconds of processor time that a turn may take before such items pause."""
LONG_NS: Final = 5_000_000
"""Nanoseconds of processor time from which a turn counts as long."""
MAX_SKIPPED_TURNS: Final = 16
"""Consecutive turns that run no unauthenticated item."""
MEASURED_TURNS: Final = 4
"""Turns that are measured after a closed one."""


class FairScheduler:
    """See the module. One for each event loop."""

    __slots__ = (
        "_begun_ns", "_debt_ns", "_loop", "_measure_next", "_measuring", "_of_sites", "_skipped", "_until_ns", "_waiting", "deferred",
        "long_ns",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._measuring = False
        """Whether :meth:`_next` is scheduled."""
        self._begun_ns = 0
        """When this turn began, in processor time."""
        self._until_ns = 0
        """When this turn's budget is used up, in wall-clock time."""
        self._debt_ns = 0
        """Nanoseconds by which turns have been too long."""
        self._skipped = 0
        """Consecutive turns without an item."""
        self._measure_next = 0
        """Turns still to be measured even when nothing is queued."""
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        """By owner, in the order of their turns."""
        self._of_sites: dict[str, dict[str, deque[Callable[[], None]]]] = {}
        """The items of sites by network, in the order of their turns; whichever is next takes a turn of its site."""
        self.deferred = 0
        """Items queued, over all owners."""
        self.long_ns = 0
        """Total nanoseconds that long turns have taken."""

    def may_run(self, size: int = 0) -> bool:
        """Whether an item may run now. If not, call :meth:`schedule`.

        :param size: bytes that have been read for it; each counts for half a nanosecond, which is about what it took to read it
        """
        if self._waiting or self._debt_ns:
            return False
        now_ns = clock.monotonic_ns()
        if not self._measuring:
            self._begin_turns(now_ns)
        self._until_ns -= size >> 1
        return now_ns < self._until_ns

    def schedule(self, owners: Owners, item: Callable[[], None]) -> None:
        """Run this in a later turn of the loop.

        :param owners: those under which it shares turns
        """
        self.deferred += 1
        owner = owners[0]
        if len(owners) > 1:
            self._of_sites.setdefault(owner, {}).setdefault(owners[1], deque()).append(item)
            item = partial(self._run_next_of, owner)
        items = self._waiting.get(owner)
        if items is None:
            items = self._waiting[owner] = deque()
        items.append(item)
        if not self._measuring:
            self._begin_turns(clock.monotonic_ns())

    def wait_turn(self, owners: Owners, takes_ns: int) -> "asyncio.Future[None]":
        """Wait for a turn, in a coroutine.

        :param takes_ns: about how many nanoseconds the coroutine will take: they are spent after the turn that resumes it
        """
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            self._until_ns -= takes_ns
            if not begun.done():
                begun.set_result(None)

        self.schedule(owners, begin)
        return begun

    def measure(self) -> None:
        """Measure this turn, which does work that cannot be deferred, such as opening or closing a connection."""
        if not self._measuring:
            self._begin_turns(clock.monotonic_ns())

    def close_turn(self) -> None:
        """Begin nothing else in this turn: the item just begun has most of its cost in a later turn, as a TLS handshake does."""
        self._until_ns = 0
        self._measure_next = MEASURED_TURNS

    def _begin_turns(self, now_ns: int) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # makes a system call (getpid)
        self._measuring = True
        self._begun_ns = clock.processor_ns()
        self._until_ns = now_ns + BUDGET_NS
        self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Begin the next turn of the loop."""
        now_ns = clock.monotonic_ns()
        if now_ns - self._until_ns < TURN_NS - BUDGET_NS and not (self._waiting or self._debt_ns or self._measure_next):
            self._measuring = False  # the common case: short by the wall clock; the processor's costs a system call
            return
        used_ns = clock.processor_ns()
        took_ns, self._begun_ns = used_ns - self._begun_ns, used_ns
        if took_ns > LONG_NS:
            self.long_ns += took_ns
        self._debt_ns = max(0, self._debt_ns + took_ns - TURN_NS)
        self._until_ns = now_ns + BUDGET_NS
        if self._debt_ns and self._skipped < MAX_SKIPPED_TURNS:
            self._skipped += 1
        else:
            self._skipped = self._debt_ns = 0
        try:
            if not self._debt_ns:
                self._run_waiting()
        finally:
            measure_next, self._measure_next = self._measure_next, max(0, self._measure_next - 1)
            if self._waiting or self._debt_ns or measure_next:
                asyncio.get_running_loop().call_soon(self._next)
            else:
                self._measuring = False

    def _run_waiting(self) -> None:
        waiting = self._waiting
        while waiting:
            owner = next(iter(waiting))
            items = waiting.pop(owner)
            item = items.popleft()
            if items:
                waiting[owner] = items  # after all others
            item()
            if clock.monotonic_ns() >= self._until_ns:
                break

    def _run_next_of(self, site: str) -> None:
        """Run the next item of a site, which need not be the one whose scheduling gave it this turn."""
        networks = self._of_sites[site]
        network = next(iter(networks))
        items = networks.pop(network)
        item = items.popleft()
        if items:
            networks[network] = items  # after all others
        elif not networks:
            del self._of_sites[site]
        item()
