"""The demo exchange as an aiohttp application: who may ask, the paths, the stream, health."""

import argparse
import contextlib
from collections.abc import Awaitable, Callable
from typing import cast

from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Middleware

from deploy.local.exchange import binance, mobee
from deploy.local.exchange.account import OrderRefused, text
from deploy.local.exchange.market import MARKETS, STEP_MS
from deploy.local.exchange.state import Exchange, now_quote
from gateway.assertion import require_assertion

AUDIENCE = "spot"
"""This service's name among the gateway's upstreams."""
_PUBLIC = (
    "/v1/markets/",
    "/v1/stream/",
    "/api/v3/ping",
    "/api/v3/time",
    "/api/v3/exchangeInfo",
    "/api/v3/ticker",
    "/api/v3/depth",
)
_SOCKETS = web.AppKey("sockets", list[web.WebSocketResponse])

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(jwks_url: str) -> web.Application:
    """:param jwks_url: the gateway's public keys; whoever brings no assertion signed by them gets 401"""
    gate_only = require_assertion(jwks_url, expected_audience=AUDIENCE, public=_is_public, exempt=_is_health)
    app = web.Application(middlewares=[cast("Middleware", gate_only), _refusals])
    exchange = Exchange()
    app[_SOCKETS] = []
    app.add_routes([web.get("/health", _health), web.get("/v1/stream/tickers", _stream)])
    app.add_routes([*mobee.MobeeRoutes(exchange).routes(), *binance.BinanceRoutes(exchange).routes()])
    app.on_shutdown.append(_close_streams)
    return app


def _is_health(request: web.Request) -> bool:
    return request.path == "/health"


def _is_public(request: web.Request) -> bool:
    return request.path.startswith(_PUBLIC)


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OrderRefused as error:
        return binance.refusal(error) if request.path.startswith("/api/v3/") else mobee.refusal(error)


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _stream(request: web.Request) -> web.WebSocketResponse:
    """A WebSocket that tells every market's price each time it moves."""
    stream = web.WebSocketResponse(heartbeat=20)
    await stream.prepare(request)
    request.app[_SOCKETS].append(stream)
    with contextlib.suppress(ConnectionError):
        while not stream.closed:
            for market in MARKETS.values():
                now = now_quote(market)
                told = {"symbol": market.symbol, "last_price": text(now.last), "bid": text(now.bid), "ask": text(now.ask)}
                await stream.send_json(told | {"time_ms": now.time_ms})
            with contextlib.suppress(TimeoutError):
                await stream.receive(timeout=STEP_MS / 1000)  # what a listener says is of no interest, only that it leaves
    request.app[_SOCKETS].remove(stream)
    return stream


async def _close_streams(app: web.Application) -> None:
    streams: list[web.WebSocketResponse] = app[_SOCKETS]
    for stream in tuple(streams):
        with contextlib.suppress(ConnectionError):
            await stream.close(code=WSCloseCode.GOING_AWAY)


def main() -> None:
    parser = argparse.ArgumentParser(description="The demo exchange of `gerbang up`.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--jwks", required=True, help="URL of the gateway's public keys")
    options = parser.parse_args()
    web.run_app(application(options.jwks), host="127.0.0.1", port=options.port, print=None, access_log=None, shutdown_timeout=2)


if __name__ == "__main__":
    main()
