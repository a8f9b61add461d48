"""Order requests, orders and trades, as values."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from deploy.local.exchange.market import Market

Side = Literal["buy", "sell"]
Kind = Literal["limit", "market"]
TimeInForce = Literal["gtc", "ioc", "fok", "post_only"]
"""Rest until cancelled; fill what is there at once and drop the rest; fill whole at once or not at all; rest or be refused."""
Status = Literal["open", "filled", "cancelled", "expired"]
Change = Literal["placed", "traded", "cancelled", "expired"]
ZERO = Decimal(0)


class OrderRefused(Exception):
    """What the customer asked breaks a rule; ``code`` is for programs, the text for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Wish(NamedTuple):
    """An order as it is asked for."""

    market: Market
    side: Side
    kind: Kind
    quantity: Decimal | None
    """In base; a market order may name ``spend`` instead."""
    price: Decimal | None = None
    spend: Decimal | None = None
    """In quote, of a market order: what a purchase may cost, or a sale is to bring."""
    time_in_force: TimeInForce = "gtc"
    client_id: str = ""


@dataclass(slots=True, eq=False)
class Order:
    """An order is open until it is filled whole, cancelled, or expires."""

    number: int
    account_id: str
    market: Market
    side: Side
    kind: Kind
    time_in_force: TimeInForce
    price: Decimal
    """The limit; of a market order zero."""
    quantity: Decimal
    """In base; of a market order by ``spend``, what that was found to be worth."""
    spend: Decimal | None
    created_ms: int
    client_id: str
    cancel_id: str = ""
    status: Status = "open"
    executed: Decimal = ZERO
    """In base."""
    spent: Decimal = ZERO
    """In quote: what the executed part was worth."""
    updated_ms: int = 0

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.executed

    @property
    def average_price(self) -> Decimal | None:
        return self.spent / self.executed if self.executed else None


class Fill(NamedTuple):
    """One trade as one of its two sides sees it."""

    trade: int
    """The trade's number: both sides and the public tape name the same."""
    order: Order
    price: Decimal
    quantity: Decimal
    time_ms: int
    maker: bool
    """The order rested before."""


class Trade(NamedTuple):
    """One trade as everybody sees it."""

    number: int
    price: Decimal
    quantity: Decimal
    time_ms: int
    buyer_is_maker: bool


class Execution(NamedTuple):
    """Something happened to an order; ``order`` is as it stands after that."""

    number: int
    order: Order
    change: Change
    time_ms: int
    fill: Fill | None = None
