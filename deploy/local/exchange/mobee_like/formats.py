"""Serializes orders, trades and events in Mobee's formats. Pure."""

import json
import re
from decimal import Decimal
from typing import Any

from deploy.local.exchange.account import Account
from deploy.local.exchange.amounts import text
from deploy.local.exchange.book import Book
from deploy.local.exchange.market import Market, summary
from deploy.local.exchange.orders import ZERO, Order, Trade

_MARK = "\0"
_MARKED = re.compile(r'"\\u0000([0-9.-]+)"')
_NAMES = {"BTC": "Bitcoin", "ETH": "Ethereum", "USDT": "Tether", "IDR": "Rupiah"}
LEVELS = 20


def as_text(value: object) -> str:
    """JSON with amounts as text."""
    return json.dumps(value, default=text)


def as_numbers(value: object) -> str:
    """JSON with amounts as numbers, without conversion to float."""
    return _MARKED.sub(r"\1", json.dumps(value, default=lambda amount: _MARK + text(amount)))


def market(book: Book, now_ms: int) -> dict[str, Any]:
    """A market's price and last 24 hours, for REST."""
    now, day = book.quote, summary(book.market, now_ms)
    return {
        "symbol": book.market.symbol,
        "last_price": now.last,
        "bid": book.best("buy"),
        "ask": book.best("sell"),
        "high_24h": max(day.high, now.last),
        "low_24h": min(day.low, now.last),
        "volume_24h": day.volume,
        "change_24h_percent": ((now.last / day.opened - 1) * 100).quantize(Decimal("0.01")),
        "time_ms": now.time_ms,
    }


def streamed_market(book: Book, now_ms: int) -> dict[str, Any]:
    """The same for the event ``MK``."""
    kept, now, day = book.market, book.quote, summary(book.market, now_ms)
    return {
        "base": kept.base,
        "quote": kept.quote,
        "price": now.last,
        "change_in_price": now.last - day.opened,
        "prev_price": day.opened,
        "base_volume": day.volume,
        "quote_volume": (day.volume * now.last).quantize(Decimal(1)),
        "full_name": _NAMES.get(kept.base, kept.base),
        "low_24hr": min(day.low, now.last),
        "high_24hr": max(day.high, now.last),
        **dict.fromkeys(("maker_fee", "taker_fee", "maker_fee_pro", "taker_fee_pro"), ZERO),
        "min_trade_amount": kept.lot,
        "min_tick_size": kept.tick,
        "min_order_value": kept.least,
    }


def order_book(book: Book) -> dict[str, Any]:
    """The event ``OB``."""
    sides = {"bids": book.levels("buy", LEVELS), "asks": book.levels("sell", LEVELS)}
    shown = {side: [{"price": price, "quantity": quantity} for price, quantity in levels] for side, levels in sides.items()}
    return {"symbol": book.market.symbol, "revision": book.revision, **shown}


def trade(market: Market, trade: Trade) -> dict[str, Any]:
    """A trade of the event ``RT``; ``side`` is the taker's."""
    side = "sell" if trade.buyer_is_maker else "buy"
    amounts = {"price": trade.price, "quantity": trade.quantity}
    return {"id": str(trade.number), "symbol": market.symbol, "side": side, **amounts, "time_ms": trade.time_ms}


def wallets(account: Account) -> list[dict[str, Any]]:
    """Balances, for REST and the event ``BL``."""
    held = account.balances.items()
    return [{"currency": name, "available": balance.available, "locked": balance.locked} for name, balance in held]


def order(order: Order) -> dict[str, Any]:
    """An order, for REST and the event ``PO``."""
    return {
        "id": str(order.number),
        "client_order_id": order.client_id or None,
        "symbol": order.market.symbol,
        "side": order.side,
        "type": order.kind,
        "time_in_force": order.time_in_force,
        "price": order.average_price or ZERO if order.kind == "market" else order.price,
        "quantity": order.quantity,
        "filled_quantity": order.executed,
        "average_price": order.average_price,
        "status": order.status,
        "created_at_ms": order.created_ms,
        "updated_at_ms": order.updated_ms,
    }
