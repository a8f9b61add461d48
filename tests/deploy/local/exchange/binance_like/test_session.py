"""deploy.local.exchange.binance_like.session: the WebSocket API, as the gate passes it on."""

from decimal import Decimal

import pytest

from deploy.local.exchange.binance_like.session import MAX_USER_STREAMS
from gateway.assertion import SigningKey
from tests.support.gate import admitted, assertion

ORDER = {"symbol": "BTCIDR", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "900000000", "quantity": "0.001"}
MARKET_ORDER = {"symbol": "ETHIDR", "side": "SELL", "type": "MARKET", "quantity": "2"}


def event(kind):
    return lambda heard: heard.get("event", {}).get("e") == kind


async def test_an_order_is_placed_found_listed_and_cancelled_by_messages(session):
    async with session("/ws-api/v3") as api:
        placed = await api.ask({"id": "a-1", "method": "order.place", "params": ORDER}, "budi")
        assert (placed["id"], placed["status"], placed["result"]["status"]) == ("a-1", 200, "NEW")
        number = {"symbol": "BTCIDR", "orderId": placed["result"]["orderId"]}
        assert (await api.ask({"id": 2, "method": "order.status", "params": number}, "budi"))["result"]["status"] == "NEW"
        assert len((await api.ask({"id": 3, "method": "v3/openOrders.status"}, "budi"))["result"]) == 1
        cancelled = await api.ask({"id": None, "method": "order.cancel", "params": number}, "budi")
        assert (cancelled["id"], cancelled["result"]["status"]) == (None, "CANCELED")
        assert (await api.ask({"id": 5, "method": "order.status", "params": number}, "siti"))["error"]["code"] == -2013


async def test_numbers_count_digit_for_digit_whether_quoted_or_not(session):
    async with session("/ws-api/v3") as api:
        number = await api.ask({"id": 1, "method": "order.place", "params": ORDER | {"quantity": 1e-05 * 100, "price": 900000000}}, "budi")
        assert (number["result"]["origQty"], number["result"]["price"]) == ("0.001", "900000000")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("ping", {}),
        ("time", {}),
        ("exchangeInfo", {"symbols": ["BTCIDR"]}),
        ("ticker.price", {"symbol": "BTCIDR"}),
        ("depth", {"symbol": "BTCIDR", "limit": 5}),
        ("trades.recent", {"symbol": "BTCIDR", "limit": 2}),
        ("klines", {"symbol": "BTCIDR", "interval": "1m", "limit": 2}),
    ],
)
async def test_market_data_is_for_nobody_in_particular(session, method, params):
    async with session("/ws-api/v3") as api:
        assert (await api.ask({"id": 1, "method": method, "params": params}))["status"] == 200


@pytest.mark.parametrize("method", ["order.place", "order.test", "account.status", "myTrades", "userDataStream.subscribe", "session.logon"])
async def test_what_is_an_accounts_needs_the_gates_word(session, method):
    async with session("/ws-api/v3") as api:
        assert (await api.ask({"id": 1, "method": method, "params": ORDER}))["status"] == 401
        forged = {"id": 2, "method": method, "gateway": admitted()["member"] | {"account_id": "siti"}}
        assert (await api.ask(forged))["error"]["code"] == -2015
        for header in (assertion(key=SigningKey.new(0)), assertion(audience="other"), {"X-Gateway-Assertion": 7}):
            member = admitted()["member"] | {"assertion": header["X-Gateway-Assertion"]}
            assert (await api.ask({"id": 3, "method": method, "gateway": member}))["status"] == 401


async def test_an_order_over_rest_is_seen_filling_on_the_stream_of_its_account_alone(session, exchange):
    async with session("/ws-api/v3") as mine, session("/ws-api/v3") as others:
        assert (await mine.ask({"id": 1, "method": "userDataStream.subscribe.signature"}, "budi"))["result"] == {"subscriptionId": 0}
        await others.ask({"id": 1, "method": "userDataStream.subscribe.signature"}, "siti")
        await exchange.post("/api/v3/order", data=MARKET_ORDER, headers=assertion())
        seen = [await mine.hear() for _ in range(3)]
        assert [(each["event"].get("x"), each["event"].get("X")) for each in seen[:2]] == [("NEW", "NEW"), ("TRADE", "FILLED")]
        held = {each["a"]: Decimal(each["f"]) for each in seen[2]["event"]["B"]}
        assert (held["ETH"], held["IDR"]) == (8, 1_000_000_000 + Decimal(seen[1]["event"]["Z"]))
        await exchange.post(
            "/v1/orders", json={"symbol": "ETH-IDR", "side": "sell", "type": "market", "quantity": "1"}, headers=assertion()
        )
        assert (await mine.hear(event("executionReport")))["event"]["q"] == "1"
        assert "event" not in await others.ask({"id": 2, "method": "ping"})


async def test_a_stream_ends_when_it_is_asked_to_or_with_its_session(session, exchange):
    async with session("/ws-api/v3") as api:
        assert (await api.ask({"id": 1, "method": "session.logon"}, "budi"))["result"]["apiKey"] == "gbk_test"
        for number in range(3):
            method = "userDataStream.subscribe" if number else "userDataStream.subscribe.signature"
            assert (await api.ask({"id": 2, "method": method}, "budi"))["result"]["subscriptionId"] == number
        await api.say({"id": 3, "method": "userDataStream.unsubscribe", "params": {"subscriptionId": 1}}, "budi")
        assert (await api.hear(event("eventStreamTerminated")))["subscriptionId"] == 1
        assert (await api.hear())["result"] == {}
        listed = await api.ask({"id": 4, "method": "session.subscriptions"})
        assert listed["result"] == [{"subscriptionId": 0}, {"subscriptionId": 2}]
        await api.say({"id": 4, "method": "session.logout"}, "budi")
        assert (await api.hear(event("eventStreamTerminated")))["subscriptionId"] == 2
        assert (await api.hear())["result"]["apiKey"] is None
        await exchange.post("/api/v3/order", data=MARKET_ORDER, headers=assertion())
        assert {(await api.hear())["subscriptionId"] for _ in range(3)} == {0}


async def test_streams_of_one_connection_are_counted(session):
    async with session("/ws-api/v3") as api:
        asked = {"id": 1, "method": "userDataStream.subscribe.signature"}
        answers = [await api.ask(asked, "budi") for _ in range(MAX_USER_STREAMS + 1)]
        assert [answer["status"] for answer in answers] == [200] * MAX_USER_STREAMS + [400]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"method":5}', '{"method":"ping","id":{}}', '{"method":"ping","id":"' + "x" * 65 + '"}', "[" * 60_000,
     '{"id":1,"method":"order.place","params":[]}', '{"id":1,"method":"klines","params":{"symbol":{}}}', '{"id":1,"method":"nope"}'],
)  # fmt: skip
async def test_whatever_is_no_call_is_an_error_and_the_connection_stays(session, text):
    async with session("/ws-api/v3") as api:
        answer = await api.send_text(text)
        assert answer["status"] == 400
        assert answer["error"]["code"] < 0
        assert (await api.ask({"id": 1, "method": "ping"}))["status"] == 200
