"""deploy.local.exchange.mobee_like.stream: Mobee's stream, as the gate passes it on."""

import pytest

from tests.support.gate import admitted, assertion

ORDER = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}


def of(event):
    return lambda heard: heard.get("event") == event


async def test_the_documented_login_then_balances_and_pending_orders_arrive(session, exchange):
    async with session("/ws") as stream:
        api = {"public_key": "gbk_test", "timestamp": 1608028160}
        logged_in = await stream.ask({"method": "login", "api": api}, "budi")
        assert logged_in == {"method": "login", "status": "success", "message": "Logged in."}
        answer = await stream.ask({"method": "subscribe", "events": ["BL", "PO.ALL"]}, "budi")
        assert answer == {
            "method": "subscribe",
            "events": [{"event": name, "status": "success", "message": "Subscribed."} for name in ("BL", "PO.ALL")],
        }
        assert {wallet["currency"] for wallet in (await stream.hear(of("BL")))["data"]} == {"BTC", "ETH", "IDR", "USDT"}
        assert (await stream.hear(of("PO.ALL"))) == {"method": "stream", "event": "PO.ALL", "data": []}
        placed = await (await exchange.post("/v1/orders", json=ORDER, headers=assertion())).json()
        (pending,) = (await stream.hear(of("PO.ALL")))["data"]
        assert (pending["id"], pending["price"], pending["quantity"]) == (placed["id"], 900_000_000, 0.001)
        wallets = {wallet["currency"]: wallet for wallet in (await stream.hear(of("BL")))["data"]}
        assert (wallets["IDR"]["available"], wallets["IDR"]["locked"]) == (999_100_000, 900_000)
        await exchange.delete(f"/v1/orders/{placed['id']}", headers=assertion())
        assert (await stream.hear(of("PO.ALL")))["data"] == []


async def test_markets_books_and_trades_need_no_login(session):
    async with session("/ws") as stream:
        events = ["MK", "OB.BTC-IDR", "RT.BTC.IDR"]
        answer = await stream.ask({"method": "subscribe", "events": [*events, "BL", "PO.ALL"]})
        assert [each["status"] for each in answer["events"]] == ["success"] * 3 + ["error"] * 2
        assert answer["events"][-1] == {"event": "PO.ALL", "status": "error", "message": "Access denied."}
        for _ in range(2):  # how things stand, and how they move
            markets = (await stream.hear(of("MK")))["data"]
            assert [market["base"] for market in markets] == ["BTC", "ETH", "USDT", "BTC"]
            book = (await stream.hear(of("OB.BTC-IDR")))["data"]
            assert book["bids"][0]["price"] < book["asks"][0]["price"]
            assert (await stream.hear(of("RT.BTC.IDR")))["data"][-1]["price"] > 0


async def test_amounts_are_numbers_with_every_digit(session, exchange):
    async with session("/ws") as stream:
        await stream.ask({"method": "subscribe", "events": ["PO.BTC-IDR"]}, "budi")
        await stream.hear(of("PO.BTC-IDR"))
        await exchange.post("/v1/orders", json=ORDER | {"quantity": "0.00012345"}, headers=assertion())
        text = (await stream.socket.receive()).data
        assert '"quantity": 0.00012345, ' in text
        assert '"client_order_id": null' in text


async def test_a_log_out_ends_what_was_the_accounts_and_nothing_else(session, exchange):
    async with session("/ws") as stream:
        await stream.ask({"method": "subscribe", "events": ["BL", "PO", "MK"]}, "budi")
        assert (await stream.ask({"method": "logout"}, "budi"))["message"] == "Logged out."
        await stream.ask({"method": "subscribe", "events": ["PO.BTC-IDR"]}, "siti")
        await exchange.post("/v1/orders", json=ORDER, headers=assertion("budi"))
        await exchange.post("/v1/orders", json=ORDER, headers=assertion("siti"))
        heard = [(await stream.hear(lambda each: each.get("event") != "MK"))["event"] for _ in range(2)]
        assert heard == ["PO.BTC-IDR"] * 2
        answer = await stream.ask({"method": "unsubscribe", "events": ["MK", "BL"]})
        assert [each["message"] for each in answer["events"]] == ["Unsubscribed.", "Not subscribed."]


@pytest.mark.parametrize(
    "message",
    [
        {"method": "login", "api": {}},
        {"method": "place"},
        {"method": "subscribe"},
        {"method": "subscribe", "events": []},
        {"method": "subscribe", "events": [{}]},
        {"method": "subscribe", "events": ["MK"] * 101},
        {"method": "subscribe", "events": ["MK"], "gateway": admitted()["member"] | {"key_id": "gbk_other"}},
        {"method": "subscribe", "events": ["MK"], "gateway": admitted()["member"] | {"assertion": "a.b.c"}},
        {"method": 7},
    ],
)
async def test_whatever_is_no_message_is_an_error_and_the_connection_stays(session, message):
    async with session("/ws") as stream:
        assert (await stream.ask(message))["status"] == "error"
        for event in ("XX", "OB.NOPE", "MK.BTC", ""):
            answer = await stream.ask({"method": "subscribe", "events": [event]})
            assert answer["events"][0]["status"] == "error"


@pytest.mark.parametrize("text", ["", "[]", "7", "[" * 60_000])
async def test_whatever_is_no_object_is_an_error_too(session, text):
    async with session("/ws") as stream:
        assert (await stream.send_text(text))["status"] == "error"
