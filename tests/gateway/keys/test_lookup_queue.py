"""The queue that batches key look-ups."""

import asyncio
from typing import Any

import pytest

from gateway.keys.lookup_queue import LookupQueue


@pytest.fixture
async def line():
    """A queue with one worker, whose batches end at once."""
    served: list[str] = []

    async def work(key_ids):
        served.extend(key_ids)

    line: Any = LookupQueue(work, batch=10, workers=1)
    line.served = served
    yield line
    await line.aclose()


async def test_an_id_that_is_queued_while_the_last_worker_ends_is_looked_up(line):
    line.add(["a"])
    asyncio.get_running_loop().call_soon(line.add, ["b"])
    for _ in range(5):
        await asyncio.sleep(0)
    assert line.served == ["a", "b"]


async def test_of_many_ids_at_once_those_beyond_the_maximum_are_dropped():
    """Keys that changed while Redis was down were queued without a bound, and 100,000 of them held up the event loop for 50 ms."""
    served: list[list[str]] = []

    async def work(key_ids):
        served.append(key_ids)

    line = LookupQueue(work, batch=2, workers=1, max_queued=4)
    line.add(map(str, range(3)))
    line.add(map(str, range(3, 9)))
    assert not line.add(["9"])
    line.add(["10"])
    await asyncio.sleep(0.01)
    assert served == [["0", "1"], ["2", "3"]]
    line.add([])
    line.add(["11"])
    await asyncio.sleep(0.01)
    assert served[2:] == [["11"]]
    await line.aclose()


async def test_the_number_of_ids_per_second_is_bounded():
    served: list[int] = []

    async def work(key_ids):
        served.append(len(key_ids))
        if sum(served) == 25:
            done.set()

    done, loop = asyncio.Event(), asyncio.get_running_loop()
    began, line = loop.time(), LookupQueue(work, batch=10, workers=2, per_second=1_000)
    for number in range(25):
        line.add([str(number)])
    await done.wait()
    assert loop.time() - began >= 0.014  # the first batch is not delayed
    assert max(served) == 10
    await line.aclose()
