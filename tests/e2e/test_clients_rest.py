"""Unmodified clients of Binance trade by REST through the gate, with the settings that the guide prints and all other defaults."""

from urllib.parse import urlsplit

import ccxt
import pytest

from tests.support import guide

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's programs
ORDER = {"symbol": "BTCIDR", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "900000000"}


@pytest.fixture
def names(system, key_of):
    return guide.values(system, key_of())


def test_ccxt_with_its_default_options(names):
    bot = ccxt.binance(guide.python("ccxt", names)["settings"])
    asked = []
    bot.session.hooks["response"].append(lambda answer, *_args, **_options: asked.append(answer.url))
    markets = bot.load_markets()
    assert set(markets) == {"BTC/IDR", "ETH/IDR", "USDT/IDR", "BTC/USDT"}
    assert bot.currencies["IDR"]["type"] == "fiat"
    price = bot.fetch_ticker("BTC/IDR")["last"]
    assert len(bot.fetch_ohlcv("BTC/IDR", "1m", limit=10)) == 10
    assert bot.fetch_trades("BTC/IDR", limit=5)[-1]["price"] > 0
    assert bot.fetch_trading_fees()["BTC/IDR"]["maker"] == 0
    assert bot.create_order("BTC/IDR", "limit", "buy", 0.001, round(price * 0.8, -3), {"postOnly": True})["status"] == "open"
    edited = bot.edit_order(bot.fetch_open_orders("BTC/IDR")[0]["id"], "BTC/IDR", "limit", "buy", 0.002, round(price * 0.7, -3))
    assert bot.fetch_order(edited["id"], "BTC/IDR")["amount"] == 0.002
    assert len(bot.cancel_all_orders("BTC/IDR")) == 1
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        bot.create_order("BTC/IDR", "limit", "buy", 0.001, round(price * 1.1, -3), {"postOnly": True})
    assert bot.create_order("BTC/IDR", "limit", "buy", 0.001, round(price * 0.8, -3), {"timeInForce": "IOC"})["status"] == "expired"
    filled = bot.create_market_buy_order_with_cost("BTC/IDR", 1_000_000)
    assert (filled["status"], filled["cost"] <= 1_000_000) == ("closed", True)
    assert bot.fetch_my_trades("BTC/IDR")[-1]["order"] == filled["id"]
    assert bot.fetch_balance()["BTC"]["free"] == pytest.approx(1 + filled["filled"])
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(names["GATE"]).netloc}


async def test_python_binance(names):
    """Asynchronous because the client, which is not, takes the running event loop or leaves one open."""
    bot = guide.python("python-binance", names)["client"]
    assert bot.get_symbol_info("BTCIDR")["status"] == "TRADING"
    assert bot.create_test_order(**ORDER) == {}
    order = bot.create_order(**ORDER)
    assert [each["orderId"] for each in bot.get_open_orders(symbol="BTCIDR")] == [order["orderId"]]
    assert bot.cancel_order(symbol="BTCIDR", orderId=order["orderId"])["status"] == "CANCELED"
    assert len(bot.get_klines(symbol="BTCIDR", interval="1m", limit=5)) == 5
    assert bot.order_market_sell(symbol="BTCIDR", quantity="0.001")["status"] == "FILLED"
    assert {coin["coin"] for coin in bot.get_all_coins_info()} == {"BTC", "ETH", "IDR", "USDT"}
    assert {asset["asset"] for asset in bot.get_user_asset()} == {"BTC", "ETH", "IDR", "USDT"}
    assert bot.get_trade_fee()[0]["makerCommission"] == "0"


def test_binances_own_connector(names):
    bot = guide.python("Binance's own connector for Python", names)["client"].rest_api
    order = bot.new_order(symbol="BTCIDR", side="BUY", type="LIMIT", time_in_force="GTC", quantity=0.001, price=900000000).data()
    assert order.status == "NEW"
    assert bot.delete_order(symbol="BTCIDR", order_id=order.order_id).data().status == "CANCELED"
    assert len(bot.get_account().data().balances) == 4
    assert len(bot.klines(symbol="BTCIDR", interval="1m", limit=3).data()) == 3


def test_npm_binance(names, node_program):
    done = node_program("npm binance", names, """
        const asked = { symbol: 'BTCIDR', side: 'BUY', type: 'LIMIT', timeInForce: 'GTC', quantity: 0.001, price: 900000000 };
        const order = await rest.submitNewOrder(asked);
        const cancelled = await rest.cancelOrder({ symbol: 'BTCIDR', orderId: order.orderId });
        const { balances } = await rest.getAccountInformation();
        say([order.status, cancelled.status, balances.length]);
    """)  # fmt: skip
    assert done == [["NEW", "CANCELED", 4]]


def test_a_form_that_calls_itself_json_places_an_order_as_hummingbot_sends_it(system, key_of, bot_of):
    """hummingbot's request factory puts ``application/json`` on everything; its parameters are a form all the same."""
    bot = bot_of(key_of(), dialect="binance")
    form = "&".join(f"{name}={value}" for name, value in ORDER.items()).encode()
    request = bot.sign("POST", "/api/v3/order", form, 0)
    placed = bot.send("POST", request.target, request.body, request.headers | {"Content-Type": "application/json"})
    assert (placed.status, placed.content["status"]) == (200, "NEW")
