"""Unmodified clients in WebSockets through the gate: prices, orders placed by message, and orders over REST seen filling on the stream."""

import asyncio
import json

import aiohttp
import pytest

from gateway.runtime.tasks import spawn
from tests.support import guide
from tests.support.bot import Bot

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's programs
SECONDS = 20
ORDER = {"symbol": "BTCIDR", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "900000000"}


@pytest.fixture
def names_of(system, key_of):
    return lambda *how: guide.values(system, key_of(*how))


async def first(work, wanted):
    """The first answer of ``await work()`` that is wanted."""
    async with asyncio.timeout(SECONDS):
        while not wanted(found := await work()):
            pass
    return found


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "ed25519"])
async def test_ccxt_pro(names_of, algorithm):
    bot = guide.python("ccxt", names_of(algorithm))["exchange"]
    try:
        price = (await bot.watch_ticker("BTC/IDR"))["last"]
        assert (await bot.watch_order_book("BTC/IDR"))["bids"]
        assert (await bot.watch_trades("BTC/IDR"))[-1]["price"] > 0
        assert (await bot.watch_ohlcv("BTC/IDR", "1m"))[-1][4] > 0
        # Everything that watches must do so before it happens.
        await bot.authenticate()
        balance, orders = spawn(bot.watch_balance(), name="balance"), spawn(bot.watch_orders(), name="orders")
        placed = await bot.create_order_ws("BTC/IDR", "limit", "buy", 0.001, round(price * 0.8, -3))
        assert placed["status"] == "open"
        assert [each["id"] for each in await asyncio.wait_for(orders, SECONDS)] == [placed["id"]]
        assert (await asyncio.wait_for(balance, SECONDS))["IDR"]["used"] > 0
        orders = spawn(bot.watch_orders(), name="orders")
        assert (await bot.cancel_order_ws(placed["id"], "BTC/IDR"))["status"] == "canceled"
        assert (await asyncio.wait_for(orders, SECONDS))[-1]["status"] == "canceled"
        filling = spawn(first(bot.watch_orders, lambda found: found[-1]["status"] == "closed"), name="orders")
        await asyncio.sleep(0)
        over_rest = await bot.create_order("BTC/IDR", "market", "sell", 0.001)
        assert (await filling)[-1]["id"] == over_rest["id"]
        assert (await bot.fetch_order_ws(over_rest["id"], "BTC/IDR"))["status"] == "closed"
    finally:
        await bot.close()


async def test_python_binance(names_of):
    names = names_of()
    classes = guide.python("python-binance", names)
    bot = await classes["AsyncClient"].create(names["KEY_ID"], names["SECRET"])
    sockets = classes["BinanceSocketManager"](bot)
    try:
        async with sockets.symbol_ticker_socket("BTCIDR") as ticker:
            assert (await ticker.recv())["s"] == "BTCIDR"
        async with sockets.multiplex_socket(["btcidr@bookTicker", "ethidr@trade"]) as several:
            assert (await several.recv())["stream"] in ("btcidr@bookTicker", "ethidr@trade")
        async with sockets.user_socket() as user:
            placed = await bot.ws_create_order(**ORDER)
            assert (await first(user.recv, lambda event: event["e"] == "executionReport"))["i"] == placed["orderId"]
            assert (await bot.ws_cancel_order(symbol="BTCIDR", orderId=placed["orderId"]))["status"] == "CANCELED"
            over_rest = await bot.create_order(symbol="BTCIDR", side="BUY", type="MARKET", quantity="0.001")
            assert (await first(user.recv, lambda event: event.get("X") == "FILLED"))["i"] == over_rest["orderId"]
            position = await first(user.recv, lambda event: event["e"] == "outboundAccountPosition")
            assert {held["a"]: held["f"] for held in position["B"]}["BTC"] == "1.001"
        assert len((await bot.ws_get_account())["balances"]) == 4
        assert len(await bot.ws_get_klines(symbol="BTCIDR", interval="1m", limit=3)) == 3
    finally:
        await bot.close_connection()


