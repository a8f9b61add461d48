"""Mobee's REST paths: public markets, wallets and orders."""

import re
from typing import Any, get_args

from aiohttp import web

from deploy.local.exchange.account import Account
from deploy.local.exchange.amounts import decimal
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.market import MARKETS, Market
from deploy.local.exchange.mobee_like import formats
from deploy.local.exchange.orders import Order, OrderRefused, OrderRequest, Status
from deploy.local.exchange.sockets import json_object
from gateway.assertion import ASSERTED
from gateway.runtime import clock

_HTTP_STATUS = {"order_not_found": 404, "unknown_symbol": 404, "order_not_open": 409, "duplicate_order": 409, "invalid_json": 400}
MEMBERS = {"symbol", "side", "type", "price", "quantity", "client_order_id", "time_in_force"}
_CLIENT_ID = re.compile(r"[\x20-\x7e]{0,64}")
_MAX_LISTED = 500
_STATUSES = get_args(Status)


class MobeeRoutes:
    """Handlers over one :class:`Exchange`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/markets/summary", self.all_markets),
            web.get("/v1/markets/{symbol}/summary", self.one_market),
            web.get("/v1/markets/{symbol}/bid-ask-price", self.bid_ask),
            web.get("/v1/wallets", self.wallets),
            web.get("/v1/orders", self.orders),
            web.get("/v1/orders/{number}", self.order),
            web.post("/v1/orders", self.place),
            web.delete("/v1/orders/{number}", self.cancel),
        ]

    async def all_markets(self, _request: web.Request) -> web.Response:
        now_ms = self._now()
        return _answer({"markets": [formats.market(book, now_ms) for book in self._exchange.books.values()]})

    async def one_market(self, request: web.Request) -> web.Response:
        now_ms = self._now()
        return _answer(formats.market(self._exchange.books[market_named(request.match_info["symbol"])], now_ms))

    async def bid_ask(self, request: web.Request) -> web.Response:
        self._now()
        book = self._exchange.books[market_named(request.match_info["symbol"])]
        best = {"bid": book.best("buy"), "ask": book.best("sell")}
        return _answer({"symbol": book.market.symbol, **best, "time_ms": book.quote.time_ms})

    async def wallets(self, request: web.Request) -> web.Response:
        return _answer({"wallets": formats.wallets(self._account(request))})

    async def orders(self, request: web.Request) -> web.Response:
        """Newest first; ``?symbol=`` and ``?status=open|filled|cancelled|expired`` filter."""
        symbol, status = request.query.get("symbol"), request.query.get("status")
        market = None if symbol is None else market_named(symbol)
        if status not in (None, *_STATUSES):
            raise OrderRefused("invalid_status", f"status must be one of {', '.join(_STATUSES)}")
        orders = self._account(request).orders.values()
        chosen = [order for order in orders if market in (None, order.market) and status in (None, order.status)]
        return _answer({"orders": [formats.order(order) for order in reversed(chosen[-_MAX_LISTED:])]})

    async def order(self, request: web.Request) -> web.Response:
        return _answer(formats.order(_find(self._account(request), request)))

    async def place(self, request: web.Request) -> web.Response:
        asked = json_object(await request.read())
        if asked is None:
            raise OrderRefused("invalid_json", "the body must be a JSON object")
        account, now_ms = self._account(request), clock.now_ms()
        order, _ = self._exchange.place(account, _order_request(asked), now_ms)
        return _answer(formats.order(order), status=201)

    async def cancel(self, request: web.Request) -> web.Response:
        account = self._account(request)
        return _answer(formats.order(self._exchange.cancel(account, _find(account, request), clock.now_ms())))

    def _now(self) -> int:
        now_ms = clock.now_ms()
        self._exchange.advance(now_ms)
        return now_ms

    def _account(self, request: web.Request) -> Account:
        """The account per the gateway's assertion, with orders filled up to the current price."""
        self._now()
        return self._exchange.account(request[ASSERTED].account_id)


def refusal(error: OrderRefused) -> web.Response:
    """A refused order in this API's format."""
    return web.json_response({"error": {"code": error.code, "message": str(error)}}, status=_HTTP_STATUS.get(error.code, 422))


def market_named(symbol: object) -> Market:
    """:raises OrderRefused: there is no such market"""
    if isinstance(symbol, str) and symbol in MARKETS:
        return MARKETS[symbol]
    raise OrderRefused("unknown_symbol", f"there is no such market; there are {', '.join(MARKETS)}")


def _order_request(asked: dict[str, Any]) -> OrderRequest:
    """:raises OrderRefused: a member is missing, unknown or wrong"""
    if unknown := asked.keys() - MEMBERS:
        raise OrderRefused("unknown_member", f"unknown: {', '.join(sorted(unknown))}")
    side, kind, client_id = asked.get("side"), asked.get("type", "limit"), asked.get("client_order_id", "")
    in_force = asked.get("time_in_force", "gtc")
    if side not in ("buy", "sell"):
        raise OrderRefused("invalid_side", "side must be buy or sell")
    if kind not in ("limit", "market"):
        raise OrderRefused("invalid_type", "type must be limit or market")
    if in_force not in ("gtc", "ioc", "fok", "post_only") or (kind == "market" and in_force != "gtc"):
        raise OrderRefused("invalid_time_in_force", "time_in_force of a limit order must be gtc, ioc, fok or post_only")
    if not isinstance(client_id, str) or not _CLIENT_ID.fullmatch(client_id):
        raise OrderRefused("invalid_client_order_id", "client_order_id must be at most 64 printable ASCII characters")
    market = market_named(asked.get("symbol"))
    price = None if asked.get("price") is None else decimal(asked["price"], "invalid_price")
    return OrderRequest(market, side, kind, decimal(asked.get("quantity"), "invalid_quantity"), price, None, in_force, client_id)


def _answer(value: object, status: int = 200) -> web.Response:
    return web.json_response(value, status=status, dumps=formats.as_text)


def _find(account: Account, request: web.Request) -> Order:
    number = request.match_info["number"]
    if not number.isascii() or not number.isdigit() or len(number) > 18:
        raise OrderRefused("order_not_found", "an order is named by its number, the member id of the answer that placed it")
    return account.find(int(number))
