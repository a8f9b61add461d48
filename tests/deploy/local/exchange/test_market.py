"""deploy.local.exchange.market: a price that moves, that everybody sees alike, and that fits the market's own ticks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.local.exchange.market import MARKETS, STEP_MS, candle, quote, summary, traded

times = st.integers(1_700_000_000_000, 2_000_000_000_000)


@settings(max_examples=100)
@given(st.sampled_from(sorted(MARKETS)), times)
def test_bid_last_and_ask_are_ordered_ticks_near_the_base_price(symbol, now_ms):
    market = MARKETS[symbol]
    now = quote(market, now_ms)
    assert now.bid < now.last < now.ask
    assert all(value % market.tick == 0 for value in (now.bid, now.last, now.ask))
    assert abs(now.last / market.price - 1) < 0.03


@settings(max_examples=20)
@given(times)
def test_the_price_moves_between_steps_and_holds_within_one(now_ms):
    market = MARKETS["BTC-IDR"]
    start = now_ms - now_ms % STEP_MS
    assert quote(market, start) == quote(market, start + STEP_MS - 1)
    assert len({quote(market, start + step * STEP_MS).last for step in range(20)}) > 10


@settings(max_examples=20)
@given(st.sampled_from(sorted(MARKETS)), times)
def test_the_days_summary_holds_the_present_price(symbol, now_ms):
    market = MARKETS[symbol]
    day = summary(market, now_ms)
    assert day.low <= quote(market, now_ms).last <= day.high
    assert day.low <= day.opened <= day.high
    assert day.volume > 0


@settings(max_examples=20)
@given(st.sampled_from(sorted(MARKETS)), times)
def test_a_minutes_candle_holds_every_price_of_that_minute(symbol, now_ms):
    market, opened = MARKETS[symbol], now_ms - now_ms % 60_000
    found = candle(market, opened, 60_000, opened + 60_000)
    prices = [quote(market, moment).last for moment in range(opened, opened + 60_000, STEP_MS)]
    assert (found.opened, found.closed, found.high, found.low) == (prices[0], prices[-1], max(prices), min(prices))
    assert found.volume == sum(traded(market, moment) for moment in range(opened, opened + 60_000, STEP_MS))
    going_on = candle(market, opened, 60_000, opened + 30_000)
    assert going_on.closed == quote(market, opened + 30_000).last
    assert going_on.volume < found.volume
