"""Binance's calls, shared by REST and the WebSocket API: one function per call, from parameters to the JSON answer."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from deploy.local.exchange.account import Account
from deploy.local.exchange.amounts import text
from deploy.local.exchange.binance_like import words
from deploy.local.exchange.binance_like.parameters import Parameters
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.market import DAY_MS, INTERVALS, MARKETS, Market
from deploy.local.exchange.orders import Fill, Order, OrderRefused, TimeInForce, Wish

_MAX_LISTED = 1_000
_MAX_DEPTH = 5_000
_MONDAY_MS = 4 * DAY_MS
"""The first Monday after the epoch: where weeks begin."""
HALF_DONE = -2021
"""Of a cancellation and an order, one was done."""
_FORMS = ("ACK", "RESULT", "FULL")
_TIMES_IN_FORCE: dict[str, TimeInForce] = {"GTC": "gtc", "IOC": "ioc", "FOK": "fok"}
T = TypeVar("T", Order, Fill)


class Asked(NamedTuple):
    """One call: who asks what, and when."""

    exchange: Exchange
    caller: Account | None
    """``None``: nobody, on a public call."""
    parameters: Parameters
    now_ms: int

    @property
    def account(self) -> Account:
        """:raises OrderRefused: nobody asks"""
        if self.caller is None:
            raise OrderRefused("not_authenticated", "API-key format invalid.")
        return self.caller


Call = Callable[[Asked], Any]


class ReplaceFailed(OrderRefused):
    """``cancelReplace`` did not do both; ``data`` says what became of each half."""

    def __init__(self, number: int, message: str, data: dict[str, Any]) -> None:
        super().__init__("replace_failed", message)
        self.number = number
        self.data = data


def refusal(error: OrderRefused) -> tuple[int, dict[str, Any]]:
    """HTTP status and error as Binance tells them."""
    if isinstance(error, ReplaceFailed):
        return (409 if error.number == HALF_DONE else 400), {"code": error.number, "msg": str(error), "data": error.data}
    return (401 if error.code == "not_authenticated" else 400), words.refused(error)


def ping(_asked: Asked) -> dict[str, Any]:
    return {}


def time(asked: Asked) -> dict[str, Any]:
    return {"serverTime": asked.now_ms}


def exchange_info(asked: Asked) -> dict[str, Any]:
    chosen = asked.parameters.markets() or MARKETS.values()
    weight = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}
    rest = {"rateLimits": [weight], "exchangeFilters": [], "symbols": [words.symbol_info(market) for market in chosen]}
    return {"timezone": "UTC", "serverTime": asked.now_ms, **rest}


def no_markets(asked: Asked) -> dict[str, Any]:
    """``exchangeInfo`` of futures: clients ask for it unless told not to, and there are none."""
    return {"timezone": "UTC", "serverTime": asked.now_ms, "rateLimits": [], "exchangeFilters": [], "symbols": [], "assets": []}


def nothing(_asked: Asked) -> list[Any]:
    """Lists of what this exchange does not have."""
    return []


def day(asked: Asked) -> Any:
    return _one_or_all(asked, lambda market: day_of(asked.exchange, market, asked.now_ms))


def day_of(exchange: Exchange, market: Market, now_ms: int) -> dict[str, Any]:
    """A market's last 24 hours, with its last trade."""
    return words.day(exchange.books[market], now_ms, exchange.trades(market)[-1])


def price(asked: Asked) -> Any:
    books = asked.exchange.books
    return _one_or_all(asked, lambda market: {"symbol": words.name(market), "price": text(books[market].quote.last)})


def average_price(asked: Asked) -> dict[str, Any]:
    last = asked.exchange.books[asked.parameters.market()].quote
    return {"mins": 0, "price": text(last.last), "closeTime": last.time_ms}


def book_ticker(asked: Asked) -> Any:
    return _one_or_all(asked, lambda market: words.book_ticker(asked.exchange.books[market]))


def depth(asked: Asked) -> dict[str, Any]:
    return words.depth(asked.exchange.books[asked.parameters.market()], asked.parameters.limit(100, _MAX_DEPTH))


def trades(asked: Asked) -> list[dict[str, Any]]:
    found = asked.exchange.trades(asked.parameters.market())
    return [words.trade(trade) for trade in list(found)[-asked.parameters.limit(500, _MAX_LISTED) :]]


def aggregate_trades(asked: Asked) -> list[dict[str, Any]]:
    """``fromId`` and ``startTime`` give the oldest from there on, else the newest are told."""
    asked_for = asked.parameters
    first, since, until = asked_for.number("fromId", -1), asked_for.number("startTime", -1), asked_for.number("endTime", asked.now_ms)
    found = [one for one in asked.exchange.trades(asked_for.market()) if one.number >= first and since <= one.time_ms <= until]
    limit = asked_for.limit(500, _MAX_LISTED)
    return [words.aggregate(trade) for trade in (found[:limit] if max(first, since) >= 0 else found[-limit:])]


