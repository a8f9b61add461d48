"""deploy.local.exchange.binance_like.streams: public market streams, fed by the orders of all the other calls."""

from decimal import Decimal

import pytest

from deploy.local.exchange.sockets import MAX_SUBSCRIPTIONS
from tests.support.gate import assertion

MARKET_ORDER = {"symbol": "ETHIDR", "side": "SELL", "type": "MARKET", "quantity": "2"}
KINDS = {
    "ethidr@trade": "trade",
    "ethidr@aggTrade": "aggTrade",
    "ethidr@ticker": "24hrTicker",
    "ethidr@miniTicker": "24hrMiniTicker",
    "ethidr@depth": "depthUpdate",
    "ethidr@depth@100ms": "depthUpdate",
    "ethidr@kline_1m": "kline",
    "ethidr@kline_12h": "kline",
}


@pytest.mark.parametrize("name", KINDS)
async def test_each_stream_tells_its_event_under_its_own_path_and_combined_with_others(session, name):
    async with session(f"/ws/{name}") as raw, session(f"/stream?streams={name}/btcidr@ticker") as combined:
        assert (await raw.hear())["e"] == KINDS[name]
        heard = await combined.hear(lambda each: each["stream"] == name)
        assert (heard["data"]["e"], heard["data"]["s"]) == (KINDS[name], "ETHIDR")
        assert (await combined.hear(lambda each: each["stream"] == "btcidr@ticker"))["data"]["s"] == "BTCIDR"


async def test_streams_without_an_event_name_tell_the_books_best_and_its_top_and_all_markets(session):
    async with session("/ws/btcidr@bookTicker") as best, session("/ws/btcidr@depth5") as top, session("/ws/!ticker@arr") as all_of_them:
        told = await best.hear()
        assert (told["s"], Decimal(told["b"]) < Decimal(told["a"])) == ("BTCIDR", True)
        assert [len((await top.hear())[side]) for side in ("bids", "asks")] == [5, 5]
        assert len(await all_of_them.hear()) == 4


async def test_streams_are_subscribed_listed_and_left_as_ccxt_does_it(session):
    async with session("/ws/0") as stream:
        asked = {"method": "SUBSCRIBE", "params": ["btcidr@ticker", "ethidr@trade"], "id": 1}
        assert await stream.ask(asked) == {"result": None, "id": 1}
        await stream.hear(lambda each: each.get("e") == "24hrTicker")
        await stream.say({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        listed = await stream.hear(lambda each: "result" in each)
        assert listed == {"result": ["btcidr@ticker", "ethidr@trade"], "id": 2}
        await stream.say({"method": "UNSUBSCRIBE", "params": ["btcidr@ticker", "nobody@here"], "id": 3})
        assert (await stream.hear(lambda each: "result" in each))["id"] == 3
        assert (await stream.hear())["e"] == "trade"


async def test_a_customers_trade_is_on_the_trades_the_book_and_the_candle(session, exchange):
    names = "ethidr@trade/ethidr@depth/ethidr@kline_1m"
    async with session(f"/stream?streams={names}") as stream:
        order = await (await exchange.post("/api/v3/order", data=MARKET_ORDER, headers=assertion())).json()
        heard = await stream.hear(lambda each: each["stream"] == "ethidr@trade" and each["data"]["q"] == "2")
        assert (heard["data"]["t"], heard["data"]["m"]) == (order["fills"][0]["tradeId"], True)
        candle = (await stream.hear(lambda each: each["stream"] == "ethidr@kline_1m"))["data"]["k"]
        assert Decimal(candle["v"]) > 2
        assert Decimal(candle["l"]) <= Decimal(order["fills"][0]["price"])


async def test_the_changes_of_the_book_continue_its_snapshot_without_a_gap(session, exchange):
    async with session("/ws/ethidr@depth") as stream:
        await stream.hear()
        book = await (await exchange.get("/api/v3/depth?symbol=ETHIDR&limit=1000", headers=assertion(None))).json()
        bids, asks, revision = dict(book["bids"]), dict(book["asks"]), book["lastUpdateId"]
        order = {"symbol": "ETHIDR", "side": "BUY", "type": "LIMIT", "price": "1000", "quantity": "10"}
        for price in ("1000", "2000"):
            await exchange.post("/api/v3/order", data=order | {"price": price}, headers=assertion())
        for _ in range(4):
            event = await stream.hear(lambda each: each["u"] > book["lastUpdateId"])
            assert event["U"] <= revision + 1 <= event["u"]
            for side, changes in ((bids, event["b"]), (asks, event["a"])):
                side.update(changes)
                for price in [price for price, amount in side.items() if amount == "0"]:
                    del side[price]
            revision = event["u"]
        assert (bids["1000"], bids["2000"], len(bids), len(asks)) == ("10", "10", 22, 20)


@pytest.mark.parametrize(
    "message",
    [
        {"method": "SUBSCRIBE", "params": [], "id": 1},
        {"method": "SUBSCRIBE", "params": ["btcidr@nope"], "id": 1},
        {"method": "SUBSCRIBE", "params": ["nope@trade"], "id": 1},
        {"method": "SUBSCRIBE", "params": ["btcidr@kline_7m"], "id": 1},
        {"method": "SUBSCRIBE", "params": ["btcidr@trade5"], "id": 1},
        {"method": "SUBSCRIBE", "params": [5], "id": 1},
        {"method": "SUBSCRIBE", "params": "btcidr@trade", "id": 1},
        {"method": "SUBSCRIBE", "params": [f"btcidr@depth@{'x' * 1000}"], "id": 1},
        {"method": "order.place", "id": 1},
        {"id": 1},
    ],
)
async def test_whatever_is_no_subscription_is_an_error_and_the_connection_stays(session, message):
    async with session("/stream") as stream:
        assert (await stream.ask(message))["error"]["code"] == 2
        assert (await stream.ask({"method": "GET_PROPERTY", "params": ["combined"], "id": 2}))["result"] is True


async def test_subscriptions_of_one_connection_are_counted(session):
    async with session("/stream") as stream:
        depths = [f"depth{levels}{speed}" for levels in ("", "5", "10", "20") for speed in ("", "@100ms", "@1000ms")]
        names = [f"{symbol}@{depth}" for symbol in ("btcidr", "ethidr", "usdtidr", "btcusdt") for depth in depths]
        assert len(names) < MAX_SUBSCRIPTIONS
        await stream.say({"method": "SUBSCRIBE", "params": names, "id": 1})
        await stream.say({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert len((await stream.hear(lambda each: each.get("id") == 2))["result"]) == len(names)
