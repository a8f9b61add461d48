"""Background tasks."""

import asyncio

import structlog
from structlog.testing import capture_logs

from gateway.runtime.tasks import cancel, spawn


async def test_a_failure_is_logged_with_the_tasks_name_and_a_cancellation_is_not():
    async def fail():
        raise ZeroDivisionError

    structlog.reset_defaults()
    with capture_logs() as logs:
        failing, waiting = spawn(fail(), name="failing"), spawn(asyncio.sleep(3600), name="waiting")
        await asyncio.wait([failing])
        await cancel(waiting)
    assert [(entry["event"], entry["task"]) for entry in logs] == [("task_failed", "failing")]


async def test_a_task_that_loses_a_cancellation_is_asked_again():
    lost = 0

    async def loses_two():
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = spawn(loses_two(), name="loses two")
    await asyncio.sleep(0)
    await cancel(task)
    assert task.cancelled()
    assert lost == 3


async def test_nothing_to_cancel_is_no_wait():
    await cancel()
