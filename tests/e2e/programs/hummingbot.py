"""hummingbot's own connector, whole and with its clock: reads the markets and the account, trades, and hears of it on the account's stream.

Run by hummingbot's own Python. Standard input: ``{"settings": the guide's lines, "names": {name: value}}``; prints what it saw.
"""

import asyncio
import json
import sys
from decimal import Decimal

from hummingbot.connector.exchange.binance import binance_constants

GIVEN = json.load(sys.stdin)
DEFINED = dict(GIVEN["names"])
exec(GIVEN["settings"], DEFINED)  # what the guide prints
for name in ("REST_URL", "WSS_URL", "WSS_API_URL"):  # as if the file had been edited
    assert isinstance(getattr(binance_constants, name), str), name
    setattr(binance_constants, name, DEFINED[name])

from hummingbot.connector.exchange.binance.binance_exchange import BinanceExchange
from hummingbot.core.clock import Clock, ClockMode
from hummingbot.core.data_type.common import OrderType
from hummingbot.core.event.event_forwarder import EventForwarder
from hummingbot.core.event.events import MarketEvent

PAIR = "BTC-IDR"


async def trade(bot: BinanceExchange, heard: dict[MarketEvent, asyncio.Queue]) -> dict[str, object]:
    while not bot.ready:  # noqa: ASYNC110  # the bot tells nobody
        await asyncio.sleep(0.1)
    price = bot.get_price(PAIR, is_buy=True)
    amount = Decimal("0.001")
    resting = bot.buy(PAIR, amount, OrderType.LIMIT, (price * Decimal("0.8")).quantize(Decimal(1000)))
    opened = await heard[MarketEvent.BuyOrderCreated].get()
    bot.cancel(PAIR, resting)
    cancelled = await heard[MarketEvent.OrderCancelled].get()
    held = bot.get_balance("BTC")
    crossing = bot.sell(PAIR, amount, OrderType.MARKET, price)
    filled = await heard[MarketEvent.OrderFilled].get()
    await heard[MarketEvent.SellOrderCompleted].get()
    while bot.get_balance("BTC") == held:  # noqa: ASYNC110  # a message of its own tells of it, and the bot tells nobody
        await asyncio.sleep(0.05)
    return {
        "ready": all(bot.status_dict.values()),
        "opened": opened.order_id == resting,
        "cancelled": cancelled.order_id == resting,
        "filled": filled.order_id == crossing,
        "BTC": str(bot.get_balance("BTC")),
    }


async def main() -> dict[str, object]:
    bot = BinanceExchange(DEFINED["KEY_ID"], DEFINED["SECRET"], trading_pairs=[PAIR])
    heard: dict[MarketEvent, asyncio.Queue] = {}
    listeners = []  # the bot keeps weak references
    for event in (MarketEvent.BuyOrderCreated, MarketEvent.OrderCancelled, MarketEvent.OrderFilled, MarketEvent.SellOrderCompleted):
        heard[event] = asyncio.Queue()
        listeners.append(EventForwarder(heard[event].put_nowait))
        bot.add_listener(event, listeners[-1])
    with Clock(ClockMode.REALTIME) as clock:
        clock.add_iterator(bot)
        ticking = asyncio.ensure_future(clock.run())
        try:
            async with asyncio.timeout(110):
                return await trade(bot, heard)
        finally:
            ticking.cancel()
            await bot.stop_network()


print("SAID " + json.dumps(asyncio.run(main())))