async def test_binances_own_connector(names_of):
    names = names_of()
    client = guide.python("Binance's own connector for Python", names)["client"]
    api = await client.websocket_api.create_connection()
    events = asyncio.Queue()
    try:
        assert (await api.ping()).data().status == 200
        stream = await api.user_data_stream_subscribe_signature()
        stream.stream.on("message", events.put_nowait)
        placed = (
            await api.order_place(symbol="BTCIDR", side="BUY", type="LIMIT", time_in_force="GTC", quantity=0.001, price=900000000)
        ).data()
        event = await first(events.get, lambda event: event.actual_instance.X == "NEW")
        assert event.actual_instance.i == placed.result.order_id
        assert (await api.order_cancel(symbol="BTCIDR", order_id=placed.result.order_id)).data().result.status == "CANCELED"
        assert len((await api.account_status()).data().result.balances) == 4
        await asyncio.sleep(0.002)  # in the millisecond of account.status its signature would be the same, and no login repeats one
        assert (await api.session_logon()).data().result.api_key == names["KEY_ID"]
    finally:
        await api.close_connection()
    prices = await client.websocket_streams.create_connection()
    try:
        ticker = await prices.ticker(symbol="btcidr")
        ticker.on("message", events.put_nowait)
        assert (await first(events.get, lambda event: getattr(event, "s", None) == "BTCIDR")).c
    finally:
        await prices.close_connection()


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "ed25519"])
def test_npm_binance(names_of, node_program, algorithm):
    """With an Ed25519 key it logs in once and signs no message after that."""
    said = node_program("npm binance", names_of(algorithm), """
        const filled = new Promise((done) => api.getWSClient().on('formattedUserDataMessage', (event) => {
            if (event.orderStatus === 'FILLED') done(event.orderId);
        }));
        await api.subscribeUserDataStream('mainWSAPI');
        const order = { symbol: 'BTCIDR', side: 'BUY', type: 'LIMIT', timeInForce: 'GTC', quantity: 0.001, price: 900000000 };
        const now = () => ({ timestamp: Date.now() });
        const placed = (await api.submitNewSpotOrder({ ...order, ...now() })).result;
        const cancelled = (await api.cancelSpotOrder({ symbol: 'BTCIDR', orderId: placed.orderId, ...now() })).result;
        const overRest = await rest.submitNewOrder({ symbol: 'BTCIDR', side: 'BUY', type: 'MARKET', quantity: 0.001 });
        say([placed.status, cancelled.status, overRest.orderId === await filled]);
        const priced = new Promise((done) => streams.on('formattedMessage', (event) => done(event.symbol)));
        streams.subscribe(['btcidr@ticker'], 'main');
        say(await priced);
    """)  # fmt: skip
    assert said == [["NEW", "CANCELED", True], "BTCIDR"]


async def test_mobees_documented_login_then_balances_and_pending_orders_arrive(system, key_of):
    key = key_of()
    names = guide.values(system, key)
    login = guide.python("Mobee's stream", names)["login"]
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{names['STREAM']}/ws") as stream:

        async def heard(event):
            return await first(stream.receive_json, lambda message: message.get("event") == event)

        await stream.send_json({"method": "subscribe", "events": ["MK"]})
        assert (await heard("MK"))["data"][0]["base"] == "BTC"
        await stream.send_str(login(key["key_id"], key["secret"]))
        answer = await first(stream.receive_json, lambda message: message["method"] == "login")
        assert (answer["status"], answer["message"]) == ("success", "Logged in.")
        await stream.send_str(json.dumps({"method": "subscribe", "events": ["BL", "PO.ALL"]}))
        assert {wallet["currency"] for wallet in (await heard("BL"))["data"]} == {"BTC", "ETH", "IDR", "USDT"}
        assert (await heard("PO.ALL"))["data"] == []
        with Bot(system.gateway_url, key) as bot:
            order = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}
            placed = await asyncio.to_thread(bot.call, "POST", "/v1/orders", order)
        assert [each["id"] for each in (await heard("PO.ALL"))["data"]] == [placed.content["id"]]
        held = await first(lambda: heard("BL"), lambda message: message["data"][2]["locked"] == 900_000)
        assert held["data"][2]["currency"] == "IDR"