def klines(asked: Asked) -> list[list[Any]]:
    """Candles: from ``startTime`` on, else the last ones before ``endTime``."""
    asked_for, market = asked.parameters, asked.parameters.market()
    length = INTERVALS[asked_for.choice("interval", "invalid_interval", tuple(INTERVALS))]
    limit = asked_for.limit(500, _MAX_LISTED)
    last = opening(min(asked_for.number("endTime", asked.now_ms), asked.now_ms), length)
    since = asked_for.number("startTime", -1)
    first = last - (limit - 1) * length if since < 0 else opening(since + length - 1, length)
    opened = range(max(first, opening(length, length)), last + 1, length)[:limit]
    return [words.kline(asked.exchange.candle(market, at, length, asked.now_ms)) for at in opened]


def opening(moment_ms: int, length_ms: int) -> int:
    """When the candle of this moment opened."""
    shift = _MONDAY_MS if length_ms == INTERVALS["1w"] else 0
    return (moment_ms - shift) // length_ms * length_ms + shift


def account(asked: Asked) -> dict[str, Any]:
    empty_too = asked.parameters.text("omitZeroBalances") != "true"
    return words.account(asked.account, asked.now_ms, all_of_them=empty_too) | {"uid": 1}


def user_assets(asked: Asked) -> list[dict[str, Any]]:
    return words.user_assets(asked.account)


def coins(asked: Asked) -> list[dict[str, Any]]:
    return [words.coin(currency, held) for currency, held in asked.account.balances.items()]


def trade_fees(asked: Asked) -> list[dict[str, Any]]:
    chosen = asked.parameters.markets() or MARKETS.values()
    return [{"symbol": words.name(market), "makerCommission": "0", "takerCommission": "0"} for market in chosen]


