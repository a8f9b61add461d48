"""An order book: customers' resting orders, and a market maker at the moving price. Pure."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from deploy.local.exchange.amounts import floored
from deploy.local.exchange.market import Market, Quote, depth_at_one_price
from deploy.local.exchange.orders import ZERO, Order, OrderRequest, Side

MAKER_LEVELS = 20
"""Number of price levels that the market maker quotes."""


class Match(NamedTuple):
    """One step of filling an order."""

    resting: Order | None
    """``None``: the market maker."""
    price: Decimal
    quantity: Decimal


class Book:
    """Resting orders of both sides, best price first, then oldest first."""

    def __init__(self, market: Market, quote: Quote) -> None:
        self.market = market
        self.quote = quote
        self.revision = quote.time_ms
        """Increases with every change, also across restarts."""
        self._sides: dict[Side, list[tuple[Decimal, int, Order]]] = {"buy": [], "sell": []}

    def add(self, order: Order) -> None:
        insort(self._sides[order.side], _place(order))
        self.revision += 1

    def remove(self, order: Order) -> None:
        side = self._sides[order.side]
        del side[bisect_left(side, _place(order))]
        self.revision += 1

    def changed(self) -> None:
        """Note that a resting order was partially filled or the price has moved."""
        self.revision += 1

    def resting(self, side: Side) -> Iterator[Order]:
        """Best first."""
        return (order for _, _, order in list(self._sides[side]))

    def reached(self) -> list[Order]:
        """The resting orders that the market maker's price has reached."""
        bids = [order for order in self.resting("buy") if order.price >= self.quote.ask]
        return bids + [order for order in self.resting("sell") if order.price <= self.quote.bid]

    def best(self, side: Side) -> Decimal:
        """The best price on one side."""
        maker = self.quote.bid if side == "buy" else self.quote.ask
        first = next(self.resting(side), None)
        if first is None:
            return maker
        return max(maker, first.price) if side == "buy" else min(maker, first.price)

    def plan(self, requested: OrderRequest) -> list[Match]:
        """How an order would be matched immediately: customers up to the market maker's price, then the market maker for the rest."""
        other: Side = "sell" if requested.side == "buy" else "buy"
        maker = self.quote.ask if requested.side == "buy" else self.quote.bid
        matches: list[Match] = []
        quantity, spend = requested.quantity, requested.spend
        for resting in self.resting(other):
            if not _at_least_as_good(resting.price, maker, requested.side) or not _within(requested, resting.price):
                break
            taken = min(resting.remaining, _quantity(quantity, spend, resting.price, self.market))
            if not taken:
                return matches
            matches.append(Match(resting, resting.price, taken))
            quantity = None if quantity is None else quantity - taken
            spend = None if spend is None else spend - taken * resting.price
        rest = _quantity(quantity, spend, maker, self.market)
        if rest and _within(requested, maker):
            matches.append(Match(None, maker, rest))
        return matches

    def levels(self, side: Side, limit: int) -> list[tuple[Decimal, Decimal]]:
        """Price and amount, best first: the customers' orders and the market maker's quotes."""
        best, step = (self.quote.bid, -self.market.tick) if side == "buy" else (self.quote.ask, self.market.tick)
        shown = depth_at_one_price(self.market)
        amounts = {best + level * step: shown for level in range(MAKER_LEVELS)}
        customers = 0
        for order in self.resting(side):
            customers += order.price not in amounts
            if customers > limit:
                break
            amounts[order.price] = amounts.get(order.price, ZERO) + order.remaining
        return sorted(amounts.items(), reverse=side == "buy")[:limit]


def _place(order: Order) -> tuple[Decimal, int, Order]:
    # No two orders have one number, so that orders themselves are never compared.
    return (-order.price if order.side == "buy" else order.price, order.number, order)


def _at_least_as_good(price: Decimal, maker: Decimal, side: Side) -> bool:
    return price <= maker if side == "buy" else price >= maker


def _within(requested: OrderRequest, price: Decimal) -> bool:
    return requested.price is None or _at_least_as_good(price, requested.price, requested.side)


def _quantity(quantity: Decimal | None, spend: Decimal | None, price: Decimal, market: Market) -> Decimal:
    if quantity is not None:
        return quantity
    return floored((spend or ZERO) / price, market.lot)
