"""deploy.local.exchange.binance: the calls of Binance's clients, over the same accounts as the other paths."""

from decimal import Decimal

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
        (ORDER | {"side": "HOLD"}, -1100),
        ({name: value for name, value in ORDER.items() if name != "price"}, -1100),
    ],
)
async def test_a_wrong_order_is_refused_with_binances_number(exchange, asked, code):
    status, answer = await call(exchange, "POST", "order", data=asked)
    assert (status, answer["code"]) == (400, code)


async def test_a_parameter_given_twice_is_refused(exchange):
    status, answer = await call(exchange, "POST", "order?quantity=1", data=ORDER)
    assert (status, answer["code"]) == (400, -1100)


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
