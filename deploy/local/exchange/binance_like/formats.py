"""Serializes orders, trades and events in Binance's formats. Pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from deploy.local.exchange.account import Account, Balance
from deploy.local.exchange.amounts import text
from deploy.local.exchange.book import Book
from deploy.local.exchange.market import DAY_MS, Candle, Market, summary
from deploy.local.exchange.orders import ZERO, Execution, Fill, Order, OrderRefused, Trade

REFUSALS = {
    "unknown_symbol": (-1121, "Invalid symbol."),
    "order_not_found": (-2013, "Order does not exist."),
    "order_not_open": (-2011, "Unknown order sent."),
    "insufficient_balance": (-2010, "Account has insufficient balance for requested action."),
    "duplicate_order": (-2010, "Duplicate order sent."),
    "too_many_open_orders": (-2010, "Too many open orders."),
    "would_take": (-2010, "Order would immediately match and take."),
    "invalid_price": (-1013, "Filter failure: PRICE_FILTER"),
    "invalid_quantity": (-1013, "Filter failure: LOT_SIZE"),
    "order_too_small": (-1013, "Filter failure: NOTIONAL"),
    "invalid_side": (-1117, "Invalid side."),
    "invalid_type": (-1116, "Invalid orderType."),
    "invalid_time_in_force": (-1115, "Invalid timeInForce."),
    "invalid_interval": (-1120, "Invalid interval."),
}
_OWN_WORDS = {"missing_parameter": -1102, "duplicate_parameter": -1101, "extra_parameter": -1106, "not_authenticated": -2014}
_STATUS = {"open": "NEW", "filled": "FILLED", "cancelled": "CANCELED", "expired": "EXPIRED"}
_CHANGE = {"placed": "NEW", "traded": "TRADE", "cancelled": "CANCELED", "expired": "EXPIRED"}
_TIME_IN_FORCE = {"gtc": "GTC", "ioc": "IOC", "fok": "FOK", "post_only": "GTC"}
_HUGE = "1000000000000"


def refused(error: OrderRefused) -> dict[str, Any]:
    """``code`` and ``msg``."""
    code, message = REFUSALS.get(error.code) or (_OWN_WORDS.get(error.code, -1100), str(error))
    return {"code": code, "msg": message}


def name(market: Market) -> str:
    return market.base + market.quote


def client_id(order: Order) -> str:
    return order.client_id or f"order-{order.number}"


def cancel_id(order: Order) -> str:
    return order.cancel_id or f"cancel-{order.number}"


def kind(order: Order) -> str:
    return "LIMIT_MAKER" if order.time_in_force == "post_only" else order.kind.upper()


def status(order: Order) -> str:
    return "PARTIALLY_FILLED" if order.status == "open" and order.executed else _STATUS[order.status]


def order(order: Order) -> dict[str, Any]:
    """The current state of an order."""
    return {
        "symbol": name(order.market),
        "orderId": order.number,
        "orderListId": -1,
        "clientOrderId": client_id(order),
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(order.executed),
        "cummulativeQuoteQty": text(order.spent),
        "origQuoteOrderQty": text(order.spend or ZERO),
        "status": status(order),
        "timeInForce": _TIME_IN_FORCE[order.time_in_force],
        "type": kind(order),
        "side": order.side.upper(),
        "stopPrice": "0",
        "icebergQty": "0",
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": order.status == "open",
        "workingTime": order.created_ms,
        "selfTradePreventionMode": "NONE",
    }


def placed(made: Order, fills: list[Fill], form: str) -> dict[str, Any]:
    """The answer to a new order, per ``newOrderRespType``."""
    whole = order(made) | {"transactTime": made.updated_ms}
    if form == "ACK":
        return {member: whole[member] for member in ("symbol", "orderId", "orderListId", "clientOrderId", "transactTime")}
    return whole | {"fills": [_part(fill) for fill in fills]} if form == "FULL" else whole


def cancelled(made: Order) -> dict[str, Any]:
    """The answer to a cancellation."""
    own = {"origClientOrderId": client_id(made), "clientOrderId": cancel_id(made), "transactTime": made.updated_ms}
    return order(made) | own


def _part(fill: Fill) -> dict[str, Any]:
    fee = {"commission": "0", "commissionAsset": fill.order.market.quote}
    return {"price": text(fill.price), "qty": text(fill.quantity), **fee, "tradeId": fill.trade}


def own_trade(fill: Fill) -> dict[str, Any]:
    """A trade as seen by the owner of the filled order."""
    return {
        "symbol": name(fill.order.market),
        "id": fill.trade,
        "orderId": fill.order.number,
        "orderListId": -1,
        "price": text(fill.price),
        "qty": text(fill.quantity),
        "quoteQty": text(fill.price * fill.quantity),
        "commission": "0",
        "commissionAsset": fill.order.market.quote,
        "time": fill.time_ms,
        "isBuyer": fill.order.side == "buy",
        "isMaker": fill.maker,
        "isBestMatch": True,
    }


def trade(trade: Trade) -> dict[str, Any]:
    """A public trade."""
    return {
        "id": trade.number,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "quoteQty": text(trade.price * trade.quantity),
        "time": trade.time_ms,
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def aggregate(trade: Trade) -> dict[str, Any]:
    """A single trade, in the format of aggregate trades."""
    numbers = {"a": trade.number, "f": trade.number, "l": trade.number}
    rest = {"T": trade.time_ms, "m": trade.buyer_is_maker, "M": True}
    return numbers | {"p": text(trade.price), "q": text(trade.quantity)} | rest


def account(account: Account, now_ms: int, *, all_of_them: bool = True) -> dict[str, Any]:
    """Balances and permissions of the account."""
    rates = {"maker": "0", "taker": "0", "buyer": "0", "seller": "0"}
    return {
        **dict.fromkeys(("makerCommission", "takerCommission", "buyerCommission", "sellerCommission"), 0),
        "commissionRates": rates,
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": now_ms,
        "accountType": "SPOT",
        "balances": [
            {"asset": currency, "free": text(held.available), "locked": text(held.locked)}
            for currency, held in account.balances.items()
            if all_of_them or held.available or held.locked
        ],
        "permissions": ["SPOT"],
    }


def user_assets(account: Account) -> list[dict[str, Any]]:
    """The answer of ``/sapi/v3/asset/getUserAsset``."""
    nothing = {"freeze": "0", "withdrawing": "0", "ipoable": "0", "btcValuation": "0"}
    held = ((currency, balance) for currency, balance in account.balances.items() if balance.available or balance.locked)
    return [{"asset": currency, "free": text(one.available), "locked": text(one.locked), **nothing} for currency, one in held]


def coin(currency: str, held: Balance) -> dict[str, Any]:
    """One currency in ``/sapi/v1/capital/config/getall``; deposits and withdrawals are disabled."""
    fiat = currency == "IDR"
    networks = [] if fiat else [_network(currency)]
    nothing = dict.fromkeys(("freeze", "withdrawing", "ipoing", "ipoable", "storage"), "0")
    can = {"depositAllEnable": False, "withdrawAllEnable": False, "trading": not fiat, "isLegalMoney": fiat}
    return (
        {"coin": currency, "name": currency, "free": text(held.available), "locked": text(held.locked)}
        | nothing
        | can
        | {"networkList": networks}
    )


def _network(currency: str) -> dict[str, Any]:
    return {
        "network": currency,
        "coin": currency,
        "name": currency,
        "isDefault": True,
        "depositEnable": False,
        "withdrawEnable": False,
        "withdrawFee": "0",
        "withdrawMin": "0",
        "withdrawMax": _HUGE,
        "withdrawIntegerMultiple": "0.00000001",
        "minConfirm": 1,
        "unLockConfirm": 1,
    }


def symbol_info(market: Market) -> dict[str, Any]:
    """One market in ``exchangeInfo``."""
    digits = ("baseAssetPrecision", "quotePrecision", "quoteAssetPrecision", "baseCommissionPrecision", "quoteCommissionPrecision")
    lot = {"minQty": text(market.lot), "maxQty": "1000000000", "stepSize": text(market.lot)}
    return {
        "symbol": name(market),
        "status": "TRADING",
        "baseAsset": market.base,
        "quoteAsset": market.quote,
        **dict.fromkeys(digits, 8),
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "NONE",
        "allowedSelfTradePreventionModes": ["NONE"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": text(market.tick), "maxPrice": _HUGE, "tickSize": text(market.tick)},
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **lot},
            {"filterType": "NOTIONAL", "minNotional": text(market.least), "applyMinToMarket": True, "maxNotional": _HUGE,
             "applyMaxToMarket": False, "avgPriceMins": 0},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        ],
    }  # fmt: skip


def book_ticker(book: Book) -> dict[str, Any]:
    """The best bid and the best ask."""
    (bid, bid_amount), (ask, ask_amount) = book.levels("buy", 1)[0], book.levels("sell", 1)[0]
    best = {"bidPrice": text(bid), "bidQty": text(bid_amount), "askPrice": text(ask), "askQty": text(ask_amount)}
    return {"symbol": name(book.market)} | best


def depth(book: Book, limit: int) -> dict[str, Any]:
    """The order book, with at most ``limit`` levels per side."""
    return {"lastUpdateId": book.revision, "bids": levels(book.levels("buy", limit)), "asks": levels(book.levels("sell", limit))}


def levels(found: Iterable[tuple[Decimal, Decimal]]) -> list[list[str]]:
    return [[text(price), text(amount)] for price, amount in found]


def day(book: Book, now_ms: int, last_trade: Trade) -> dict[str, Any]:
    """The last 24 hours of a market."""
    market, last, past = book.market, book.quote.last, summary(book.market, now_ms)
    change = last - past.opened
    return book_ticker(book) | {
        "lastPrice": text(last),
        "openPrice": text(past.opened),
        "prevClosePrice": text(past.opened),
        "highPrice": text(max(past.high, last)),
        "lowPrice": text(min(past.low, last)),
        "priceChange": text(change),
        "priceChangePercent": text((change / past.opened * 100).quantize(Decimal("0.001"))),
        "weightedAvgPrice": text(((past.high + past.low) / 2).quantize(market.tick)),
        "lastQty": text(last_trade.quantity),
        "volume": text(past.volume),
        "quoteVolume": text((past.volume * last).quantize(Decimal(1))),
        "openTime": now_ms - DAY_MS,
        "closeTime": now_ms,
        "firstId": last_trade.number - past.trades + 1,
        "lastId": last_trade.number,
        "count": past.trades,
    }


def kline(candle: Candle) -> list[Any]:
    """A candle as an array; half of its volume counts as bought."""
    volume, turnover = candle.volume, candle.turnover
    closes = candle.opened_ms + candle.length_ms - 1
    prices = [text(price) for price in (candle.opened, candle.high, candle.low, candle.closed)]
    halves = [text(volume / 2), text(turnover / 2)]
    return [candle.opened_ms, *prices, text(volume), closes, text(turnover), candle.trades, *halves, "0"]


def execution_report(execution: Execution) -> dict[str, Any]:
    """The event ``executionReport`` of the user data stream."""
    made, fill = execution.order, execution.fill
    ended = execution.change == "cancelled"
    return {
        "e": "executionReport", "E": execution.time_ms, "s": name(made.market),
        "c": cancel_id(made) if ended else client_id(made), "C": client_id(made) if ended else "",
        "S": made.side.upper(), "o": kind(made), "f": _TIME_IN_FORCE[made.time_in_force],
        "q": text(made.quantity), "p": text(made.price), "P": "0", "F": "0", "g": -1,
        "x": _CHANGE[execution.change], "X": status(made), "r": "NONE", "i": made.number,
        "l": text(fill.quantity if fill else ZERO), "L": text(fill.price if fill else ZERO),
        "Y": text(fill.quantity * fill.price if fill else ZERO),
        "z": text(made.executed), "Z": text(made.spent), "Q": text(made.spend or ZERO),
        "n": "0", "N": made.market.quote if fill else None, "t": fill.trade if fill else -1, "v": -1,
        "T": execution.time_ms, "O": made.created_ms, "W": made.created_ms, "I": execution.number,
        "w": made.status == "open", "m": bool(fill and fill.maker), "M": bool(fill), "V": "NONE",
    }  # fmt: skip


def account_position(account: Account, now_ms: int) -> dict[str, Any]:
    """The event ``outboundAccountPosition``."""
    held = [{"a": currency, "f": text(one.available), "l": text(one.locked)} for currency, one in account.balances.items()]
    return {"e": "outboundAccountPosition", "E": now_ms, "u": now_ms, "B": held}