def commission(asked: Asked) -> dict[str, Any]:
    rates = dict.fromkeys(("maker", "taker", "buyer", "seller"), "0")
    discount = {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0"}
    return {"symbol": words.name(asked.parameters.market()), "standardCommission": rates, "taxCommission": rates, "discount": discount}


def order(asked: Asked) -> dict[str, Any]:
    return words.order(_find(asked))


def place(asked: Asked) -> dict[str, Any]:
    wish, form = _wish(asked.parameters)
    made, fills = asked.exchange.place(asked.account, wish, asked.now_ms)
    return words.placed(made, fills, form)


def test(asked: Asked) -> dict[str, Any]:
    wish, _ = _wish(asked.parameters)
    asked.exchange.test(asked.account, wish, asked.now_ms)
    if asked.parameters.text("computeCommissionRates") != "true":
        return {}
    rates = {"maker": "0", "taker": "0"}
    return {"standardCommissionForOrder": rates, "taxCommissionForOrder": rates}


def cancel(asked: Asked) -> dict[str, Any]:
    try:
        found = _find(asked)
        made = asked.exchange.cancel(asked.account, found, asked.now_ms, cancel_id=asked.parameters.client_id("newClientOrderId"))
    except OrderRefused as error:
        if error.code != "order_not_found":
            raise
        # Of an order that cannot be cancelled Binance says one thing, whatever the reason.
        raise OrderRefused("order_not_open", str(error)) from None
    return words.cancelled(made)


def cancel_all(asked: Asked) -> list[dict[str, Any]]:
    market = asked.parameters.market()
    found = [each for each in asked.account.open_orders() if each.market is market]
    if not found:
        raise OrderRefused("order_not_open", "there is no open order")
    return [words.cancelled(asked.exchange.cancel(asked.account, each, asked.now_ms)) for each in found]


def cancel_replace(asked: Asked) -> dict[str, Any]:
    """Cancel one order and place another; the mode says whether the second is tried when the first fails."""
    mode = asked.parameters.choice("cancelReplaceMode", "invalid_parameter", ("STOP_ON_FAILURE", "ALLOW_FAILURE"))
    wish, form = _wish(asked.parameters)
    data: dict[str, Any] = {"cancelResult": "SUCCESS", "newOrderResult": "NOT_ATTEMPTED", "cancelResponse": None, "newOrderResponse": None}
    try:
        cancelling = asked.parameters.client_id("cancelNewClientOrderId")
        found = _find(asked, "cancelOrderId", "cancelOrigClientOrderId")
        data["cancelResponse"] = words.cancelled(asked.exchange.cancel(asked.account, found, asked.now_ms, cancel_id=cancelling))
    except OrderRefused as error:
        known = OrderRefused("order_not_open", str(error)) if error.code == "order_not_found" else error
        data |= {"cancelResult": "FAILURE", "cancelResponse": words.refused(known)}
    if data["cancelResult"] == "SUCCESS" or mode == "ALLOW_FAILURE":
        try:
            made, fills = asked.exchange.place(asked.account, wish, asked.now_ms)
            data |= {"newOrderResult": "SUCCESS", "newOrderResponse": words.placed(made, fills, form)}
        except OrderRefused as error:
            data |= {"newOrderResult": "FAILURE", "newOrderResponse": words.refused(error)}
    results = {data["cancelResult"], data["newOrderResult"]}
    if results == {"SUCCESS"}:
        return data
    if "SUCCESS" in results:
        raise ReplaceFailed(HALF_DONE, "Order cancel-replace partially failed.", data)
    raise ReplaceFailed(-2022, "Order cancel-replace failed.", data)


def open_orders(asked: Asked) -> list[dict[str, Any]]:
    market = asked.parameters.market() if asked.parameters.text("symbol") else None
    return [words.order(each) for each in asked.account.open_orders() if market in (None, each.market)]


def all_orders(asked: Asked) -> list[dict[str, Any]]:
    market = asked.parameters.market()
    mine = (each for each in asked.account.orders.values() if each.market is market)
    return [words.order(each) for each in _chosen(asked, mine, "orderId", lambda each: (each.number, each.created_ms))]


def own_trades(asked: Asked) -> list[dict[str, Any]]:
    market, number = asked.parameters.market(), asked.parameters.number("orderId", -1)
    mine = (each for each in asked.account.fills if each.order.market is market and number in (-1, each.order.number))
    return [words.own_trade(each) for each in _chosen(asked, mine, "fromId", lambda each: (each.trade, each.time_ms))]


def _chosen(asked: Asked, mine: Iterable[T], first_name: str, place_of: Callable[[T], tuple[int, int]]) -> list[T]:
    """Those from a number and within times; the oldest of them when a beginning is named, else the newest."""
    asked_for = asked.parameters
    first, since = asked_for.number(first_name, -1), asked_for.number("startTime", -1)
    until = asked_for.number("endTime", asked.now_ms)

    def found() -> Iterator[T]:
        for each in mine:
            number, at_ms = place_of(each)
            if number >= first and since <= at_ms <= until:
                yield each

    limit = asked_for.limit(500, _MAX_LISTED)
    return list(found())[:limit] if max(first, since) >= 0 else list(found())[-limit:]


def _one_or_all(asked: Asked, told: Callable[[Market], dict[str, Any]]) -> Any:
    chosen = asked.parameters.markets()
    if chosen is not None and asked.parameters.text("symbol"):
        return told(chosen[0])
    return [told(market) for market in chosen or MARKETS.values()]


def _wish(asked: Parameters) -> tuple[Wish, str]:
    """The order that is asked for, and in which form to answer.

    :raises OrderRefused: a parameter is missing, unknown, or of no use here
    """
    market = asked.market()
    side = asked.choice("side", "invalid_side", ("BUY", "SELL"))
    kind = asked.choice("type", "invalid_type", ("LIMIT", "MARKET", "LIMIT_MAKER"))
    form = asked.choice("newOrderRespType", "invalid_parameter", _FORMS, "ACK" if kind == "LIMIT_MAKER" else "FULL")
    quantity, spend = asked.amount("quantity", "invalid_quantity"), asked.amount("quoteOrderQty", "invalid_quantity")
    if kind != "MARKET" or spend is None:
        asked.needed("quantity")
    if spend is not None and (kind != "MARKET" or quantity is not None):
        raise OrderRefused("extra_parameter", "Parameter 'quoteOrderQty' sent when not required.")
    in_force: TimeInForce = "gtc"
    if kind == "LIMIT":
        in_force = _TIMES_IN_FORCE[asked.choice("timeInForce", "invalid_time_in_force", tuple(_TIMES_IN_FORCE), "GTC")]
    elif kind == "LIMIT_MAKER":
        in_force = "post_only"
    elif asked.text("price"):
        raise OrderRefused("extra_parameter", "Parameter 'price' sent when not required.")
    if kind != "MARKET":
        asked.needed("price")
    return Wish(
        market,
        "buy" if side == "BUY" else "sell",
        "market" if kind == "MARKET" else "limit",
        quantity,
        asked.amount("price", "invalid_price"),
        spend,
        in_force,
        asked.client_id("newClientOrderId"),
    ), form


def _find(asked: Asked, by_number: str = "orderId", by_client_id: str = "origClientOrderId") -> Order:
    """:raises OrderRefused: the account has no such order in this market"""
    market, own = asked.parameters.market(), asked.parameters.text(by_client_id)
    if own:
        found = [each for each in asked.account.orders.values() if words.client_id(each) == own]
        made = found[-1] if found else asked.account.find(-1)
    elif asked.parameters.text(by_number):
        made = asked.account.find(asked.parameters.number(by_number, -1))
    else:
        raise OrderRefused("missing_parameter", f"Param '{by_client_id}' or '{by_number}' must be sent, but both were empty/null!")
    return made if made.market is market else asked.account.find(-1)
