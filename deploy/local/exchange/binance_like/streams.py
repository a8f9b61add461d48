"""``/stream`` and ``/ws/{stream}``: Binance's public market streams."""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from deploy.local.exchange.amounts import text
from deploy.local.exchange.binance_like import calls, formats
from deploy.local.exchange.binance_like.parameters import market_of
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.feed import Kind, Topic
from deploy.local.exchange.market import INTERVALS, MARKETS, Market
from deploy.local.exchange.orders import OrderRefused, Side, Trade
from deploy.local.exchange.sockets import MAX_SUBSCRIPTIONS, Session, Socket, json_object
from gateway.runtime import clock

_NAME = re.compile(r"([a-z0-9]{1,20})@([A-Za-z]+?)(5|10|20)?(?:_(\w{2,3}))?(?:@(?:100|1000)ms)?")
_DEPTH = 1_000
Events = Callable[[Any], Iterable[Any]]
"""Converts an event of the feed to messages for the client."""


class StreamSession(Session):
    """One connection.

    :param combined: each event is wrapped with its stream's name
    :param streams: initial subscriptions; unknown names are ignored, as by Binance
    """

    def __init__(self, socket: Socket, exchange: Exchange, *, combined: bool, streams: list[str]) -> None:
        super().__init__(socket)
        self._exchange = exchange
        self._combined = combined
        self._first = streams
        self._topics: dict[str, Topic] = {}

    def opened(self) -> None:
        for name in self._first:
            try:
                self._subscribe(name)
            except OrderRefused:
                continue

    async def received(self, text: str) -> None:
        message = json_object(text)
        answer_to = None if message is None else message.get("id")
        if message is None or not isinstance(answer_to, int | str | None):
            self.socket.send({"error": {"code": 3, "msg": "Invalid JSON: expected an object with method, params and id"}})
            return
        try:
            self.socket.send({"result": self._answer(message), "id": answer_to})
        except OrderRefused as error:
            self.socket.send({"error": {"code": 2, "msg": f"Invalid request: {error}"}, "id": answer_to})

    def _answer(self, message: dict[str, Any]) -> Any:
        """:raises OrderRefused: it cannot be done"""
        method, params = message.get("method"), message.get("params")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self._topics)
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(params, list) or not params or not all(isinstance(name, str) for name in params):
                raise OrderRefused("invalid_parameter", "params must be a list of streams' names")
            for name in params[:MAX_SUBSCRIPTIONS]:
                (self._subscribe if method == "SUBSCRIBE" else self._unsubscribe)(name)
            return None
        if method == "SET_PROPERTY" and isinstance(params, list) and params[:1] == ["combined"] and isinstance(params[-1], bool):
            self._combined = params[-1]
            return None
        if method == "GET_PROPERTY" and params == ["combined"]:
            return self._combined
        raise OrderRefused("unknown_method", "unknown method")

    def _subscribe(self, name: str) -> None:
        """:raises OrderRefused: there is no such stream, or there are too many"""
        if name in self._topics:
            return
        topic, events = self._source(name)
        self.socket.listen(topic, name, self._listener(name, events))
        self._topics[name] = topic

    def _unsubscribe(self, name: str) -> None:
        if name in self._topics:
            self.socket.leave(self._topics.pop(name), name)

    def _listener(self, name: str, events: Events) -> Callable[[Any], None]:
        def listener(update: Any) -> None:
            for event in events(update):
                self.socket.send({"stream": name, "data": event} if self._combined else event)

        return listener

    def _source(self, name: str) -> tuple[Topic, Events]:
        """The topic of a stream, and the conversion of its events.

        :raises OrderRefused: there is no such stream
        """
        exchange, last = self._exchange, next(reversed(MARKETS))
        if name in ("!ticker@arr", "!miniTicker@arr"):
            # Markets are updated in order: after the last one, all are.
            ticker_of = _ticker if name == "!ticker@arr" else _mini_ticker
            return ("price", last), lambda _: [[ticker_of(exchange, market) for market in MARKETS.values()]]
        if (found := _NAME.fullmatch(name)) is None:
            raise OrderRefused("unknown_stream", f"there is no stream {name[:64]}")
        market, (_, kind, depth, interval) = market_of(found[1].upper()), found.groups()
        whole = kind if interval is None else f"{kind}_"
        if depth is not None and kind == "depth":
            return ("book", market.symbol), lambda _: [formats.depth(exchange.books[market], int(depth))]
        if whole == "kline_" and interval in INTERVALS:
            return ("price", market.symbol), _Klines(exchange, market, interval)
        if whole not in _KINDS or depth is not None:
            raise OrderRefused("unknown_stream", f"there is no stream {name[:64]}")
        topic, make = _KINDS[whole]
        return (topic, market.symbol), make(exchange, market)


