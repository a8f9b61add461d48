"""Mobee-like paths: markets for everybody, wallets and orders for whom the gate vouches for."""

from decimal import Decimal
from typing import Any

from aiohttp import web

from deploy.local.exchange.account import Account, Order, OrderRefused, text
from deploy.local.exchange.market import MARKETS, Market, summary
from deploy.local.exchange.state import Exchange, decimal, json_object, market_named, now_quote
from gateway.runtime import clock

_STATUS = {"order_not_found": 404, "unknown_symbol": 404, "order_not_open": 409, "duplicate_order": 409, "invalid_json": 400}
_MEMBERS = {"symbol", "side", "type", "price", "quantity", "client_order_id"}
_MAX_LISTED = 500


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
        return web.json_response({"markets": [_market(market) for market in MARKETS.values()]})

    async def one_market(self, request: web.Request) -> web.Response:
        return web.json_response(_market(market_named(request.match_info["symbol"])))

    async def bid_ask(self, request: web.Request) -> web.Response:
        market = market_named(request.match_info["symbol"])
        now = now_quote(market)
        return web.json_response({"symbol": market.symbol, "bid": text(now.bid), "ask": text(now.ask), "time_ms": now.time_ms})

    async def wallets(self, request: web.Request) -> web.Response:
        balances = self._exchange.account(request).balances.items()
        listed = [{"currency": name, "available": text(held.available), "locked": text(held.locked)} for name, held in balances]
        return web.json_response({"wallets": listed})

    async def orders(self, request: web.Request) -> web.Response:
        """Newest first; ``?symbol=`` and ``?status=open|filled|cancelled`` choose."""
        symbol, status = request.query.get("symbol"), request.query.get("status")
        chosen = [
            order
            for order in self._exchange.account(request).orders.values()
            if symbol in (None, order.market.symbol) and status in (None, order.status)
        ]
        return web.json_response({"orders": [_order(order) for order in reversed(chosen[-_MAX_LISTED:])]})

    async def order(self, request: web.Request) -> web.Response:
        return web.json_response(_order(_find(self._exchange.account(request), request)))

    async def place(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        asked = await json_object(request)
        if unknown := asked.keys() - _MEMBERS:
            raise OrderRefused("unknown_member", f"unknown: {', '.join(sorted(unknown))}")
        side, kind, client_id = asked.get("side"), asked.get("type", "limit"), asked.get("client_order_id", "")
        if side not in ("buy", "sell"):
            raise OrderRefused("invalid_side", "side must be buy or sell")
        if kind not in ("limit", "market"):
            raise OrderRefused("invalid_type", "type must be limit or market")
        if not isinstance(client_id, str) or len(client_id) > 64:
            raise OrderRefused("invalid_client_order_id", "client_order_id must be at most 64 characters")
        order = self._exchange.place(
            account,
            market_named(asked.get("symbol")),
            side=side,
            kind=kind,
            quantity=decimal(asked.get("quantity"), "invalid_quantity"),
            price=None if asked.get("price") is None else decimal(asked["price"], "invalid_price"),
            client_id=client_id,
        )
        return web.json_response(_order(order), status=201)

    async def cancel(self, request: web.Request) -> web.Response:
        account = self._exchange.account(request)
        order = _find(account, request)
        return web.json_response(_order(account.cancel(order.number, clock.now_ms())))


def refusal(error: OrderRefused) -> web.Response:
    """An order's refusal as this API tells it."""
    return web.json_response({"error": {"code": error.code, "message": str(error)}}, status=_STATUS.get(error.code, 422))


def _find(account: Account, request: web.Request) -> Order:
    number = request.match_info["number"]
    return account.find(int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1)


def _market(market: Market) -> dict[str, Any]:
    now, day = now_quote(market), summary(market, clock.now_ms())
    return {
        "symbol": market.symbol,
        "last_price": text(now.last),
        "bid": text(now.bid),
        "ask": text(now.ask),
        "high_24h": text(max(day.high, now.last)),
        "low_24h": text(min(day.low, now.last)),
        "volume_24h": text(day.volume),
        "change_24h_percent": text(((now.last / day.opened - 1) * 100).quantize(Decimal("0.01"))),
        "time_ms": now.time_ms,
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "id": str(order.number),
        "client_order_id": order.client_id or None,
        "symbol": order.market.symbol,
        "side": order.side,
        "type": order.kind,
        "price": text(order.price),
        "quantity": text(order.quantity),
        "filled_quantity": text(order.filled),
        "average_price": None if order.fill_price is None else text(order.fill_price),
        "status": order.status,
        "created_at_ms": order.created_ms,
        "updated_at_ms": order.updated_ms,
    }
