"""deploy.local.exchange.binance_like.rest: the calls of Binance's clients, over the same accounts as the other paths."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest

from tests.support.gate import assertion

ORDER = {"symbol": "BTCIDR", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "900000000", "quantity": "0.001"}


async def call(exchange, method, path, **more):
    answer = await exchange.request(method, f"/api/v3/{path}", headers=assertion(), **more)
    return answer.status, await answer.json()


async def test_an_order_is_placed_found_listed_and_cancelled(exchange):
    status, order = await call(exchange, "POST", "order", data=ORDER | {"newClientOrderId": "mine"})
    assert (status, order["status"], order["clientOrderId"], order["fills"]) == (200, "NEW", "mine", [])
    number = {"symbol": "BTCIDR", "orderId": order["orderId"]}
    assert (await call(exchange, "GET", "order", params=number))[1]["orderId"] == order["orderId"]
    assert (await call(exchange, "GET", "order", params={"symbol": "BTCIDR", "origClientOrderId": "mine"}))[0] == 200
    assert [each["orderId"] for each in (await call(exchange, "GET", "openOrders"))[1]] == [order["orderId"]]
    status, cancelled = await call(exchange, "DELETE", "order", params=number)
    assert (status, cancelled["status"], cancelled["origClientOrderId"]) == (200, "CANCELED", "mine")
    assert (await call(exchange, "GET", "openOrders"))[1] == []


async def test_a_market_order_is_filled_into_a_trade_and_a_balance(exchange):
    asked = {"symbol": "ETHIDR", "side": "SELL", "type": "MARKET", "quantity": "2"}
    _, order = await call(exchange, "POST", "order", data=asked)
    assert (order["status"], order["executedQty"], order["fills"][0]["qty"]) == ("FILLED", "2", "2")
    _, trades = await call(exchange, "GET", "myTrades", params={"symbol": "ETHIDR"})
    assert [(trade["orderId"], trade["isBuyer"]) for trade in trades] == [(order["orderId"], False)]
    _, account = await call(exchange, "GET", "account")
    free = {balance["asset"]: Decimal(balance["free"]) for balance in account["balances"]}
    assert (free["ETH"], free["IDR"]) == (8, 1_000_000_000 + Decimal(order["cummulativeQuoteQty"]))


async def test_parameters_may_stand_in_the_query_or_in_the_body(exchange):
    assert (await call(exchange, "POST", "order", params=ORDER))[0] == 200
    number = {"symbol": "BTCIDR", "orderId": 1}
    assert (await call(exchange, "DELETE", "order", data=number))[0] == 200


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (ORDER | {"symbol": "NOPE"}, -1121),
        (ORDER | {"quantity": "1000"}, -2010),
        (ORDER | {"quantity": "0.0000000001"}, -1013),
        (ORDER | {"price": "900000000.5"}, -1013),
        (ORDER | {"quantity": "1e3"}, -1013),
        (ORDER | {"type": "STOP_LOSS"}, -1116),
        (ORDER | {"timeInForce": "GTX"}, -1115),
        (ORDER | {"quoteOrderQty": "10000"}, -1106),
        (ORDER | {"newClientOrderId": "not printable \n"}, -1100),
        ({"symbol": "BTCIDR", "side": "BUY", "type": "MARKET", "quantity": "1", "price": "1"}, -1106),
        ({"symbol": "BTCIDR", "side": "BUY", "type": "MARKET"}, -1102),
        (ORDER | {"type": "LIMIT_MAKER", "price": "2000000000"}, -2010),
        (ORDER | {"side": "HOLD"}, -1117),
        ({name: value for name, value in ORDER.items() if name != "price"}, -1102),
    ],
)
async def test_a_wrong_order_is_refused_with_binances_number(exchange, asked, code):
    status, answer = await call(exchange, "POST", "order", data=asked)
    assert (status, answer["code"]) == (400, code)


async def test_a_parameter_given_twice_is_refused(exchange):
    status, answer = await call(exchange, "POST", "order?quantity=1", data=ORDER)
    assert (status, answer["code"]) == (400, -1101)


async def test_an_order_that_is_not_there_has_binances_two_numbers(exchange):
    number = {"symbol": "BTCIDR", "orderId": 99}
    assert (await call(exchange, "GET", "order", params=number))[1]["code"] == -2013
    assert (await call(exchange, "DELETE", "order", params=number))[1]["code"] == -2011


@pytest.mark.parametrize("path", ["ticker/24hr", "ticker/price", "ticker/bookTicker"])
async def test_tickers_are_told_for_one_symbol_or_for_all(exchange, path):
    assert (await call(exchange, "GET", path, params={"symbol": "BTCIDR"}))[1]["symbol"] == "BTCIDR"
    assert len((await call(exchange, "GET", path))[1]) == 4


async def test_the_book_is_ordered_and_the_rest_is_there(exchange):
    _, book = await call(exchange, "GET", "depth", params={"symbol": "BTCIDR"})
    bids, asks = [Decimal(price) for price, _ in book["bids"]], [Decimal(price) for price, _ in book["asks"]]
    assert sorted(bids, reverse=True) == bids
    assert sorted(asks) == asks
    assert bids[0] < asks[0]
    assert (await call(exchange, "GET", "ping"))[1] == {}
    assert (await call(exchange, "GET", "time"))[1]["serverTime"] > 0
    assert len((await call(exchange, "GET", "exchangeInfo"))[1]["symbols"]) == 4
    assert (await exchange.get("/api/v3/account")).status == 401


async def test_orders_are_immediate_or_whole_or_never_at_once_as_they_ask(exchange):
    for in_force in ("IOC", "FOK"):
        _, order = await call(exchange, "POST", "order", data=ORDER | {"timeInForce": in_force})
        assert (order["status"], order["executedQty"], order["timeInForce"]) == ("EXPIRED", "0", in_force)
    status, order = await call(exchange, "POST", "order", data=ORDER | {"type": "LIMIT_MAKER"})
    assert (status, order.keys()) == (200, {"symbol", "orderId", "orderListId", "clientOrderId", "transactTime"})
    assert (await call(exchange, "GET", "openOrders"))[1][0]["type"] == "LIMIT_MAKER"


async def test_a_market_order_may_name_what_it_is_to_cost(exchange):
    asked = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quoteOrderQty": "1000"}
    _, order = await call(exchange, "POST", "order", data=asked)
    assert (order["status"], order["origQuoteOrderQty"]) == ("FILLED", "1000")
    assert 999 < Decimal(order["cummulativeQuoteQty"]) <= 1000
    assert sum(Decimal(fill["qty"]) for fill in order["fills"]) == Decimal(order["executedQty"]) == Decimal(order["origQty"])


async def test_an_order_is_tested_without_being_placed(exchange):
    assert await call(exchange, "POST", "order/test", data=ORDER) == (200, {})
    status, rates = await call(exchange, "POST", "order/test", data=ORDER | {"computeCommissionRates": "true"})
    assert (status, rates["standardCommissionForOrder"]["maker"]) == (200, "0")
    assert (await call(exchange, "POST", "order/test", data=ORDER | {"price": "1"}))[1]["code"] == -1013
    assert (await call(exchange, "GET", "allOrders", params={"symbol": "BTCIDR"}))[1] == []


async def test_all_open_orders_of_a_market_are_cancelled_at_once(exchange):
    other = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "price": "40000", "quantity": "0.001"}
    placed = [(await call(exchange, "POST", "order", data=asked))[1]["orderId"] for asked in (ORDER, ORDER, other)]
    status, cancelled = await call(exchange, "DELETE", "openOrders", params={"symbol": "BTCIDR"})
    assert (status, [each["orderId"] for each in cancelled]) == (200, placed[:2])
    assert [each["orderId"] for each in (await call(exchange, "GET", "openOrders"))[1]] == placed[2:]
    assert (await call(exchange, "DELETE", "openOrders", params={"symbol": "BTCIDR"}))[1]["code"] == -2011


async def test_an_order_is_replaced_by_another(exchange):
    _, first = await call(exchange, "POST", "order", data=ORDER)
    asked = ORDER | {"cancelReplaceMode": "STOP_ON_FAILURE", "cancelOrderId": first["orderId"], "price": "800000000"}
    status, done = await call(exchange, "POST", "order/cancelReplace", data=asked)
    assert (status, done["cancelResult"], done["newOrderResult"]) == (200, "SUCCESS", "SUCCESS")
    assert (done["cancelResponse"]["status"], done["newOrderResponse"]["price"]) == ("CANCELED", "800000000")
    assert [each["price"] for each in (await call(exchange, "GET", "openOrders"))[1]] == ["800000000"]


@pytest.mark.parametrize(
    ("mode", "number", "price", "told"),
    [
        ("STOP_ON_FAILURE", 99, "800000000", (400, -2022, "FAILURE", "NOT_ATTEMPTED")),
        ("ALLOW_FAILURE", 99, "800000000", (409, -2021, "FAILURE", "SUCCESS")),
        ("ALLOW_FAILURE", 99, "8000.5", (400, -2022, "FAILURE", "FAILURE")),
        ("STOP_ON_FAILURE", 1, "8000.5", (409, -2021, "SUCCESS", "FAILURE")),
    ],
)
async def test_a_replacement_that_is_half_done_says_which_half(exchange, mode, number, price, told):
    await call(exchange, "POST", "order", data=ORDER)
    asked = ORDER | {"cancelReplaceMode": mode, "cancelOrderId": number, "price": price}
    status, answer = await call(exchange, "POST", "order/cancelReplace", data=asked)
    assert (status, answer["code"], answer["data"]["cancelResult"], answer["data"]["newOrderResult"]) == told


async def test_candles_end_with_the_present_one_and_follow_each_other(exchange):
    _, found = await call(exchange, "GET", "klines", params={"symbol": "BTCIDR", "interval": "1m", "limit": 3})
    assert [later[0] - earlier[0] for earlier, later in pairwise(found)] == [60_000, 60_000]
    _, since = await call(
        exchange, "GET", "klines", params={"symbol": "BTCIDR", "interval": "1m", "startTime": found[0][0], "endTime": found[1][0]}
    )
    assert since == found[:2]
    _, weeks = await call(exchange, "GET", "klines", params={"symbol": "BTCIDR", "interval": "1w", "limit": 2})
    assert datetime.fromtimestamp(weeks[0][0] / 1000, UTC).weekday() == 0
    assert (await call(exchange, "GET", "klines", params={"symbol": "BTCIDR", "interval": "7m"}))[1]["code"] == -1120


async def test_trades_are_told_newest_last_and_from_a_number_on(exchange):
    _, trades = await call(exchange, "GET", "trades", params={"symbol": "BTCIDR", "limit": 5})
    assert sorted(trade["id"] for trade in trades) == [trade["id"] for trade in trades]
    _, found = await call(exchange, "GET", "aggTrades", params={"symbol": "BTCIDR", "fromId": trades[2]["id"], "limit": 2})
    assert [each["a"] for each in found] == [trades[2]["id"], trades[3]["id"]]


async def test_what_clients_ask_for_by_default_is_there(exchange):
    for path in ("sapi/v1/margin/allPairs", "sapi/v1/margin/isolated/allPairs", "sapi/v1/margin/allAssets"):
        assert await (await exchange.get(f"/{path}", headers=assertion(None))).json() == []
    for path in ("fapi", "dapi"):
        assert (await (await exchange.get(f"/{path}/v1/exchangeInfo", headers=assertion(None))).json())["symbols"] == []
    coins = await (await exchange.get("/sapi/v1/capital/config/getall", headers=assertion())).json()
    assert {coin["coin"]: coin["free"] for coin in coins}["IDR"] == "1000000000"
    assets = await (await exchange.post("/sapi/v3/asset/getUserAsset", headers=assertion())).json()
    assert {asset["asset"] for asset in assets} == {"BTC", "ETH", "IDR", "USDT"}
    assert await (await exchange.post("/sapi/v1/asset/get-funding-asset", headers=assertion())).json() == []
    _, some = await call(exchange, "GET", "exchangeInfo", params={"symbols": '["BTCIDR","ETHIDR"]'})
    assert [each["symbol"] for each in some["symbols"]] == ["BTCIDR", "ETHIDR"]
    assert (await call(exchange, "GET", "ticker/price", params={"symbols": "[nonsense"}))[1]["code"] == -1121