def _ticker(exchange: Exchange, market: Market) -> dict[str, Any]:
    now_ms = clock.now_ms()
    day = calls.day_of(exchange, market, now_ms)
    members = {
        "p": "priceChange", "P": "priceChangePercent", "w": "weightedAvgPrice", "x": "prevClosePrice", "c": "lastPrice", "Q": "lastQty",
        "b": "bidPrice", "B": "bidQty", "a": "askPrice", "A": "askQty", "o": "openPrice", "h": "highPrice", "l": "lowPrice",
        "v": "volume", "q": "quoteVolume", "O": "openTime", "C": "closeTime", "F": "firstId", "L": "lastId", "n": "count",
    }  # fmt: skip
    return {"e": "24hrTicker", "E": now_ms, "s": formats.name(market)} | {short: day[long] for short, long in members.items()}


def _mini_ticker(exchange: Exchange, market: Market) -> dict[str, Any]:
    whole = _ticker(exchange, market)
    return {member: whole[member] for member in ("E", "s", "c", "o", "h", "l", "v", "q")} | {"e": "24hrMiniTicker"}


def _trade(market: Market, trade: Trade) -> dict[str, Any]:
    members = {"t": trade.number, "p": text(trade.price), "q": text(trade.quantity), "T": trade.time_ms}
    return {"e": "trade", "E": clock.now_ms(), "s": formats.name(market)} | members | {"m": trade.buyer_is_maker, "M": True}


def _aggregate_trade(market: Market, trade: Trade) -> dict[str, Any]:
    return {"e": "aggTrade", "E": clock.now_ms(), "s": formats.name(market)} | formats.aggregate(trade)


class _BookTickers:
    """Best bid and ask, sent when either changes."""

    def __init__(self, exchange: Exchange, market: Market) -> None:
        self._book = exchange.books[market]
        self._last: dict[str, Any] = {}

    def __call__(self, _: object) -> Iterator[Any]:
        now = formats.book_ticker(self._book)
        if now != self._last:
            self._last = now
            best = {"b": now["bidPrice"], "B": now["bidQty"], "a": now["askPrice"], "A": now["askQty"]}
            yield {"u": self._book.revision, "s": now["symbol"]} | best


class _Depth:
    """Changes of the book since the last event: prices with their new quantities, 0 for removed levels."""

    def __init__(self, exchange: Exchange, market: Market) -> None:
        self._book = exchange.books[market]
        self._revision = self._book.revision
        self._levels = {side: self._now(side) for side in ("buy", "sell")}

    def _now(self, side: str) -> dict[Decimal, Decimal]:
        wanted: Side = "buy" if side == "buy" else "sell"
        return dict(self._book.levels(wanted, _DEPTH))

    def __call__(self, _: object) -> Iterator[Any]:
        changes = {}
        for side, before in self._levels.items():
            after = self._now(side)
            gone = [(price, Decimal(0)) for price in before if price not in after]
            changes[side] = formats.levels([*gone, *((price, amount) for price, amount in after.items() if before.get(price) != amount)])
            self._levels[side] = after
        first, self._revision = self._revision + 1, self._book.revision
        if first <= self._revision:
            update = {"U": first, "u": self._revision, "b": changes["buy"], "a": changes["sell"]}
            yield {"e": "depthUpdate", "E": clock.now_ms(), "s": formats.name(self._book.market)} | update


class _Klines:
    """The current candle, and the previous one once it has closed."""

    def __init__(self, exchange: Exchange, market: Market, interval: str) -> None:
        self._exchange = exchange
        self._market = market
        self._interval = interval
        self._opened: int | None = None

    def __call__(self, _: object) -> Iterator[Any]:
        now_ms = clock.now_ms()
        opened = calls.opening(now_ms, INTERVALS[self._interval])
        if self._opened is not None and self._opened != opened:
            yield self._event(self._opened, now_ms, closed=True)
        self._opened = opened
        yield self._event(opened, now_ms, closed=False)

    def _event(self, opened: int, now_ms: int, *, closed: bool) -> dict[str, Any]:
        candle = self._exchange.candle(self._market, opened, INTERVALS[self._interval], now_ms)
        names = ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")
        members = dict(zip(names, formats.kline(candle), strict=True))
        symbol = formats.name(self._market)
        rest = {"s": symbol, "i": self._interval, "f": -1, "L": -1, "x": closed}
        return {"e": "kline", "E": now_ms, "s": symbol, "k": members | rest}


_KINDS: dict[str, tuple[Kind, Callable[[Exchange, Market], Events]]] = {
    "trade": ("trades", lambda _, market: lambda trade: [_trade(market, trade)]),
    "aggTrade": ("trades", lambda _, market: lambda trade: [_aggregate_trade(market, trade)]),
    "ticker": ("price", lambda exchange, market: lambda _: [_ticker(exchange, market)]),
    "miniTicker": ("price", lambda exchange, market: lambda _: [_mini_ticker(exchange, market)]),
    "bookTicker": ("book", _BookTickers),
    "depth": ("book", _Depth),
}
