"""What both sets of paths share: the accounts, the order numbers, and who is asking."""

import json
import re
from collections import OrderedDict
from decimal import Decimal
from typing import Any

from aiohttp import web

from deploy.local.exchange.account import Account, Order, OrderRefused
from deploy.local.exchange.market import MARKETS, Market, Quote, quote
from gateway.assertion import ASSERTED
from gateway.runtime import clock

MAX_ACCOUNTS = 10_000
_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")


class Exchange:
    """All accounts of this process; the one longest unused goes first when there are too many."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._last_order = 0

    def account(self, request: web.Request) -> Account:
        """The account that the gate vouched for, with its orders settled at the present price."""
        account_id = request[ASSERTED].account_id
        account = self._accounts.setdefault(account_id, Account())
        self._accounts.move_to_end(account_id)
        if len(self._accounts) > MAX_ACCOUNTS:
            self._accounts.popitem(last=False)
        now_ms = clock.now_ms()
        account.settle(lambda market: quote(market, now_ms), now_ms)
        return account

    def place(self, account: Account, market: Market, **asked: Any) -> Order:
        """:raises OrderRefused: by the account's rules"""
        now_ms = clock.now_ms()
        order = account.place(self._last_order + 1, market, quote=quote(market, now_ms), now_ms=now_ms, **asked)
        self._last_order = order.number
        return order


def now_quote(market: Market) -> Quote:
    return quote(market, clock.now_ms())


def decimal(value: object, code: str) -> Decimal:
    """A decimal number written as text.

    :raises OrderRefused: ``code``
    """
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise OrderRefused(code, 'write amounts as text in plain decimal notation, e.g. "0.001"')
    return Decimal(value)


def market_named(symbol: object) -> Market:
    """:raises OrderRefused: there is no such market"""
    if isinstance(symbol, str) and symbol in MARKETS:
        return MARKETS[symbol]
    raise OrderRefused("unknown_symbol", f"there is no such market; there are {', '.join(MARKETS)}")


async def json_object(request: web.Request) -> dict[str, Any]:
    """:raises OrderRefused: the body is not a JSON object"""
    try:
        found = json.loads(await request.read())
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise OrderRefused("invalid_json", "the body must be a JSON object")
    return found
