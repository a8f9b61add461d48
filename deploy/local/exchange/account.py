"""An exchange account: balances, locked funds, orders, fills. Pure."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from deploy.local.exchange.amounts import text
from deploy.local.exchange.market import CURRENCIES
from deploy.local.exchange.orders import ZERO, Fill, Order, OrderRefused

FIRST_BALANCES = {"IDR": Decimal(1_000_000_000), "BTC": Decimal(1), "ETH": Decimal(10), "USDT": Decimal(10_000)}
MAX_OPEN = 200
MAX_KEPT = 1_000
"""Maximum orders, and trades, kept per account."""


@dataclass(slots=True)
class Balance:
    """A balance: ``available`` can be spent, ``locked`` is reserved for open orders."""

    available: Decimal = ZERO
    locked: Decimal = ZERO


class Account:
    """One customer's account at the demo exchange."""

    def __init__(self, account_id: str) -> None:
        self.id = account_id
        self.balances = {currency: Balance(FIRST_BALANCES.get(currency, ZERO)) for currency in CURRENCIES}
        self.orders: dict[int, Order] = {}
        self.open: dict[int, Order] = {}
        self.fills: deque[Fill] = deque(maxlen=MAX_KEPT)

    def accept(self, order: Order, cost: Decimal) -> None:
        """Accept an order and lock the funds that it may cost.

        :param cost: in the currency that the order spends
        :raises OrderRefused: nothing has changed
        """
        self.check(order.client_id, order, cost)
        balance = self.balances[spends(order)]
        balance.available -= cost
        balance.locked += cost
        self.orders[order.number] = self.open[order.number] = order

    def check(self, client_id: str, order: Order, cost: Decimal) -> None:
        """:raises OrderRefused: the account may not place this order now"""
        if len(self.open) >= MAX_OPEN:
            raise OrderRefused("too_many_open_orders", f"at most {MAX_OPEN} orders can be open")
        if client_id and any(other.client_id == client_id for other in self.open.values()):
            raise OrderRefused("duplicate_order", "another open order has this client order id")
        currency = spends(order)
        available = self.balances[currency].available
        if available < cost:
            raise OrderRefused("insufficient_balance", f"{text(cost)} {currency} required, {text(available)} available")

    def fill(self, fill: Fill) -> None:
        """Book a trade of one of this account's open orders: pay its cost, and release what was locked beyond that."""
        order, worth = fill.order, fill.price * fill.quantity
        paying, gaining = self.balances[spends(order)], self.balances[gains(order)]
        paid = worth if order.side == "buy" else fill.quantity
        released = locked(order, fill.quantity, at=fill.price)
        paying.locked -= released
        paying.available += released - paid
        gaining.available += fill.quantity if order.side == "buy" else worth
        order.executed += fill.quantity
        order.spent += worth
        order.updated_ms = fill.time_ms
        self.fills.append(fill)
        if not order.remaining:
            order.status = "filled"
            self._close(order)

    def end(self, order: Order, now_ms: int, *, expired: bool = False) -> None:
        """Close an open order and release what is still locked for it."""
        balance, rest = self.balances[spends(order)], locked(order, order.remaining, at=order.price)
        balance.locked -= rest
        balance.available += rest
        order.status, order.updated_ms = "expired" if expired else "cancelled", now_ms
        self._close(order)

    def find(self, number: int) -> Order:
        """:raises OrderRefused: there is no such order of this account"""
        try:
            return self.orders[number]
        except KeyError:
            raise OrderRefused("order_not_found", f"there is no order {number}") from None

    def open_orders(self) -> Iterator[Order]:
        """Open orders, oldest first."""
        return iter(list(self.open.values()))

    def _close(self, order: Order) -> None:
        del self.open[order.number]
        if len(self.orders) > MAX_KEPT:
            del self.orders[next(number for number in self.orders if number not in self.open)]


def spends(order: Order) -> str:
    """The currency that an order spends."""
    return order.market.quote if order.side == "buy" else order.market.base


def gains(order: Order) -> str:
    """The currency that an order receives."""
    return order.market.base if order.side == "buy" else order.market.quote


def locked(order: Order, quantity: Decimal, *, at: Decimal) -> Decimal:
    """The funds locked for this quantity of an order.

    :param at: for a market order, the price of this fill; a limit order locks at its limit
    """
    if order.side == "sell":
        return quantity
    return quantity * (order.price if order.kind == "limit" else at)
