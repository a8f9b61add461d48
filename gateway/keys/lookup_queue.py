"""A queue that batches key look-ups, with bounds on concurrent batches and on ids per second."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from math import inf

from gateway.runtime.tasks import cancel, spawn


class LookupQueue:
    """A queue of key ids: a single id is processed at once; ids that arrive while all workers are busy form the next batch.

    :param work: looks up some of the ids; must not raise
    :param batch: maximum number of ids per batch
    :param workers: maximum number of concurrent batches
    :param max_queued: maximum number of queued ids
    :param per_second: maximum number of ids per second, with a burst of one batch after an idle period
    """

    def __init__(
        self, work: Callable[[list[str]], Awaitable[None]], *, batch: int, workers: int, max_queued: int = 1 << 30, per_second: float = inf
    ) -> None:
        self._work = work
        self._batch = batch
        self._workers = workers
        self._max_queued = max_queued
        self._seconds_each = 1 / per_second
        self._free = 0.0
        """Time from which the next batch may be looked up."""
        self._waiting: dict[str, None] = {}
        self._running = 0
        """Number of batches in progress."""
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key_ids: Iterable[str]) -> bool:
        """Queue ids. ``False``: the queue is full, and further ones are dropped."""
        ids = iter(key_ids)
        self._waiting |= dict.fromkeys(islice(ids, self._max_queued - len(self._waiting)))
        if self._waiting and self._running < self._workers:
            self._running += 1
            task = spawn(self._work_off(), name="key-lookup")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return next(ids, None) is None

    async def aclose(self) -> None:
        """Drop the queue and cancel the batches in progress."""
        self._waiting.clear()
        await cancel(*self._tasks)

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while some := list(islice(self._waiting, self._batch)):
                for key_id in some:
                    del self._waiting[key_id]
                self._free = max(self._free, loop.time() - self._batch * self._seconds_each) + len(some) * self._seconds_each
                if self._free > loop.time():
                    await asyncio.sleep(self._free - loop.time())
                await self._work(some)
        finally:
            self._running -= 1  # not in a callback: an id may be queued before the loop runs it
