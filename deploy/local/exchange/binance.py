"""Binance-like paths over the same accounts: the calls that ccxt's class ``binance`` and its kin make for spot trading.

Source: Binance's "Spot API" documentation, REST: parameters in the query or in a form body, amounts as text, refusals as
``{"code": negative number, "msg": text}`` with status 400.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from deploy.local.exchange.account import Account, Order, OrderRefused, text
from deploy.local.exchange.market import DAY_MS, MARKETS, Market, summary
from deploy.local.exchange.state import Exchange, decimal, now_quote
from gateway.runtime import clock

_BY_SYMBOL = {market.base + market.quote: market for market in MARKETS.values()}
_REFUSALS = {
    "unknown_symbol": (-1121, "Invalid symbol."),
    "order_not_found": (-2013, "Order does not exist."),
    "order_not_open": (-2011, "Unknown order sent."),
    "insufficient_balance": (-2010, "Account has insufficient balance for requested action."),
    "duplicate_order": (-2010, "Duplicate order sent."),
    "too_many_open_orders": (-2010, "Too many open orders."),
    "invalid_price": (-1013, "Filter failure: PRICE_FILTER"),
    "invalid_quantity": (-1013, "Filter failure: LOT_SIZE"),
    "order_too_small": (-1013, "Filter failure: NOTIONAL"),
}
_STATUS = {"open": "NEW", "filled": "FILLED", "cancelled": "CANCELED"}
_MAX_LISTED = 500
_DEPTH = 20


class BinanceRoutes:
    """Handlers over one :class:`Exchange`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v3/ping", self.ping),
            web.get("/api/v3/time", self.time),
            web.get("/api/v3/exchangeInfo", self.exchange_info),
            web.get("/api/v3/ticker/24hr", self.day),
            web.get("/api/v3/ticker/price", self.price),
            web.get("/api/v3/ticker/bookTicker", self.book_ticker),
            web.get("/api/v3/depth", self.depth),
            web.get("/api/v3/account", self.account),
            web.get("/api/v3/order", self.order),
            web.post("/api/v3/order", self.place),
            web.delete("/api/v3/order", self.cancel),
            web.get("/api/v3/openOrders", self.open_orders),
            web.get("/api/v3/allOrders", self.all_orders),
            web.get("/api/v3/myTrades", self.my_trades),
        ]

    async def ping(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def time(self, _request: web.Request) -> web.Response:
        return web.json_response({"serverTime": clock.now_ms()})

    async def exchange_info(self, _request: web.Request) -> web.Response:
        symbols = [_symbol_info(market) for market in MARKETS.values()]
        return web.json_response(
            {"timezone": "UTC", "serverTime": clock.now_ms(), "rateLimits": [], "exchangeFilters": [], "symbols": symbols}
        )

    async def day(self, request: web.Request) -> web.Response:
        return _one_or_all(request, _day)

    async def price(self, request: web.Request) -> web.Response:
        return _one_or_all(request, lambda market: {"symbol": _name(market), "price": text(now_quote(market).last)})

    async def book_ticker(self, request: web.Request) -> web.Response:
        return _one_or_all(request, _book)

    async def depth(self, request: web.Request) -> web.Response:
        market = _market(request.query.get("symbol"))
        now = now_quote(market)
        levels = range(_DEPTH)
        return web.json_response(
            {
                "lastUpdateId": now.time_ms,
                "bids": [[text(now.bid - level * market.tick), _amount(market)] for level in levels],
                "asks": [[text(now.ask + level * market.tick), _amount(market)] for level in levels],
            }
        )

    async def account(self, request: web.Request) -> web.Response:
        balances = self._exchange.account(request).balances.items()
        listed = [{"asset": name, "free": text(held.available), "locked": text(held.locked)} for name, held in balances]
        rest = {"accountType": "SPOT", "canTrade": True, "canWithdraw": False, "canDeposit": False, "permissions": ["SPOT"]}
        return web.json_response({"makerCommission": 0, "takerCommission": 0, "updateTime": clock.now_ms(), **rest, "balances": listed})

    async def order(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        return web.json_response(_order(_find(account, await _parameters(request))))

    async def place(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        asked = await _parameters(request)
        market = _market(asked.get("symbol"))
        side, kind = _choice(asked, "side", "BUY", "SELL"), _choice(asked, "type", "LIMIT", "MARKET")
        order = self._exchange.place(
            account,
            market,
            side=side.lower(),
            kind=kind.lower(),
            quantity=decimal(_needed(asked, "quantity"), "invalid_quantity"),
            price=decimal(_needed(asked, "price"), "invalid_price") if kind == "LIMIT" else None,
            client_id=asked.get("newClientOrderId", "")[:64],
        )
        return web.json_response(_order(order) | {"transactTime": order.created_ms, "fills": list(_fills(order))})

    async def cancel(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        asked = await _parameters(request)
        try:
            order = account.cancel(_find(account, asked).number, clock.now_ms())
        except OrderRefused as error:
            # Of an order that cannot be cancelled Binance says one thing, whatever the reason.
            raise OrderRefused("order_not_open", str(error)) from None
        own = asked.get("newClientOrderId") or f"cancel-{order.number}"
        return web.json_response(_order(order) | {"origClientOrderId": _client_id(order), "clientOrderId": own})

    async def open_orders(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        return web.json_response([_order(order) for order in _chosen(account, request.query.get("symbol")) if order.status == "open"])

    async def all_orders(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        return web.json_response([_order(order) for order in _chosen(account, _needed(dict(request.query), "symbol"))][-_MAX_LISTED:])

    async def my_trades(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        filled = (order for order in _chosen(account, _needed(dict(request.query), "symbol")) if order.status == "filled")
        return web.json_response([_trade(order) for order in filled][-_MAX_LISTED:])


def refusal(error: OrderRefused) -> web.Response:
    """An order's refusal as Binance tells it."""
    code, message = _REFUSALS.get(error.code, (-1100, str(error)))
    return web.json_response({"code": code, "msg": message}, status=400)


async def _parameters(request: web.Request) -> dict[str, str]:
    """Query and form body together; a name that comes twice is refused.

    :raises OrderRefused: told with Binance's code for it
    """
    pairs = [*request.query.items(), *parse_qsl((await request.read()).decode(errors="replace"), keep_blank_values=True)]
    asked = dict(pairs)
    if len(asked) != len(pairs):
        raise OrderRefused("duplicate_parameter", "Duplicate values for a parameter detected.")
    return asked


def _needed(asked: dict[str, str], name: str) -> str:
    if not asked.get(name):
        raise OrderRefused("missing_parameter", f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return asked[name]


def _choice(asked: dict[str, str], name: str, *choices: str) -> str:
    if _needed(asked, name) not in choices:
        raise OrderRefused("invalid_parameter", f"Invalid {name}.")
    return asked[name]


def _market(symbol: str | None) -> Market:
    if symbol in _BY_SYMBOL:
        return _BY_SYMBOL[symbol]
    raise OrderRefused("unknown_symbol", "there is no such symbol")


def _name(market: Market) -> str:
    return market.base + market.quote


def _one_or_all(request: web.Request, told: Any) -> web.Response:
    symbol = request.query.get("symbol")
    if symbol is not None:
        return web.json_response(told(_market(symbol)))
    return web.json_response([told(market) for market in MARKETS.values()])


def _chosen(account: Account, symbol: str | None) -> Iterator[Order]:
    market = None if symbol is None else _market(symbol)
    return (order for order in account.orders.values() if market in (None, order.market))


def _find(account: Account, asked: dict[str, str]) -> Order:
    market = _market(asked.get("symbol"))
    number, client_id = asked.get("orderId", ""), asked.get("origClientOrderId")
    if client_id:
        found = [order for order in account.orders.values() if _client_id(order) == client_id]
        order = found[-1] if found else account.find(-1)
    else:
        order = account.find(int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1)
    return order if order.market is market else account.find(-1)


def _client_id(order: Order) -> str:
    return order.client_id or f"order-{order.number}"


def _order(order: Order) -> dict[str, Any]:
    return {
        "symbol": _name(order.market),
        "orderId": order.number,
        "orderListId": -1,
        "clientOrderId": _client_id(order),
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(order.filled),
        "cummulativeQuoteQty": text(order.filled * (order.fill_price or 0)),
        "status": _STATUS[order.status],
        "timeInForce": "GTC",
        "type": order.kind.upper(),
        "side": order.side.upper(),
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.status == "open",
    }


def _fills(order: Order) -> Iterator[dict[str, Any]]:
    if order.fill_price is not None:
        fee = {"commission": "0", "commissionAsset": order.market.quote}
        yield {"price": text(order.fill_price), "qty": text(order.quantity), **fee, "tradeId": order.number}


def _trade(order: Order) -> dict[str, Any]:
    price = order.fill_price or Decimal(0)
    return {
        "symbol": _name(order.market),
        "id": order.number,
        "orderId": order.number,
        "price": text(price),
        "qty": text(order.quantity),
        "quoteQty": text(price * order.quantity),
        "commission": "0",
        "commissionAsset": order.market.quote,
        "time": order.updated_ms,
        "isBuyer": order.side == "buy",
        "isMaker": order.updated_ms != order.created_ms,
        "isBestMatch": True,
    }


def _symbol_info(market: Market) -> dict[str, Any]:
    digits = {"baseAssetPrecision": 8, "quotePrecision": 8, "quoteAssetPrecision": 8}
    return {
        "symbol": _name(market),
        "status": "TRADING",
        "baseAsset": market.base,
        "quoteAsset": market.quote,
        **digits,
        "orderTypes": ["LIMIT", "MARKET"],
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": text(market.tick), "maxPrice": "1000000000000", "tickSize": text(market.tick)},
            {"filterType": "LOT_SIZE", "minQty": text(market.lot), "maxQty": "1000000000", "stepSize": text(market.lot)},
            {"filterType": "NOTIONAL", "minNotional": text(market.least), "applyMinToMarket": True, "maxNotional": "1000000000000"},
        ],
    }


def _day(market: Market) -> dict[str, Any]:
    now, day = now_quote(market), summary(market, clock.now_ms())
    change = now.last - day.opened
    return {
        **_book(market),
        "lastPrice": text(now.last),
        "openPrice": text(day.opened),
        "prevClosePrice": text(day.opened),
        "highPrice": text(day.high),
        "lowPrice": text(day.low),
        "priceChange": text(change),
        "priceChangePercent": text((change / day.opened * 100).quantize(Decimal("0.001"))),
        "weightedAvgPrice": text((day.high + day.low) / 2),
        "lastQty": _amount(market),
        "volume": text(day.volume),
        "quoteVolume": text((day.volume * now.last).quantize(Decimal(1))),
        "openTime": now.time_ms - DAY_MS,
        "closeTime": now.time_ms,
        "firstId": 1,
        "lastId": day.trades,
        "count": day.trades,
    }


def _book(market: Market) -> dict[str, Any]:
    now = now_quote(market)
    amount = _amount(market)
    return {"symbol": _name(market), "bidPrice": text(now.bid), "bidQty": amount, "askPrice": text(now.ask), "askQty": amount}


def _amount(market: Market) -> str:
    """How much stands at one price: the demo's book is as deep everywhere."""
    return text((market.least * 1000 / market.price).quantize(market.lot))
