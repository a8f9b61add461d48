"""deploy.local.exchange.app: it believes the gate's assertion and nothing else, and its errors say what is wrong."""

from decimal import Decimal

import pytest

from gateway.assertion import SigningKey
from tests.support.gate import assertion

ORDER = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}


async def test_an_order_is_placed_listed_and_cancelled(exchange):
    placed = await exchange.post("/v1/orders", json=ORDER, headers=assertion())
    order = await placed.json()
    assert (placed.status, order["status"]) == (201, "open")
    listed = await (await exchange.get("/v1/orders?status=open", headers=assertion())).json()
    assert [each["id"] for each in listed["orders"]] == [order["id"]]
    shown = await (await exchange.get(f"/v1/orders/{order['id']}", headers=assertion())).json()
    assert shown == order
    cancelled = await exchange.delete(f"/v1/orders/{order['id']}", headers=assertion())
    assert (cancelled.status, (await cancelled.json())["status"]) == (200, "cancelled")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("?status=new", 422, "invalid_status"),
        ("?symbol=BTCIDR", 404, "unknown_symbol"),
        ("?symbol=%C3%A9", 404, "unknown_symbol"),
        ("/abc", 404, "order_not_found"),
        ("/1", 404, "order_not_found"),
    ],
)
async def test_a_filter_that_nothing_can_match_is_no_empty_list(exchange, path, status, code):
    """A bot that misspells one would take it for "nothing is open"."""
    refused = await exchange.get(f"/v1/orders{path}", headers=assertion())
    error = (await refused.json())["error"]
    assert (refused.status, error["code"]) == (status, code)
    assert "-1" not in error["message"]


async def test_a_market_order_is_filled_and_moves_the_balances(exchange):
    order = {"symbol": "ETH-IDR", "side": "sell", "type": "market", "quantity": "2"}
    filled = await (await exchange.post("/v1/orders", json=order, headers=assertion())).json()
    assert (filled["status"], filled["filled_quantity"]) == ("filled", "2")
    wallets = (await (await exchange.get("/v1/wallets", headers=assertion())).json())["wallets"]
    available = {wallet["currency"]: Decimal(wallet["available"]) for wallet in wallets}
    assert available["ETH"] == 8
    assert available["IDR"] == 1_000_000_000 + 2 * Decimal(filled["average_price"])


async def test_each_account_sees_its_own_orders_only(exchange):
    order = await (await exchange.post("/v1/orders", json=ORDER, headers=assertion("budi"))).json()
    assert (await exchange.get(f"/v1/orders/{order['id']}", headers=assertion("siti"))).status == 404
    assert (await exchange.delete(f"/v1/orders/{order['id']}", headers=assertion("siti"))).status == 404
    assert (await (await exchange.get("/v1/orders", headers=assertion("siti"))).json())["orders"] == []


@pytest.mark.parametrize("path", ["/v1/markets/summary", "/v1/markets/BTC-IDR/summary", "/v1/markets/BTC-IDR/bid-ask-price"])
async def test_market_data_is_for_whoever_comes_through_the_gate_even_nobody(exchange, path):
    assert (await exchange.get(path, headers=assertion(account=None))).status == 200
    assert (await exchange.get(path)).status == 401


async def test_health_is_told_to_everybody(exchange):
    assert (await exchange.get("/health")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Account-Id": "budi", "X-Key-Scopes": "read trade"},
        {"X-Gateway-Assertion": "made.up.text"},
        assertion(audience="other"),
        assertion(issuer="other"),
        assertion(key=SigningKey.new(0)),
        assertion(account=None),
    ],
)
async def test_who_did_not_come_through_the_gate_is_refused(exchange, headers):
    for path in ("/v1/wallets", "/v1/orders", "/v1/orders/1"):
        assert (await exchange.get(path, headers=headers)).status == 401


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"[1]", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        ({"symbol": "BTC-EUR"}, 404, "unknown_symbol"),
        ({"symbol": ["BTC-IDR"]}, 404, "unknown_symbol"),
        ({"side": "hold"}, 422, "invalid_side"),
        ({"type": "stop"}, 422, "invalid_type"),
        ({"price": 900000000}, 422, "invalid_price"),
        ({"price": "1e9"}, 422, "invalid_price"),
        ({"price": None}, 422, "invalid_price"),
        ({"quantity": "NaN"}, 422, "invalid_quantity"),
        ({"quantity": "-1"}, 422, "invalid_quantity"),
        ({"leverage": "5"}, 422, "unknown_member"),
        ({"client_order_id": "x" * 65}, 422, "invalid_client_order_id"),
        ({"quantity": "1000"}, 422, "insufficient_balance"),
    ],
)
async def test_a_wrong_order_says_what_is_wrong_with_it(exchange, body, status, code):
    data = {"data": body} if isinstance(body, bytes) else {"json": ORDER | body}
    answer = await exchange.post("/v1/orders", headers=assertion(), **data)
    assert (answer.status, (await answer.json())["error"]["code"]) == (status, code)


async def test_an_unknown_market_is_404(exchange):
    assert (await exchange.get("/v1/markets/NOPE/summary", headers=assertion(None))).status == 404


async def test_the_stream_tells_every_markets_price(exchange):
    async with exchange.ws_connect("/v1/stream/tickers", headers=assertion(None)) as stream:
        told = [await stream.receive_json() for _ in range(4)]
    assert {each["symbol"] for each in told} == {"BTC-IDR", "ETH-IDR", "USDT-IDR", "BTC-USDT"}
