"""A demo exchange that believes :data:`tests.support.gate.KEY`, over HTTP; and one without any I/O, at a price that the test sets."""

from decimal import Decimal

import pytest
from aiohttp import web

from deploy.local.exchange.app import application
from deploy.local.exchange.engine import Exchange
from deploy.local.exchange.feed import Feed
from deploy.local.exchange.market import MARKETS, STEP_MS, Quote
from tests.support.gate import KEY, admitted

NOW_MS = 1_800_000_000_000
BTC = MARKETS["BTC-IDR"]


@pytest.fixture
async def exchange(aiohttp_client, aiohttp_server):
    async def jwks(_request):
        return web.json_response({"keys": [KEY.public_jwk()]})

    ops = web.Application()
    ops.router.add_get("/jwks", jwks)
    server = await aiohttp_server(ops)
    return await aiohttp_client(application(str(server.make_url("/jwks"))))


class Engine(Exchange):
    """The demo exchange's engine with a hand on the price of BTC-IDR."""

    def __init__(self):
        super().__init__(Feed(), NOW_MS)
        self.now_ms = NOW_MS

    def set(self, bid, ask, monkeypatch):
        """Let a step pass in which the market comes to stand there."""
        at = Quote(Decimal(bid + ask) / 2, Decimal(bid), Decimal(ask), NOW_MS)
        monkeypatch.setattr("deploy.local.exchange.engine.quote", lambda market, now_ms: at if market is BTC else _quote(market, now_ms))
        self.now_ms += STEP_MS
        self.advance(self.now_ms)


def _quote(market, now_ms):
    last = market.price
    return Quote(last, last - market.tick, last + market.tick, now_ms)


@pytest.fixture
def engine(monkeypatch):
    """Bid 999 000, ask 1 001 000 IDR for one BTC."""
    engine = Engine()
    engine.set(999_000, 1_001_000, monkeypatch)
    return engine


@pytest.fixture
def move(engine, monkeypatch):
    return lambda bid, ask: engine.set(bid, ask, monkeypatch)


@pytest.fixture
def session(exchange):
    """Opens a WebSocket: ``session("/ws")``; what is said for an account goes as the gate would pass it on."""
    return lambda path: _Session(exchange, path)


class _Session:
    def __init__(self, exchange, path):
        self._opening = exchange.ws_connect(path, headers=admitted(None)["headers"])

    async def __aenter__(self):
        self._socket = await self._opening
        return self

    async def __aexit__(self, *_):
        await self._socket.close()

    async def say(self, message, account=None):
        await self._socket.send_json(({"gateway": admitted(account)["member"]} if account else {}) | message)

    async def hear(self, which=lambda _: True):
        """The first message of these."""
        while not which(message := await self._socket.receive_json(timeout=10)):
            pass
        return message

    async def ask(self, message, account=None):
        await self.say(message, account)
        return await self.hear(lambda heard: "event" not in heard and heard.get("method") != "stream")

    async def send_text(self, text):
        await self._socket.send_str(text)
        return await self.hear()

    @property
    def socket(self):
        return self._socket
