"""Binance's REST paths."""

import json

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web import Request, Response

from deploy.local.exchange.binance_like import calls
from deploy.local.exchange.binance_like.calls import Call, CallRequest
from deploy.local.exchange.binance_like.parameters import Parameters
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.orders import OrderRefused
from gateway.assertion import ASSERTED
from gateway.runtime import clock

_PUBLIC: dict[str, Call] = {
    "GET /api/v3/ping": calls.ping,
    "GET /api/v3/time": calls.time,
    "GET /api/v3/exchangeInfo": calls.exchange_info,
    "GET /api/v3/ticker/24hr": calls.day,
    "GET /api/v3/ticker/price": calls.price,
    "GET /api/v3/ticker/bookTicker": calls.book_ticker,
    "GET /api/v3/avgPrice": calls.average_price,
    "GET /api/v3/depth": calls.depth,
    "GET /api/v3/trades": calls.trades,
    "GET /api/v3/aggTrades": calls.aggregate_trades,
    "GET /api/v3/klines": calls.klines,
    "GET /api/v3/uiKlines": calls.klines,
    "GET /sapi/v1/margin/allAssets": calls.nothing,
    "GET /sapi/v1/margin/allPairs": calls.nothing,
    "GET /sapi/v1/margin/isolated/allPairs": calls.nothing,
    "GET /fapi/v1/exchangeInfo": calls.no_markets,
    "GET /dapi/v1/exchangeInfo": calls.no_markets,
}
_OF_AN_ACCOUNT: dict[str, Call] = {
    "GET /api/v3/account": calls.account,
    "GET /api/v3/account/commission": calls.commission,
    "GET /api/v3/order": calls.order,
    "POST /api/v3/order": calls.place,
    "DELETE /api/v3/order": calls.cancel,
    "POST /api/v3/order/test": calls.test,
    "POST /api/v3/order/cancelReplace": calls.cancel_replace,
    "GET /api/v3/openOrders": calls.open_orders,
    "DELETE /api/v3/openOrders": calls.cancel_all,
    "GET /api/v3/allOrders": calls.all_orders,
    "GET /api/v3/myTrades": calls.own_trades,
    "GET /sapi/v1/capital/config/getall": calls.coins,
    "GET /sapi/v1/asset/tradeFee": calls.trade_fees,
    "POST /sapi/v1/asset/get-funding-asset": calls.nothing,
    "POST /sapi/v1/asset/getUserAsset": calls.user_assets,
    "POST /sapi/v3/asset/getUserAsset": calls.user_assets,
}
PUBLIC_PATHS = frozenset(route.partition(" ")[2] for route in _PUBLIC)


def routes(exchange: Exchange) -> list[web.RouteDef]:
    """All routes."""
    return [
        web.route(method, path, _handler(exchange, call, public=public))
        for table, public in ((_PUBLIC, True), (_OF_AN_ACCOUNT, False))
        for (method, _, path), call in ((route.partition(" "), call) for route, call in table.items())
    ]


def _handler(exchange: Exchange, call: Call, *, public: bool) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            parameters = Parameters.of_request(list(request.query.items()), await request.read())
            now_ms = clock.now_ms()
            exchange.advance(now_ms)
            account = None if public else exchange.account(request[ASSERTED].account_id)
            return web.json_response(call(CallRequest(exchange, account, parameters, now_ms)), dumps=_short)
        except OrderRefused as error:
            status, error_body = calls.refusal(error)
            return web.json_response(error_body, status=status, dumps=_short)

    return answer


def _short(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
