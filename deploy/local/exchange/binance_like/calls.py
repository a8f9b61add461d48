"""Binance's calls, shared by REST and the WebSocket API: one function per call, from parameters to the JSON answer."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from deploy.local.exchange.account import Account
from deploy.local.exchange.amounts import text
from deploy.local.exchange.binance_like import formats
from deploy.local.exchange.binance_like.parameters import Parameters
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.market import DAY_MS, INTERVALS, MARKETS, Market
from deploy.local.exchange.orders import Fill, Order, OrderRefused, OrderRequest, TimeInForce, Trade

_MAX_LISTED = 1_000
_MAX_DEPTH = 5_000
_MONDAY_MS = 4 * DAY_MS
"""The first Monday after the epoch: weekly candles open on Mondays."""
HALF_DONE = -2021
"""Binance's code when only one of cancellation and new order succeeded."""
_FORMS = ("ACK", "RESULT", "FULL")
_TIMES_IN_FORCE: dict[str, TimeInForce] = {"GTC": "gtc", "IOC": "ioc", "FOK": "fok"}
T = TypeVar("T", Order, Fill, Trade)


class CallRequest(NamedTuple):
    """One call: caller, parameters, time."""

    exchange: Exchange
    caller: Account | None
    """``None`` for a public call."""
    parameters: Parameters
    now_ms: int

    @property
    def account(self) -> Account:
        """:raises OrderRefused: the call is public"""
        if self.caller is None:
            raise OrderRefused("not_authenticated", "API-key format invalid.")
        return self.caller


Call = Callable[[CallRequest], Any]


class ReplaceFailed(OrderRefused):
    """``cancelReplace`` did not complete; ``data`` reports both halves."""

    def __init__(self, number: int, message: str, data: dict[str, Any]) -> None:
        super().__init__("replace_failed", message)
        self.number = number
        self.data = data


def refusal(error: OrderRefused) -> tuple[int, dict[str, Any]]:
    """HTTP status and error in Binance's format."""
    if isinstance(error, ReplaceFailed):
        return (409 if error.number == HALF_DONE else 400), {"code": error.number, "msg": str(error), "data": error.data}
    return (401 if error.code == "not_authenticated" else 400), formats.refused(error)


def ping(_request: CallRequest) -> dict[str, Any]:
    return {}


def time(request: CallRequest) -> dict[str, Any]:
    return {"serverTime": request.now_ms}


def exchange_info(request: CallRequest) -> dict[str, Any]:
    chosen = request.parameters.markets() or MARKETS.values()
    weight = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}
    rest = {"rateLimits": [weight], "exchangeFilters": [], "symbols": [formats.symbol_info(market) for market in chosen]}
    return {"timezone": "UTC", "serverTime": request.now_ms, **rest}


def no_markets(request: CallRequest) -> dict[str, Any]:
    """``exchangeInfo`` of futures, which clients request by default: there are none."""
    return {"timezone": "UTC", "serverTime": request.now_ms, "rateLimits": [], "exchangeFilters": [], "symbols": [], "assets": []}


def nothing(_request: CallRequest) -> list[Any]:
    """An empty list, for features that this exchange does not have."""
    return []


def day(request: CallRequest) -> Any:
    return _one_or_all(request, lambda market: day_of(request.exchange, market, request.now_ms))


def day_of(exchange: Exchange, market: Market, now_ms: int) -> dict[str, Any]:
    """A market's last 24 hours, with its last trade."""
    return formats.day(exchange.books[market], now_ms, exchange.trades(market)[-1])


def price(request: CallRequest) -> Any:
    books = request.exchange.books
    return _one_or_all(request, lambda market: {"symbol": formats.name(market), "price": text(books[market].quote.last)})


def average_price(request: CallRequest) -> dict[str, Any]:
    last = request.exchange.books[request.parameters.market()].quote
    return {"mins": 0, "price": text(last.last), "closeTime": last.time_ms}


def book_ticker(request: CallRequest) -> Any:
    return _one_or_all(request, lambda market: formats.book_ticker(request.exchange.books[market]))


def depth(request: CallRequest) -> dict[str, Any]:
    return formats.depth(request.exchange.books[request.parameters.market()], request.parameters.limit(100, _MAX_DEPTH))


def trades(request: CallRequest) -> list[dict[str, Any]]:
    found = request.exchange.trades(request.parameters.market())
    return [formats.trade(trade) for trade in list(found)[-request.parameters.limit(500, _MAX_LISTED) :]]


def aggregate_trades(request: CallRequest) -> list[dict[str, Any]]:
    """From ``fromId`` or ``startTime`` on, oldest first; without either, the most recent."""
    found = request.exchange.trades(request.parameters.market())
    return [formats.aggregate(each) for each in _chosen(request, found, "fromId", lambda each: (each.number, each.time_ms))]


