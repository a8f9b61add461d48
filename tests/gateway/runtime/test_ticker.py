"""The coarse clock."""

import asyncio

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
