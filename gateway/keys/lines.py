"""Batches lookups: key ids waiting in order for a bounded number of concurrent queries, and of ids a second."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any

from gateway.runtime.tasks import cancel, spawn


class Line:
    """Whatever comes while all hands are busy goes together with the next free one: one alone does not wait, many do not come one by one.

    :param work: asks for some of the ids; must not raise
    :param batch: most ids at once
    :param hands: most batches at once
    :param places: most ids that may wait
    :param per_second: most ids in a second, a batch more after a quiet time
    """

    def __init__(
        self, work: Callable[[list[str]], Awaitable[None]], *, batch: int, hands: int, places: int = 1 << 30, per_second: float = inf
    ) -> None:
        self._work = work
        self._batch = batch
        self._hands = hands
        self._places = places
        self._seconds_each = 1 / per_second
        self._free = 0.0
        """When all that were taken so far may have been asked for."""
        self._waiting: dict[str, None] = {}
        self._taking = 0
        """Hands that are busy."""
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key_id: str) -> bool:
        """Stand in line; False when it is full."""
        if len(self._waiting) >= self._places:
            return False
        self._waiting[key_id] = None
        if self._taking < self._hands:
            self._taking += 1
            self.spawn(self._take())
        return True

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something that ends with the line, and takes no hand of it."""
        task = spawn(work, name="key-lookup")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Nobody is served any more."""
        self._waiting.clear()
        await cancel(*self._tasks)

    async def _take(self) -> None:
        try:
            while self._waiting:
                some = list(self._waiting) if len(self._waiting) <= self._batch else _first(self._waiting, self._batch)
                for key_id in some:
                    del self._waiting[key_id]
                await self._turn_of(len(some))
                await self._work(some)
        finally:
            self._taking -= 1  # at once: who comes before the loop has noticed that this task is done finds nobody else

    async def _turn_of(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now - self._batch * self._seconds_each) + count * self._seconds_each
        if self._free > now:
            await asyncio.sleep(self._free - now)


def _first(waiting: dict[str, None], count: int) -> list[str]:
    ids = iter(waiting)
    return [next(ids) for _ in range(count)]