def klines(request: CallRequest) -> list[list[Any]]:
    """Candles from ``startTime`` on; without it, the last ones before ``endTime``."""
    parameters, market = request.parameters, request.parameters.market()
    length = INTERVALS[parameters.choice("interval", "invalid_interval", tuple(INTERVALS))]
    limit = parameters.limit(500, _MAX_LISTED)
    last = opening(min(parameters.number("endTime", request.now_ms), request.now_ms), length)
    since = parameters.number("startTime", -1)
    first = last - (limit - 1) * length if since < 0 else opening(since + length - 1, length)
    opened = range(max(first, opening(length, length)), last + 1, length)[:limit]
    return [formats.kline(request.exchange.candle(market, at, length, request.now_ms)) for at in opened]


def opening(moment_ms: int, length_ms: int) -> int:
    """Opening time of the candle that contains this moment."""
    shift = _MONDAY_MS if length_ms == INTERVALS["1w"] else 0
    return (moment_ms - shift) // length_ms * length_ms + shift


def account(request: CallRequest) -> dict[str, Any]:
    empty_too = request.parameters.text("omitZeroBalances") != "true"
    return formats.account(request.account, request.now_ms, all_of_them=empty_too) | {"uid": 1}


def user_assets(request: CallRequest) -> list[dict[str, Any]]:
    return formats.user_assets(request.account)


def coins(request: CallRequest) -> list[dict[str, Any]]:
    return [formats.coin(currency, held) for currency, held in request.account.balances.items()]


def trade_fees(request: CallRequest) -> list[dict[str, Any]]:
    chosen = request.parameters.markets() or MARKETS.values()
    return [{"symbol": formats.name(market), "makerCommission": "0", "takerCommission": "0"} for market in chosen]


