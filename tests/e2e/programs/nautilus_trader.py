"""nautilus_trader's own node, its Binance clients and a strategy: sees prices, places, cancels and fills orders, hears of it all.

Run by nautilus_trader's own Python. Standard input: ``{"settings": the guide's lines, "names": {name: value}}``; prints what it saw.
"""

import json
import sys

from nautilus_trader.adapters.binance import BinanceLiveDataClientFactory, BinanceLiveExecClientFactory
from nautilus_trader.config import LoggingConfig, TradingNodeConfig
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.events import OrderAccepted, OrderCanceled, OrderEvent, OrderFilled
from nautilus_trader.model.identifiers import InstrumentId, TraderId
from nautilus_trader.trading.strategy import Strategy

GIVEN = json.load(sys.stdin)
DEFINED = dict(GIVEN["names"])
exec(GIVEN["settings"], DEFINED)  # what the guide prints
BITCOIN = InstrumentId.from_str("BTCIDR.BINANCE")


class Trade(Strategy):  # type: ignore[misc]  # which is not installed where types are checked
    """One order that rests and is cancelled, then one that fills; each step waits for the event of the last."""

    seen: list[str]

    def on_start(self) -> None:
        self.seen = []
        self.subscribe_quote_ticks(BITCOIN)

    def on_quote_tick(self, tick: QuoteTick) -> None:
        if self.seen:
            return
        self.seen.append("quote")
        bitcoin = self.cache.instrument(BITCOIN)
        below = bitcoin.make_price(round(tick.bid_price.as_double() * 0.8, -3))
        self.submit_order(self.order_factory.limit(BITCOIN, OrderSide.BUY, bitcoin.make_qty(0.001), below))

    def on_order_event(self, event: OrderEvent) -> None:
        order = self.cache.order(event.client_order_id)
        if isinstance(event, OrderAccepted) and order.has_price:
            self.seen.append("accepted")
            self.cancel_order(order)
        elif isinstance(event, OrderCanceled):
            self.seen.append("canceled")
            self.submit_order(self.order_factory.market(BITCOIN, OrderSide.SELL, self.cache.instrument(BITCOIN).make_qty(0.001)))
        elif isinstance(event, OrderFilled):
            self.seen.append("filled")
            NODE.stop()


NODE = TradingNode(
    TradingNodeConfig(
        trader_id=TraderId("GATE-1"),
        logging=LoggingConfig(log_level="WARNING"),
        data_clients={"BINANCE": DEFINED["data"]},
        exec_clients={"BINANCE": DEFINED["execution"]},
        timeout_post_stop=0,
    )
)
STRATEGY = Trade()
NODE.trader.add_strategy(STRATEGY)
NODE.add_data_client_factory("BINANCE", BinanceLiveDataClientFactory)
NODE.add_exec_client_factory("BINANCE", BinanceLiveExecClientFactory)
NODE.build()
NODE.run()
ACCOUNT = NODE.cache.account_for_venue(BITCOIN.venue)
SAID = {"seen": STRATEGY.seen, "balances": {str(currency): str(held.total) for currency, held in ACCOUNT.balances().items()}}
NODE.dispose()
print("SAID " + json.dumps(SAID))
