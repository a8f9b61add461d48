"""Batches of look-ups: whoever stands in line is served, whatever else is under way."""

import asyncio

import pytest

from gateway.keys.lines import Line


@pytest.fixture
async def line():
    """With one hand, that is done with a batch at once."""
    served: list[str] = []

    async def work(key_ids):
        served.extend(key_ids)

    line = Line(work, batch=10, hands=1)
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