def commission(request: CallRequest) -> dict[str, Any]:
    rates = dict.fromkeys(("maker", "taker", "buyer", "seller"), "0")
    discount = {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0"}
    return {"symbol": formats.name(request.parameters.market()), "standardCommission": rates, "taxCommission": rates, "discount": discount}


def order(request: CallRequest) -> dict[str, Any]:
    return formats.order(_find(request))


def place(request: CallRequest) -> dict[str, Any]:
    requested, form = _order_request(request.parameters)
    made, fills = request.exchange.place(request.account, requested, request.now_ms)
    return formats.placed(made, fills, form)


def test(request: CallRequest) -> dict[str, Any]:
    requested, _ = _order_request(request.parameters)
    request.exchange.test(request.account, requested, request.now_ms)
    if request.parameters.text("computeCommissionRates") != "true":
        return {}
    rates = {"maker": "0", "taker": "0"}
    return {"standardCommissionForOrder": rates, "taxCommissionForOrder": rates}


def cancel(request: CallRequest) -> dict[str, Any]:
    return _cancel(request, request.parameters.client_id("newClientOrderId"))


def _cancel(request: CallRequest, cancel_id: str, *names: str) -> dict[str, Any]:
    try:
        return formats.cancelled(request.exchange.cancel(request.account, _find(request, *names), request.now_ms, cancel_id=cancel_id))
    except OrderRefused as error:
        if error.code != "order_not_found":
            raise
        # Binance answers the same for every order that cannot be cancelled.
        raise OrderRefused("order_not_open", str(error)) from None


def cancel_all(request: CallRequest) -> list[dict[str, Any]]:
    market = request.parameters.market()
    found = [each for each in request.account.open_orders() if each.market is market]
    if not found:
        raise OrderRefused("order_not_open", "there is no open order")
    return [formats.cancelled(request.exchange.cancel(request.account, each, request.now_ms)) for each in found]


def cancel_replace(request: CallRequest) -> dict[str, Any]:
    """Cancel one order and place another; the mode decides whether the second is attempted when the first fails."""
    mode = request.parameters.choice("cancelReplaceMode", "invalid_parameter", ("STOP_ON_FAILURE", "ALLOW_FAILURE"))
    requested, form = _order_request(request.parameters)
    data: dict[str, Any] = {"cancelResult": "SUCCESS", "newOrderResult": "NOT_ATTEMPTED", "cancelResponse": None, "newOrderResponse": None}
    try:
        cancelling = request.parameters.client_id("cancelNewClientOrderId")
        data["cancelResponse"] = _cancel(request, cancelling, "cancelOrderId", "cancelOrigClientOrderId")
    except OrderRefused as error:
        data |= {"cancelResult": "FAILURE", "cancelResponse": formats.refused(error)}
    if data["cancelResult"] == "SUCCESS" or mode == "ALLOW_FAILURE":
        try:
            made, fills = request.exchange.place(request.account, requested, request.now_ms)
            data |= {"newOrderResult": "SUCCESS", "newOrderResponse": formats.placed(made, fills, form)}
        except OrderRefused as error:
            data |= {"newOrderResult": "FAILURE", "newOrderResponse": formats.refused(error)}
    results = {data["cancelResult"], data["newOrderResult"]}
    if results == {"SUCCESS"}:
        return data
    if "SUCCESS" in results:
        raise ReplaceFailed(HALF_DONE, "Order cancel-replace partially failed.", data)
    raise ReplaceFailed(-2022, "Order cancel-replace failed.", data)


def open_orders(request: CallRequest) -> list[dict[str, Any]]:
    market = request.parameters.market() if request.parameters.text("symbol") else None
    return [formats.order(each) for each in request.account.open_orders() if market in (None, each.market)]


def all_orders(request: CallRequest) -> list[dict[str, Any]]:
    market = request.parameters.market()
    matching = (each for each in request.account.orders.values() if each.market is market)
    return [formats.order(each) for each in _chosen(request, matching, "orderId", lambda each: (each.number, each.created_ms))]


def own_trades(request: CallRequest) -> list[dict[str, Any]]:
    market, number = request.parameters.market(), request.parameters.number("orderId", -1)
    matching = (each for each in request.account.fills if each.order.market is market and number in (-1, each.order.number))
    return [formats.own_trade(each) for each in _chosen(request, matching, "fromId", lambda each: (each.trade, each.time_ms))]


def _chosen(request: CallRequest, items: Iterable[T], first_name: str, place_of: Callable[[T], tuple[int, int]]) -> list[T]:
    """Filter by first number and time; the oldest matches when a start is given, else the most recent."""
    parameters = request.parameters
    first, since = parameters.number(first_name, -1), parameters.number("startTime", -1)
    until = parameters.number("endTime", request.now_ms)
    placed = [(each, place_of(each)) for each in items]
    found = [each for each, (number, at_ms) in placed if number >= first and since <= at_ms <= until]
    limit = parameters.limit(500, _MAX_LISTED)
    return found[:limit] if max(first, since) >= 0 else found[-limit:]


def _one_or_all(request: CallRequest, answer_for: Callable[[Market], dict[str, Any]]) -> Any:
    chosen = request.parameters.markets()
    if chosen is not None and request.parameters.text("symbol"):
        return answer_for(chosen[0])
    return [answer_for(market) for market in chosen or MARKETS.values()]


def _order_request(parameters: Parameters) -> tuple[OrderRequest, str]:
    """The requested order, and the form of the answer.

    :raises OrderRefused: a parameter is missing, unknown or not allowed
    """
    market = parameters.market()
    side = parameters.choice("side", "invalid_side", ("BUY", "SELL"))
    kind = parameters.choice("type", "invalid_type", ("LIMIT", "MARKET", "LIMIT_MAKER"))
    form = parameters.choice("newOrderRespType", "invalid_parameter", _FORMS, "ACK" if kind == "LIMIT_MAKER" else "FULL")
    quantity, spend = parameters.amount("quantity", "invalid_quantity"), parameters.amount("quoteOrderQty", "invalid_quantity")
    if kind != "MARKET" or spend is None:
        parameters.needed("quantity")
    if spend is not None and (kind != "MARKET" or quantity is not None):
        raise OrderRefused("extra_parameter", "Parameter 'quoteOrderQty' sent when not required.")
    in_force: TimeInForce = "gtc"
    if kind == "LIMIT":
        in_force = _TIMES_IN_FORCE[parameters.choice("timeInForce", "invalid_time_in_force", tuple(_TIMES_IN_FORCE), "GTC")]
    elif kind == "LIMIT_MAKER":
        in_force = "post_only"
    elif parameters.text("price"):
        raise OrderRefused("extra_parameter", "Parameter 'price' sent when not required.")
    if kind != "MARKET":
        parameters.needed("price")
    return OrderRequest(
        market,
        "buy" if side == "BUY" else "sell",
        "market" if kind == "MARKET" else "limit",
        quantity,
        parameters.amount("price", "invalid_price"),
        spend,
        in_force,
        parameters.client_id("newClientOrderId"),
    ), form


def _find(request: CallRequest, by_number: str = "orderId", by_client_id: str = "origClientOrderId") -> Order:
    """:raises OrderRefused: the account has no such order in this market"""
    market, own = request.parameters.market(), request.parameters.text(by_client_id)
    if own:
        found = [each for each in request.account.orders.values() if formats.client_id(each) == own]
        made = found[-1] if found else request.account.find(-1)
    elif request.parameters.text(by_number):
        made = request.account.find(request.parameters.number(by_number, -1))
    else:
        raise OrderRefused("missing_parameter", f"Param '{by_client_id}' or '{by_number}' must be sent, but both were empty/null!")
    return made if made.market is market else request.account.find(-1)
