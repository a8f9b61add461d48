"""Event distribution from the engine to its subscribers."""

from collections.abc import Callable
from typing import Any, Literal

from deploy.local.exchange.account import Account
from deploy.local.exchange.market import Market
from deploy.local.exchange.orders import Execution, OrderRefused, Trade

MAX_LISTENERS_OF_AN_ACCOUNT = 100
Topic = tuple[Literal["price", "book", "trades", "orders", "balances"], str]
"""What of which: of a market by its symbol, of an account by its id."""
Listener = Callable[[Any], None]


class Feed:
    """Topics and their listeners; a listener must neither raise nor wait."""

    def __init__(self) -> None:
        self._listeners: dict[Topic, dict[object, Listener]] = {}

    def listen(self, topic: Topic, owner: object, listener: Listener) -> None:
        """Tell ``listener`` from now on.

        :param owner: by which :meth:`leave` finds it
        :raises OrderRefused: an account has too many listeners already
        """
        listeners = self._listeners.setdefault(topic, {})
        if topic[0] in ("orders", "balances") and len(listeners) >= MAX_LISTENERS_OF_AN_ACCOUNT:
            raise OrderRefused("too_many_subscriptions", f"at most {MAX_LISTENERS_OF_AN_ACCOUNT} subscriptions of an account")
        listeners[owner] = listener

    def leave(self, topic: Topic, owner: object) -> None:
        """Tell it no more; it need not have listened."""
        listeners = self._listeners.get(topic, {})
        listeners.pop(owner, None)
        if not listeners:
            self._listeners.pop(topic, None)

    def moved(self, market: Market) -> None:
        """A market's price is another one, and its book."""
        self._tell(("price", market.symbol), market)
        self.moved_book(market)

    def moved_book(self, market: Market) -> None:
        self._tell(("book", market.symbol), market)

    def traded(self, market: Market, trade: Trade) -> None:
        self._tell(("trades", market.symbol), trade)

    def happened(self, execution: Execution) -> None:
        self._tell(("orders", execution.order.account_id), execution)

    def balances(self, account: Account, now_ms: int) -> None:
        self._tell(("balances", account.id), (account, now_ms))

    def _tell(self, topic: Topic, what: object) -> None:
        for listener in list(self._listeners.get(topic, {}).values()):
            listener(what)
