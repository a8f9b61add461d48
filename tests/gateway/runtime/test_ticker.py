"""The coarse clock."""

import asyncio
import socket
import time

import pytest
import uvloop

from gateway.runtime.ticker import Ticker


async def test_subscribers_are_told_the_time_that_the_ticker_shows() -> None:
    ticker = Ticker()
    ticker.fit([80])
    told: list[int] = []
    done = asyncio.Event()

    def subscriber(now_ms: int) -> None:
        assert now_ms == ticker.now_ms
        told.append(now_ms)
        if len(told) == 3:
            done.set()

    ticker.subscribe(subscriber)
    ticker.start()
    await asyncio.wait_for(done.wait(), 30)
    ticker.stop()
    assert told == sorted(told)
    count = len(told)
    await asyncio.sleep(0.05)
    assert len(told) == count


def test_the_period_is_a_share_of_the_smallest_limit() -> None:
    ticker = Ticker()
    periods = []
    for limits in ([80, 5_000], [10], [75_000], []):
        ticker.fit(limits)
        periods.append(ticker.period_ms)
    assert periods == [10, 10, 250, 250]


async def seen_after_a_stall() -> list[str]:
    """What a loop does first that was busy while somebody said something and a tick came due."""
    (ours, theirs), (woken, waking) = socket.socketpair(), socket.socketpair()
    with ours, theirs, woken, waking:
        loop, seen, done = asyncio.get_running_loop(), list[str](), asyncio.Event()
        ticker = Ticker()
        ticker.fit([80])

        def stall() -> None:
            loop.remove_reader(woken)
            theirs.send(b"x")
            time.sleep(0.1)
            seen.clear()

        def tick(_now_ms: int) -> None:
            seen.append("tick")
            if "read" in seen:
                done.set()

        def read() -> None:
            ours.recv(1)
            seen.append("read")

        ticker.subscribe(tick)
        ticker.start()
        await asyncio.sleep(0)
        loop.add_reader(ours, read)
        loop.add_reader(woken, stall)  # while it reads: what comes then is not read in the same turn
        waking.send(b"x")
        await asyncio.wait_for(done.wait(), 30)
        ticker.stop()
        return seen


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_came_during_a_stall_is_read_before_time_limits_are_looked_at(make_loop) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(seen_after_a_stall())[:2] == ["read", "tick"]


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_that_is_always_late_looks_at_time_limits_all_the_same(make_loop) -> None:
    async def ticks() -> None:
        loop, ticked = asyncio.get_running_loop(), asyncio.Event()
        ticker = Ticker()
        ticker.fit([80])
        ticker.start()
        await asyncio.sleep(0)
        ticker.subscribe(lambda _now_ms: ticked.set())
        while not ticked.is_set():
            loop.call_soon(time.sleep, 0.05)
            await asyncio.sleep(0)
        ticker.stop()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(asyncio.wait_for(ticks(), 30))
