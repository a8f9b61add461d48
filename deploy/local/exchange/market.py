"""Markets and their moving price. Pure: a price is a function of the symbol and the time alone, so everybody sees the same one."""

import hashlib
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

STEP_MS = 500
"""A price holds for this long."""
DAY_MS = 86_400_000
_WAVES = ((6_000_000, 150), (911_000, 60), (127_000, 25))  # period in ms, amplitude in 1/10000 of the base price
_NOISE = 8  # 1/10000 of the base price, either way
_SAMPLES = 96  # a day's summary looks every 15 minutes


class Market(NamedTuple):
    """One pair: amounts of ``base`` are bought and sold for ``quote``."""

    base: str
    quote: str
    price: Decimal
    """Around which the price moves."""
    tick: Decimal
    """Prices are multiples of it."""
    lot: Decimal
    """Quantities are multiples of it."""
    least: Decimal
    """The smallest worth of an order, in ``quote``."""

    @property
    def symbol(self) -> str:
        return f"{self.base}-{self.quote}"


class Quote(NamedTuple):
    """What a market stands at, at one moment."""

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
    last = _price(market, moment)
    half = max(market.tick, _rounded(last / 5000, market.tick))
    return Quote(last, last - half, last + half, moment)


def summary(market: Market, now_ms: int) -> Summary:
    moment = now_ms - now_ms % STEP_MS
    prices = [*_past(market, moment), _price(market, moment)]
    trades = 40_000 + _hash(market, moment // DAY_MS) % 20_000
    return Summary(prices[0], max(prices), min(prices), (trades * 300_000 / prices[-1]).quantize(market.lot), trades)


def _past(market: Market, moment: int) -> Iterator[Decimal]:
    pace = DAY_MS // _SAMPLES
    first = moment - moment % pace - DAY_MS + pace
    return (_price(market, at) for at in range(first, moment + 1, pace))


def _price(market: Market, moment: int) -> Decimal:
    shift = _hash(market, 0)
    parts = sum(amplitude * _triangle(moment + shift, period) for period, amplitude in _WAVES)
    noise = _NOISE * Decimal(_hash(market, moment) % 2001 - 1000) / 1000
    return _rounded(market.price * (1 + (parts + noise) / 10_000), market.tick)


def _triangle(moment: int, period: int) -> Decimal:
    """From -1 to 1 and back within ``period``."""
    phase = Decimal(moment % period) / period
    return 4 * abs(phase - Decimal("0.5")) - 1


def _hash(market: Market, number: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{market.symbol} {number}".encode(), digest_size=6).digest())


def _rounded(value: Decimal, tick: Decimal) -> Decimal:
    return (value / tick).quantize(Decimal(1), ROUND_HALF_EVEN) * tick
