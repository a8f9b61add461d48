"""Event distribution from the engine to its subscribers."""

from collections.abc import Callable
from typing import Any, Literal

from deploy.local.exchange.account import Account
from deploy.local.exchange.market import Market
from deploy.local.exchange.orders import Execution, OrderRefused, Trade

MAX_LISTENERS_OF_AN_ACCOUNT = 100
Kind = Literal["price", "book", "trades", "orders", "balances"]
Topic = tuple[Kind, str]
"""Kind of event, and the symbol of the market or the id of the account."""
Listener = Callable[[Any], None]


class Feed:
    """Topics and their listeners. A listener must neither raise nor block."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, dict[object, Listener]] = {}

    def listen(self, topic: Topic, owner: object, listener: Listener) -> None:
        """Subscribe a listener.

        :param owner: identifies it for :meth:`leave`
        :raises OrderRefused: an account has too many listeners already
        """
        listeners = self._listeners.setdefault(topic, {})
        if topic[0] in ("orders", "balances") and len(listeners) >= MAX_LISTENERS_OF_AN_ACCOUNT:
            raise OrderRefused("too_many_subscriptions", f"at most {MAX_LISTENERS_OF_AN_ACCOUNT} subscriptions per account")
        listeners[owner] = listener

    def leave(self, topic: Topic, owner: object) -> None:
        """Unsubscribe; does nothing when there is no subscription."""
        listeners = self._listeners.get(topic, {})
        listeners.pop(owner, None)
        if not listeners:
            self._listeners.pop(topic, None)

    def price_changed(self, market: Market) -> None:
        """Publish a new price of a market, and its book."""
        self._publish(("price", market.symbol), market)
        self.book_changed(market)

    def book_changed(self, market: Market) -> None:
        self._publish(("book", market.symbol), market)

    def traded(self, market: Market, trade: Trade) -> None:
        self._publish(("trades", market.symbol), trade)

    def executed(self, execution: Execution) -> None:
        self._publish(("orders", execution.order.account_id), execution)

    def balances(self, account: Account, now_ms: int) -> None:
        self._publish(("balances", account.id), (account, now_ms))

    def _publish(self, topic: Topic, what: object) -> None:
        for listener in list(self._listeners.get(topic, {}).values()):
            listener(what)
