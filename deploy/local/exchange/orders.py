"""Order requests, orders and trades, as values."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from deploy.local.exchange.market import Market

Side = Literal["buy", "sell"]
Kind = Literal["limit", "market"]
TimeInForce = Literal["gtc", "ioc", "fok", "post_only"]
"""Good till cancelled; immediate or cancel; fill or kill; post only."""
Status = Literal["open", "filled", "cancelled", "expired"]
Change = Literal["placed", "traded", "cancelled", "expired"]
ZERO = Decimal(0)


class OrderRefused(Exception):
    """An order or call violates a rule; ``code`` is for programs, the text for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OrderRequest(NamedTuple):
    """The parameters of an order that a customer sends."""

    market: Market
    side: Side
    kind: Kind
    quantity: Decimal | None
    """In base; a market order may name ``spend`` instead."""
    price: Decimal | None = None
    spend: Decimal | None = None
    """In quote, for a market order: the total to spend or to receive."""
    time_in_force: TimeInForce = "gtc"
    client_id: str = ""


@dataclass(slots=True, eq=False)
class Order:
    """An order is open until it is filled completely, cancelled, or expires."""

    number: int
    account_id: str
    market: Market
    side: Side
    kind: Kind
    time_in_force: TimeInForce
    price: Decimal
    """The limit; zero for a market order."""
    quantity: Decimal
    """In base; for a market order by ``spend``, the quantity that the total bought or sold."""
    spend: Decimal | None
    created_ms: int
    client_id: str
    cancel_id: str = ""
    status: Status = "open"
    executed: Decimal = ZERO
    """In base."""
    spent: Decimal = ZERO
    """In quote: the value of the executed part."""
    updated_ms: int = 0

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.executed

    @property
    def average_price(self) -> Decimal | None:
        return self.spent / self.executed if self.executed else None


class Fill(NamedTuple):
    """One trade from the point of view of one of its two orders."""

    trade: int
    """The trade's number, the same for both sides and in the public trades."""
    order: Order
    price: Decimal
    quantity: Decimal
    time_ms: int
    maker: bool
    """Whether the order was resting in the book."""


class Trade(NamedTuple):
    """One public trade."""

    number: int
    price: Decimal
    quantity: Decimal
    time_ms: int
    buyer_is_maker: bool


class Execution(NamedTuple):
    """A change of an order; ``order`` is its state after the change."""

    number: int
    order: Order
    change: Change
    time_ms: int
    fill: Fill | None = None
