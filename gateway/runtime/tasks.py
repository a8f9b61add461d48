"""Background tasks that keep a reference and log their failures."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import structlog

LATE_SECONDS = 0.02
"""A timer that fires later than this indicates a stalled event loop."""
_PARTS = 5
"""Parts of a timeout: one stall of the loop uses up at most one."""
_AFTER_DEFECT_SECONDS = 1.0
_T = TypeVar("_T")
_running: set[asyncio.Task[Any]] = set()
_log = structlog.get_logger(__name__)


def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Start ``work`` as a task that is kept alive until it ends and whose failure is logged.

    The event loop itself holds tasks only weakly (see ``asyncio.create_task``).
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def repeat(step: Callable[[], Awaitable[object]], *, name: str) -> asyncio.Task[None]:
    """Start :func:`repeated` as a task."""
    return spawn(repeated(step, name=name), name=name)


async def repeated(step: Callable[[], Awaitable[object]], *, name: str) -> None:
    """Run ``step`` repeatedly until cancelled. The step itself waits until there is something to do.

    An exception is a defect: it is logged, and the next step follows after a short delay, so that one unexpected row or answer does not
    end a background job.
    """
    while True:
        try:
            await step()
            await asyncio.sleep(0)  # a step that did not wait would leave no turn of the loop to others
        except Exception:  # noqa: BLE001  # see above
            _log.exception("background_task_defect", task=name)
            await asyncio.sleep(_AFTER_DEFECT_SECONDS)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended.

    Cancels repeatedly: ``asyncio.wait_for`` before Python 3.12, which redis-py uses, loses a cancellation that comes just when
    what it waits for is done (python/cpython#86296).
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


async def in_steps(items: Iterable[_T], at_once: int) -> AsyncIterator[_T]:
    """The items, at most ``at_once`` of them in one turn of the event loop, so that requests are served between them."""
    for number, item in enumerate(items):
        if number and number % at_once == 0:
            await asyncio.sleep(0)
        yield item


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """Return the result of ``work``, or ``None`` when the event is set first; the work is then cancelled and has ended.

    :raises Exception: what the work raises
    """
    loop = asyncio.get_running_loop()
    working, stopping = loop.create_task(work), loop.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        await cancel(working, stopping)


async def wait_at_most(event: asyncio.Event, limit_ms: int) -> None:
    """Wait until the event is set, at most ``limit_ms``."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_ms / 1000):
            await event.wait()


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task_failed", task=task.get_name(), exc_info=error)


class StallTolerantTimeout:
    """A timeout for another party's answer, as ``asyncio.timeout``, that excludes stalls of this process's own event loop.

    The limit is spent in :data:`_PARTS` parts. The delay with which a part ends is not counted, and data that arrived during a stall is
    read before the timeout expires.
    """

    __slots__ = ("_handle", "_left", "_limit", "_part")

    def __init__(self, seconds: float) -> None:
        self._part = seconds / _PARTS
        self._left = _PARTS

    async def __aenter__(self) -> None:
        self._limit = asyncio.timeout(None)  # one timer alone: of two that are late, uvloop may run either first
        self._next_part()
        await self._limit.__aenter__()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handle.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _next_part(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._part
        self._handle = loop.call_at(due, self._part_ended, due)

    def _part_ended(self, due: float) -> None:
        now = asyncio.get_running_loop().time()
        self._left -= 1
        if self._left > 0 or (self._left == 0 and now - due > LATE_SECONDS):
            self._next_part()
        else:
            self._limit.reschedule(now)
