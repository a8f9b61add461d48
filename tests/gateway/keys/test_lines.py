"""Batches of look-ups: whoever stands in line is served, whatever else is under way."""

import asyncio
from typing import Any

import pytest

from gateway.keys.lines import Line


@pytest.fixture
async def line():
    """With one hand, that is done with a batch at once."""
    served: list[str] = []

    async def work(key_ids):
        served.extend(key_ids)

    line: Any = Line(work, batch=10, hands=1)
    line.served = served
    yield line
    await line.aclose()


async def test_what_runs_beside_the_line_takes_no_hand_from_it(line):
    """Records on their way to a slow Redis took all hands; a key that came then was looked up when the next one came, or never."""
    line.spawn(asyncio.sleep(60))
    line.add("a")
    await asyncio.sleep(0)
    assert line.served == ["a"]


async def test_who_comes_in_the_turn_in_which_the_last_hand_ends_is_served(line):
    line.add("a")
    asyncio.get_running_loop().call_soon(line.add, "b")
    for _ in range(5):
        await asyncio.sleep(0)
    assert line.served == ["a", "b"]


async def test_no_more_are_asked_for_in_a_second_than_may_be():
    served: list[int] = []

    async def work(key_ids):
        served.append(len(key_ids))
        if sum(served) == 25:
            done.set()

    done, loop = asyncio.Event(), asyncio.get_running_loop()
    began, line = loop.time(), Line(work, batch=10, hands=2, per_second=1_000)
    for number in range(25):
        line.add(str(number))
    await done.wait()
    assert loop.time() - began >= 0.014  # a batch may be asked for at once
    assert max(served) == 10
    await line.aclose()
