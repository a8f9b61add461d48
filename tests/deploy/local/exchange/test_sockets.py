"""deploy.local.exchange.sockets: what a client may make the exchange hold is bounded, and gone when it leaves."""

import asyncio

import pytest
from aiohttp import WSMsgType

from deploy.local.exchange import sockets
from tests.support.gate import assertion


async def test_a_message_that_is_binary_or_too_large_closes_the_connection(session):
    for send, code in ((lambda ws: ws.send_bytes(b"{}"), 1003), (lambda ws: ws.send_str("x" * (sockets.MAX_MESSAGE_BYTES + 1)), 1009)):
        async with session("/ws-api/v3") as api:
            await send(api.socket)
            closed = await api.socket.receive(timeout=10)
            assert (closed.type, closed.data) == (WSMsgType.CLOSE, code)


async def test_whoever_does_not_read_loses_the_connection_and_nobody_else_does(session, monkeypatch):
    monkeypatch.setattr(sockets, "MAX_WAITING_CHARACTERS", 20_000)
    async with session("/ws-api/v3") as slow, session("/ws-api/v3") as other:

        async def ask_for_ever():
            while True:
                await slow.say({"id": 1, "method": "depth", "params": {"symbol": "BTCIDR", "limit": 20}})

        with pytest.raises(ConnectionError):
            await ask_for_ever()
        assert (await other.ask({"id": 2, "method": "ping"}))["status"] == 200


async def test_connections_and_subscriptions_are_counted_and_given_back(session, exchange, monkeypatch):
    monkeypatch.setattr(sockets, "MAX_SOCKETS", 1)
    monkeypatch.setattr(sockets, "MAX_SUBSCRIPTIONS", 2)
    async with session("/stream") as stream:
        refused = await exchange.get("/stream", headers=assertion(None))
        assert refused.status == 503
        answer = await stream.ask({"method": "SUBSCRIBE", "params": ["btcidr@trade", "ethidr@trade", "usdtidr@trade"], "id": 1})
        assert "error" in answer or (await stream.ask({"method": "SUBSCRIBE", "params": ["usdtidr@trade"], "id": 2}))["error"]["code"] == 2
    for _ in range(100):
        if (await exchange.get("/stream", headers=assertion(None))).status != 503:
            break
        await asyncio.sleep(0.02)
    async with session("/stream"):
        pass


async def test_only_what_came_through_the_gate_opens_a_socket(exchange):
    for path in ("/ws", "/ws-api/v3", "/stream", "/ws/btcidr@trade", "/v1/stream/tickers"):
        assert (await exchange.get(path)).status == 401


async def test_a_path_that_only_a_websocket_opens_says_so(exchange):
    for path in ("/ws", "/ws-api/v3", "/stream", "/ws/btcidr@trade", "/v1/stream/tickers"):
        refused = await exchange.get(path, headers=assertion(None))
        assert (refused.status, (await refused.json())["error"]["code"]) == (426, "websocket_required")
