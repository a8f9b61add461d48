"""Markets and their simulated price, a function of symbol and time. Pure."""

import hashlib
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import NamedTuple

STEP_MS = 500
"""A price holds for this long."""
DAY_MS = 86_400_000
_WAVES = ((6_000_000, 150), (911_000, 60), (127_000, 25))  # period in ms, amplitude in 1/10000 of the base price
_UNIT = 1_000_000  # waves are whole numbers of one in a million: a thousand candles are many prices
_LEAST_UNITS, _MORE_UNITS = 10, 490  # simulated volume of a step, in units of the smallest order
_NOISE = 8  # 1/10000 of the base price, either way
_SAMPLES = 96  # a day's summary looks every 15 minutes
_SAMPLES_OF_LONG_CANDLES = 24  # a minute's candle samples every step; a thousand long ones must not block the event loop
_MINUTE_MS = 60_000
INTERVALS = {
    f"{count}{unit}": count * length
    for unit, length, counts in (
        ("s", 1_000, (1,)),
        ("m", _MINUTE_MS, (1, 3, 5, 15, 30)),
        ("h", 60 * _MINUTE_MS, (1, 2, 4, 6, 8, 12)),
        ("d", DAY_MS, (1, 3)),
        ("w", 7 * DAY_MS, (1,)),
    )
    for count in counts
}
"""Lengths of candles in milliseconds, by Binance's names for them."""


class Market(NamedTuple):
    """One pair: amounts of ``base`` are bought and sold for ``quote``."""

    base: str
    quote: str
    price: Decimal
    """The price around which the simulation moves."""
    tick: Decimal
    """Price increment."""
    lot: Decimal
    """Quantity increment."""
    least: Decimal
    """The minimum value of an order, in ``quote``."""

    @property
    def symbol(self) -> str:
        return f"{self.base}-{self.quote}"


class Quote(NamedTuple):
    """A market's prices at one moment."""

    last: Decimal
    bid: Decimal
    ask: Decimal
    time_ms: int


class Summary(NamedTuple):
    """The last 24 hours."""

    opened: Decimal
    high: Decimal
    low: Decimal
    volume: Decimal
    """In base."""
    trades: int


class Candle(NamedTuple):
    """Prices and volume of one interval; the latest one is not complete."""

    opened_ms: int
    length_ms: int
    opened: Decimal
    high: Decimal
    low: Decimal
    closed: Decimal
    volume: Decimal
    """In base."""
    turnover: Decimal
    """In quote."""
    trades: int


MARKETS = {
    market.symbol: market
    for market in (
        Market("BTC", "IDR", Decimal(1_050_000_000), Decimal(1000), Decimal("0.00000001"), Decimal(10_000)),
        Market("ETH", "IDR", Decimal(38_000_000), Decimal(1000), Decimal("0.0000001"), Decimal(10_000)),
        Market("USDT", "IDR", Decimal(16_200), Decimal(1), Decimal("0.01"), Decimal(10_000)),
        Market("BTC", "USDT", Decimal(65_000), Decimal("0.01"), Decimal("0.00001"), Decimal(5)),
    )
}
CURRENCIES = sorted({currency for market in MARKETS.values() for currency in (market.base, market.quote)})


def quote(market: Market, now_ms: int) -> Quote:
    """Last price with the best bid and ask around it."""
    moment = now_ms - now_ms % STEP_MS
    last = last_price(market, moment)
    half = max(market.tick, (last / 5000 / market.tick).quantize(Decimal(1), ROUND_HALF_EVEN) * market.tick)
    return Quote(last, last - half, last + half, moment)


def last_price(market: Market, moment: int) -> Decimal:
    """The price of this step."""
    return _steps(market).at(moment)[0] * market.tick


def traded(market: Market, moment: int) -> Decimal:
    """Simulated volume of this step, in base."""
    return _steps(market).at(moment)[1] * market.lot


def summary(market: Market, now_ms: int) -> Summary:
    moment = now_ms - now_ms % STEP_MS
    prices = [*_past(market, moment), last_price(market, moment)]
    trades = DAY_MS // STEP_MS
    return Summary(prices[0], max(prices), min(prices), trades * _steps(market).mean_lots * market.lot, trades)


def depth_at_one_price(market: Market) -> Decimal:
    """Quoted quantity per price level, in base; at the best price the market maker fills any quantity."""
    return (market.least * 1000 / market.price).quantize(market.lot)


def candle(market: Market, opened_ms: int, length_ms: int, now_ms: int) -> Candle:
    """The candle that opened at this time, up to ``now_ms``."""
    if opened_ms + length_ms <= now_ms:
        return _whole_candle(market, opened_ms, length_ms)
    return _candle(market, opened_ms, length_ms, now_ms)


@lru_cache(maxsize=20_000)
def _whole_candle(market: Market, opened_ms: int, length_ms: int) -> Candle:
    return _candle(market, opened_ms, length_ms, opened_ms + length_ms - 1)


def _candle(market: Market, opened_ms: int, length_ms: int, last_ms: int) -> Candle:
    pace = 1 if length_ms <= _MINUTE_MS else length_ms // STEP_MS // _SAMPLES_OF_LONG_CANDLES
    steps = _steps(market)
    moments = range(opened_ms, last_ms + 1, pace * STEP_MS)
    found = [steps.at(moment) for moment in moments]
    closed, _ = steps.at(last_ms - last_ms % STEP_MS)
    ticks = [*(tick for tick, _ in found), closed]
    return Candle(
        opened_ms,
        length_ms,
        ticks[0] * market.tick,
        max(ticks) * market.tick,
        min(ticks) * market.tick,
        closed * market.tick,
        volume=sum(lots for _, lots in found) * pace * market.lot,
        turnover=sum(tick * lots for tick, lots in found) * pace * market.lot * market.tick,
        trades=len(found) * pace,
    )


def _past(market: Market, moment: int) -> Iterator[Decimal]:
    pace = DAY_MS // _SAMPLES
    first = moment - moment % pace - DAY_MS + pace
    return (last_price(market, at) for at in range(first, moment + 1, pace))


class _Steps:
    """One market's steps in whole ticks and lots: a thousand candles are some hundred thousand of them."""

    def __init__(self, market: Market) -> None:
        self._name = f"{market.symbol} ".encode()
        self._base_ticks = int(market.price / market.tick)
        self._unit_lots = max(1, int(market.least / market.price / market.lot))
        self._shift = self._hash(0)
        self.mean_lots = self._unit_lots * (_LEAST_UNITS + _MORE_UNITS // 2)

    def at(self, moment: int) -> tuple[int, int]:
        """Price in ticks, and simulated volume in lots."""
        parts, chance = 0, self._hash(moment)
        for period, amplitude in _WAVES:  # from minus one to one and back within the period, in units of one in a million
            parts += amplitude * (4 * abs((moment + self._shift) % period * _UNIT // period - _UNIT // 2) - _UNIT)
        parts += _NOISE * (chance % 2001 - 1000) * (_UNIT // 1000)
        ticks = (self._base_ticks * (10_000 * _UNIT + parts) + 5_000 * _UNIT) // (10_000 * _UNIT)
        return ticks, self._unit_lots * (_LEAST_UNITS + (chance >> 16) % _MORE_UNITS)

    def _hash(self, number: int) -> int:
        return int.from_bytes(hashlib.blake2b(self._name + b"%d" % number, digest_size=6).digest())


@lru_cache
def _steps(market: Market) -> _Steps:
    return _Steps(market)
