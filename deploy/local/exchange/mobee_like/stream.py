"""``/ws``: Mobee's stream, behind the gateway's message admission."""

from collections.abc import Callable
from functools import partial
from typing import Any

from deploy.local.exchange.account import Account
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.feed import Topic
from deploy.local.exchange.identity import Identities
from deploy.local.exchange.market import CURRENCIES, MARKETS, Market
from deploy.local.exchange.mobee_like import formats
from deploy.local.exchange.orders import OrderRefused, Trade
from deploy.local.exchange.sockets import Session, Socket, json_object
from gateway.assertion import AssertionRefused
from gateway.runtime import clock

_MAX_EVENTS = 100
"""Maximum events in one message."""
_RECENT = 20
DataOf = Callable[[Any], Any]
"""Converts an event of the feed to data; ``None``: returns the initial data of a subscription."""
Source = tuple[Topic, DataOf]


class StreamSession(Session):
    """One connection. Subscriptions to an account's events end with its log-out."""

    def __init__(self, socket: Socket, exchange: Exchange, identities: Identities) -> None:
        super().__init__(socket)
        self._exchange = exchange
        self._identities = identities
        self._subscribed: dict[str, tuple[str | None, list[Topic]]] = {}
        """By event: the account, for private events, and its topics."""

    async def received(self, text: str) -> None:
        message = json_object(text)
        method = None if message is None else message.get("method")
        if message is None or not isinstance(method, str):
            self._send({"method": None, "status": "error", "message": "A message must be a JSON object with a method."})
            return
        try:
            caller = await self._identities.of(message)
        except AssertionRefused:
            self._send({"method": method, "status": "error", "message": "The message has no valid assertion of the gateway."})
            return
        account_id = None if caller is None else caller.account_id
        self._exchange.advance(clock.now_ms())
        if method in ("subscribe", "unsubscribe"):
            self._events(method, message.get("events"), account_id)
        elif method == "login":
            self._send(_done(method, "Logged in.") if account_id else _failed(method, "Invalid credentials."))
        elif method == "logout":
            self._drop_private()
            self._send(_done(method, "Logged out."))
        else:
            self._send(_failed(method[:64], "Unknown method."))

    def _events(self, method: str, events: object, account_id: str | None) -> None:
        if not isinstance(events, list) or not 0 < len(events) <= _MAX_EVENTS or not all(isinstance(event, str) for event in events):
            self._send(_failed(method, f"events must be a list of 1 to {_MAX_EVENTS} texts."))
            return
        done, first = [], []
        for event in events:
            try:
                if method == "subscribe":
                    first += [(event, data_of) for data_of in self._subscribe(event, account_id)]
                else:
                    self._unsubscribe(event)
                result = {"status": "success", "message": "Subscribed." if method == "subscribe" else "Unsubscribed."}
            except OrderRefused as error:
                result = {"status": "error", "message": str(error)}
            done.append({"event": event[:64], **result})
        self._send({"method": method, "events": done})
        for event, data_of in first:
            self._send_event(event, data_of(None))

    def _subscribe(self, event: str, account_id: str | None) -> list[DataOf]:
        """Subscribe, unless it is subscribed already. Returns what provides the initial data.

        :raises OrderRefused: there is no such event, or no account is logged in
        """
        if event in self._subscribed:
            return [data_of for _, data_of in self._sources(event, self._subscribed[event][0])]
        private = event.partition(".")[0] in ("BL", "PO")
        if private and account_id is None:
            raise OrderRefused("not_authenticated", "Access denied.")
        sources, topics = self._sources(event, account_id), list[Topic]()
        try:
            for number, (topic, data_of) in enumerate(sources):
                self.socket.listen(topic, f"{event} {number}", self._listener(event, data_of))
                topics.append(topic)
        except OrderRefused:
            self._leave(event, topics)
            raise
        self._subscribed[event] = (account_id if private else None, topics)
        return [data_of for _, data_of in sources]

    def _unsubscribe(self, event: str) -> None:
        if event not in self._subscribed:
            raise OrderRefused("not_subscribed", "Not subscribed.")
        _, topics = self._subscribed.pop(event)
        self._leave(event, topics)

    def _leave(self, event: str, topics: list[Topic]) -> None:
        for number, topic in enumerate(topics):
            self.socket.leave(topic, f"{event} {number}")

    def _drop_private(self) -> None:
        for event in [event for event, (account_id, _) in self._subscribed.items() if account_id is not None]:
            self._unsubscribe(event)

    def _listener(self, event: str, data_of: DataOf) -> Callable[[Any], None]:
        return lambda what: self._send_event(event, data_of(what))

    def _sources(self, event: str, account_id: str | None) -> list[Source]:
        """The sources of an event's data.

        :raises OrderRefused: there is no such event
        """
        code, _, rest = event.partition(".")
        if code == "MK" and not rest:
            # Markets are updated in order: after the last one, all are.
            return [(("price", next(reversed(MARKETS))), lambda _: self._markets())]
        if code == "OB":
            return [(("book", market.symbol), partial(self._book, market)) for market in _markets_named(rest)]
        if code == "RT":
            return [(("trades", market.symbol), partial(self._trades, market)) for market in _markets_named(rest)]
        if code == "BL" and rest in ("", "ALL", *CURRENCIES):
            return [(("balances", account_id or ""), lambda _: _wallets(self._exchange.account(account_id or ""), rest))]
        if code == "PO":
            markets = _markets_named(rest)
            return [(("orders", account_id or ""), lambda _: _pending(self._exchange.account(account_id or ""), markets))]
        raise OrderRefused("unknown_event", "Unknown event.")

    def _markets(self) -> list[dict[str, Any]]:
        now_ms = clock.now_ms()
        return [formats.streamed_market(book, now_ms) for book in self._exchange.books.values()]

    def _book(self, market: Market, _moved: object) -> dict[str, Any]:
        return formats.order_book(self._exchange.books[market])

    def _trades(self, market: Market, trade: Trade | None) -> list[dict[str, Any]]:
        trades = list(self._exchange.trades(market))[-_RECENT:] if trade is None else [trade]
        return [formats.trade(market, each) for each in trades]

    def _send_event(self, event: str, data: object) -> None:
        self._send({"method": "stream", "event": event, "data": data})

    def _send(self, message: dict[str, Any]) -> None:
        self.socket.send(message, formats.as_numbers)


def _wallets(account: Account, currency: str) -> list[dict[str, Any]]:
    return [wallet for wallet in formats.wallets(account) if currency in ("", "ALL", wallet["currency"])]


def _pending(account: Account, markets: list[Market]) -> list[dict[str, Any]]:
    """The open orders: an order that has ended is missing from the list."""
    return [formats.order(order) for order in account.open_orders() if order.market in markets]


def _markets_named(rest: str) -> list[Market]:
    """The markets named after an event's first dot: ``BTC-IDR``, ``BTC.IDR``, ``BTCIDR``; nothing or ``ALL`` means every market.

    :raises OrderRefused: there is no such market
    """
    if rest in ("", "ALL"):
        return list(MARKETS.values())
    plain = rest.replace("-", "").replace(".", "").replace("_", "").upper()
    found = [market for market in MARKETS.values() if market.base + market.quote == plain]
    if not found:
        raise OrderRefused("unknown_symbol", "Unknown market.")
    return found


def _done(method: str, message: str) -> dict[str, Any]:
    return {"method": method, "status": "success", "message": message}


def _failed(method: str, message: str) -> dict[str, Any]:
    return {"method": method, "status": "error", "message": message}
