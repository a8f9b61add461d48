"""Background tasks."""

import ast
import asyncio
import socket
import time
from pathlib import Path

import pytest
import structlog
import uvloop
from structlog.testing import capture_logs

from gateway.runtime import tasks
from gateway.runtime.tasks import StallTolerantTimeout, cancel, spawn

ROOT = Path(__file__).parents[3]


async def test_a_failure_is_logged_with_the_tasks_name_and_a_cancellation_is_not():
    async def fail():
        raise ZeroDivisionError

    structlog.reset_defaults()
    with capture_logs() as logs:
        failing, waiting = spawn(fail(), name="failing"), spawn(asyncio.sleep(3600), name="waiting")
        await asyncio.wait([failing])
        await cancel(waiting)
    assert [(entry["event"], entry["task"]) for entry in logs] == [("task_failed", "failing")]


async def test_of_items_taken_in_steps_at_most_so_many_are_taken_in_one_turn_of_the_loop():
    turn, ended = 0, asyncio.Event()

    async def count_turns():
        nonlocal turn
        while not ended.is_set():
            turn += 1
            await asyncio.sleep(0)

    counting = spawn(count_turns(), name="count turns")
    await asyncio.sleep(0)
    taken = [(item, turn) async for item in tasks.in_steps(range(7), 3)]
    ended.set()
    await counting
    assert taken == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3)]


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


async def test_what_is_repeated_goes_on_after_a_defect_which_is_logged(monkeypatch):
    monkeypatch.setattr(tasks, "_AFTER_DEFECT_SECONDS", 0)
    steps, done = iter([ZeroDivisionError(), KeyError("a row that nobody thought of"), None]), asyncio.Event()

    async def step():
        failure = next(steps)
        if failure is not None:
            raise failure
        done.set()
        await asyncio.sleep(3600)

    structlog.reset_defaults()
    with capture_logs() as logs:
        repeating = tasks.repeat(step, name="chore")
        async with asyncio.timeout(10):
            await done.wait()
        await cancel(repeating)
    assert [(entry["event"], entry["task"]) for entry in logs] == [("background_task_defect", "chore")] * 2


async def test_steps_that_find_nothing_to_wait_for_leave_the_event_loop_to_others():
    taken = 0

    async def step():
        nonlocal taken
        taken += 1
        if taken == 1_000:
            await asyncio.sleep(3600)

    repeating = tasks.repeat(step, name="chore")
    await asyncio.sleep(0)
    assert taken == 1
    await cancel(repeating)


SUPERVISED = {("sender.py", "_drain"), ("sender.py", "_lead_if_free")}
"""Whoever leads notices when one of these ends, and begins anew."""


def test_no_loop_in_the_background_ends_with_a_defect():
    """A loop that nothing but an exception ends is a service's background work: it is :func:`repeated`, or has its own way to go on."""
    mortal = {
        (path.name, function.name)
        for room in ("gateway", "admin")
        for path in (ROOT / room).rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.AsyncFunctionDef)
        for loop in ast.walk(function)
        if isinstance(loop, ast.While) and isinstance(loop.test, ast.Constant)
        if not any(isinstance(part, ast.Return | ast.Break) for part in ast.walk(loop))
        and not any(isinstance(part, ast.ExceptHandler) and ast.unparse(part.type or loop) == "Exception" for part in ast.walk(loop))
    }
    assert mortal == SUPERVISED


async def test_nothing_to_cancel_is_no_wait():
    await cancel()


async def heard(seconds, busy_s, says):
    """What a peer says while this loop is busy, within so many seconds."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        async with StallTolerantTimeout(seconds):
            loop = asyncio.get_running_loop()
            loop.call_soon(time.sleep, busy_s)
            loop.call_soon(theirs.send, says)
            return b"".join([await loop.sock_recv(ours, 1) for _ in range(3)])


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_patience_ends_for_who_is_silent_and_not_because_this_loop_was_busy(make_loop):
    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(heard(0.05, 0.2, b"yes")) == b"yes"
        for busy_s in (0, 0.1):
            with pytest.raises(TimeoutError):
                runner.run(heard(0.01, busy_s, b""))


async def answered_after(stall_s, answer_s):
    """What a peer says some time after a stall of this loop, within a tenth of a second."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        async with StallTolerantTimeout(0.1):
            loop.call_soon(time.sleep, stall_s)
            loop.call_later(0.001, loop.call_later, answer_s, theirs.send, b"yes")  # when the stall is over
            return await loop.sock_recv(ours, 3)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("stall_s", [0.05, 0.09, 0.3])
def test_patience_has_as_much_time_left_after_a_stall_as_before(make_loop, stall_s):
    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(answered_after(stall_s, 0.05)) == b"yes"


async def test_patience_lets_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        async with StallTolerantTimeout(0.01):
            raise ZeroDivisionError
