"""One account: balances, orders, fills. Pure: prices and the time are arguments, a rule that is broken raises :class:`OrderRefused`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from deploy.local.exchange.market import CURRENCIES, Market, Quote

FIRST_BALANCES = {"IDR": Decimal(1_000_000_000), "BTC": Decimal(1), "ETH": Decimal(10), "USDT": Decimal(10_000)}
MAX_OPEN = 200
MAX_KEPT = 1_000

Side = Literal["buy", "sell"]
Kind = Literal["limit", "market"]
Status = Literal["open", "filled", "cancelled"]
ZERO = Decimal(0)


class OrderRefused(Exception):
    """What the customer asked breaks a rule; ``code`` is for programs, the text for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Balance:
    """``available`` can be spent, ``locked`` waits in open orders."""

    available: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass
class Order:
    """An order is open until it is filled whole or cancelled."""

    number: int
    market: Market
    side: Side
    kind: Kind
    price: Decimal
    """Limit, or for a market order the price it was filled at."""
    quantity: Decimal
    created_ms: int
    client_id: str
    status: Status = "open"
    fill_price: Decimal | None = None
    updated_ms: int = field(default=0)

    @property
    def filled(self) -> Decimal:
        return self.quantity if self.status == "filled" else ZERO


class Account:
    """Everything one customer has at the demo exchange."""

    def __init__(self) -> None:
        self.balances = {currency: Balance(FIRST_BALANCES.get(currency, ZERO)) for currency in CURRENCIES}
        self.orders: dict[int, Order] = {}

    def place(
        self,
        number: int,
        market: Market,
        *,
        side: Side,
        kind: Kind,
        quantity: Decimal,
        price: Decimal | None,
        quote: Quote,
        now_ms: int,
        client_id: str = "",
    ) -> Order:
        """Place an order; it is filled at once when the market is at its price or better.

        :param price: of a limit order
        :raises OrderRefused: nothing has changed then
        """
        limit = _limit(side, kind, price, quote)
        _check_amounts(market, kind, quantity, limit)
        if sum(order.status == "open" for order in self.orders.values()) >= MAX_OPEN:
            raise OrderRefused("too_many_open_orders", f"at most {MAX_OPEN} orders can be open")
        if client_id and any(order.client_id == client_id and order.status == "open" for order in self.orders.values()):
            raise OrderRefused("duplicate_order", "an open order has this client order id")
        currency, amount = _cost(market, side, quantity, limit)
        balance = self.balances[currency]
        if balance.available < amount:
            raise OrderRefused("insufficient_balance", f"this needs {text(amount)} {currency}, available are {text(balance.available)}")
        balance.available -= amount
        balance.locked += amount
        order = Order(number, market, side, kind, limit, quantity, now_ms, client_id, updated_ms=now_ms)
        self.orders[number] = order
        self._match(order, quote, now_ms)
        self._forget()
        return order

    def cancel(self, number: int, now_ms: int) -> Order:
        """:raises OrderRefused: there is no such order, or it is not open"""
        order = self.find(number)
        if order.status != "open":
            raise OrderRefused("order_not_open", f"order {number} is {order.status}")
        currency, amount = _cost(order.market, order.side, order.quantity, order.price)
        self.balances[currency].locked -= amount
        self.balances[currency].available += amount
        order.status, order.updated_ms = "cancelled", now_ms
        return order

    def find(self, number: int) -> Order:
        """:raises OrderRefused: there is no such order of this account"""
        try:
            return self.orders[number]
        except KeyError:
            raise OrderRefused("order_not_found", f"there is no order {number}") from None

    def settle(self, quote_of: Callable[[Market], Quote], now_ms: int) -> None:
        """Fill every open order that the market has reached."""
        for order in self.open_orders():
            self._match(order, quote_of(order.market), now_ms)

    def open_orders(self) -> Iterator[Order]:
        return (order for order in list(self.orders.values()) if order.status == "open")

    def _match(self, order: Order, quote: Quote, now_ms: int) -> None:
        reached = quote.ask <= order.price if order.side == "buy" else quote.bid >= order.price
        if not reached:
            return
        # Never worse than the market when the order came, never worse than its limit later.
        price = quote.ask if order.side == "buy" else quote.bid
        spent_currency, locked = _cost(order.market, order.side, order.quantity, order.price)
        _, spent = _cost(order.market, order.side, order.quantity, price)
        gained_currency = order.market.base if order.side == "buy" else order.market.quote
        self.balances[spent_currency].locked -= locked
        self.balances[spent_currency].available += locked - spent
        self.balances[gained_currency].available += order.quantity if order.side == "buy" else order.quantity * price
        order.status, order.fill_price, order.updated_ms = "filled", price, now_ms
        if order.kind == "market":
            order.price = price

    def _forget(self) -> None:
        closed = [number for number, order in self.orders.items() if order.status != "open"]
        for number in closed[: max(0, len(self.orders) - MAX_KEPT)]:
            del self.orders[number]


def text(value: Decimal) -> str:
    """A plain decimal number, without exponent or needless zeros."""
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _limit(side: Side, kind: Kind, price: Decimal | None, quote: Quote) -> Decimal:
    if kind == "market":
        if price is not None:
            raise OrderRefused("invalid_price", "a market order has no price")
        return quote.ask if side == "buy" else quote.bid
    if price is None:
        raise OrderRefused("invalid_price", "a limit order needs a price")
    return price


def _check_amounts(market: Market, kind: Kind, quantity: Decimal, price: Decimal) -> None:
    if quantity <= 0 or quantity % market.lot:
        raise OrderRefused("invalid_quantity", f"quantity must be a positive multiple of {text(market.lot)}")
    if kind == "limit" and (price <= 0 or price % market.tick):
        raise OrderRefused("invalid_price", f"price must be a positive multiple of {text(market.tick)}")
    if quantity * price < market.least:
        raise OrderRefused("order_too_small", f"an order must be worth at least {text(market.least)} {market.quote}")


def _cost(market: Market, side: Side, quantity: Decimal, price: Decimal) -> tuple[str, Decimal]:
    """What an order takes from the account: currency and amount."""
    return (market.quote, quantity * price) if side == "buy" else (market.base, quantity)
