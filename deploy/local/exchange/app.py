"""The demo exchange as an aiohttp application."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Middleware

from deploy.local.exchange.binance_like import rest as binance_rest
from deploy.local.exchange.binance_like.session import ApiSession
from deploy.local.exchange.binance_like.streams import StreamSession as MarketStreams
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.feed import Feed
from deploy.local.exchange.identity import AUDIENCE, ISSUER, Identities
from deploy.local.exchange.market import MARKETS, STEP_MS, Market
from deploy.local.exchange.mobee_like import formats
from deploy.local.exchange.mobee_like import rest as mobee_rest
from deploy.local.exchange.mobee_like.stream import StreamSession as MobeeStream
from deploy.local.exchange.orders import OrderRefused
from deploy.local.exchange.sockets import Session, Socket, Sockets
from gateway.assertion import require_assertion
from gateway.runtime import clock, tasks

_PUBLIC = ("/v1/markets/", "/v1/stream/", "/ws/")
_SOCKETS_PATHS = ("/ws", "/ws-api/v3", "/stream")
"""The handshake is public; each message carries its own assertion."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(jwks_url: str) -> web.Application:
    """:param jwks_url: the gateway's public keys; a request without an assertion signed by one of them gets 401"""
    gate_only = require_assertion(jwks_url, expected_audience=AUDIENCE, expected_issuer=ISSUER, public=_is_public, exempt=_is_health)
    app = web.Application(middlewares=[cast("Middleware", gate_only), _refusals])
    feed = Feed()
    exchange, sockets, identities = Exchange(feed, clock.now_ms()), Sockets(feed), Identities(jwks_url)

    def market_streams(request: web.Request) -> Callable[[Socket], Session]:
        one = request.match_info.get("stream")
        streams = [one] if one is not None else request.query.get("streams", "").split("/")
        return lambda socket: MarketStreams(socket, exchange, combined=one is None, streams=streams)

    def serve(session_for: Callable[[web.Request], Callable[[Socket], Session]]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await sockets.serve(request, session_for(request))

        return handler

    app.add_routes(
        [
            web.get("/health", _health),
            web.get("/v1/stream/tickers", serve(lambda _: lambda socket: _Tickers(socket, exchange))),
            web.get("/ws", serve(lambda _: lambda socket: MobeeStream(socket, exchange, identities))),
            web.get("/ws-api/v3", serve(lambda _: lambda socket: ApiSession(socket, exchange, identities))),
            web.get("/ws/{stream}", serve(market_streams)),
            web.get("/stream", serve(market_streams)),
            *mobee_rest.MobeeRoutes(exchange).routes(),
            *binance_rest.routes(exchange),
        ]
    )
    app.cleanup_ctx.append(lambda _: _moving(exchange))
    app.on_shutdown.append(sockets.close)
    return app


def _is_health(request: web.Request) -> bool:
    return request.path == "/health"


def _is_public(request: web.Request) -> bool:
    path = request.path
    return path.startswith(_PUBLIC) or path in _SOCKETS_PATHS or path in binance_rest.PUBLIC_PATHS


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except OrderRefused as error:
        return mobee_rest.refusal(error)


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _moving(exchange: Exchange) -> AsyncIterator[None]:
    """Advance the price continuously, so that orders are filled without any request."""

    async def move() -> None:
        while True:
            now_ms = clock.now_ms()
            exchange.advance(now_ms)
            await asyncio.sleep((STEP_MS - now_ms % STEP_MS) / 1000)

    mover = tasks.spawn(move(), name="price")
    yield
    await tasks.cancel(mover)


class _Tickers(Session):
    """``/v1/stream/tickers``: every market's price whenever it moves. Received messages are ignored."""

    def __init__(self, socket: Socket, exchange: Exchange) -> None:
        super().__init__(socket)
        self._exchange = exchange

    def opened(self) -> None:
        for market in MARKETS.values():
            self._send(market)
            self.socket.listen(("price", market.symbol), "ticker", self._send)

    async def received(self, text: str) -> None:
        del text

    def _send(self, market: Market) -> None:
        book = self._exchange.books[market]
        ticker: dict[str, Any] = {"symbol": market.symbol, "last_price": book.quote.last, "bid": book.best("buy"), "ask": book.best("sell")}
        self.socket.send(ticker | {"time_ms": book.quote.time_ms}, formats.as_text)


def main() -> None:
    parser = argparse.ArgumentParser(description="The demo exchange of `gerbang up`.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--jwks", required=True, help="URL of the gateway's public keys")
    options = parser.parse_args()
    web.run_app(application(options.jwks), host="127.0.0.1", port=options.port, print=None, access_log=None, shutdown_timeout=2)


if __name__ == "__main__":
    main()
