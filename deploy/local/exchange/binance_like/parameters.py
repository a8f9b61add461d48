"""Strict parsing of call parameters from a query, a form or a message."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl

from deploy.local.exchange.amounts import decimal, text
from deploy.local.exchange.market import MARKETS, Market
from deploy.local.exchange.orders import OrderRefused

_BY_SYMBOL = {market.base + market.quote: market for market in MARKETS.values()}
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,64}")
_INTEGER = re.compile(r"[0-9]{1,18}")


class Written(str):
    """A number in a message, as written."""

    __slots__ = ()


def written(number: str) -> Written:
    """For ``parse_int`` and ``parse_float`` of :func:`json.loads`: keeps every digit, and expands an exponent (``1e-5``)."""
    if "e" not in number.lower():
        return Written(number)
    try:
        value = Decimal(number)
    except InvalidOperation:
        return Written(number)
    return Written(text(value) if value.is_finite() and abs(value.adjusted()) < 40 else number)


class Parameters:
    """Parameters by name, each at most once."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}

    @classmethod
    def of_request(cls, query: list[tuple[str, str]], body: bytes) -> "Parameters":
        """The parameters of query and form body.

        :raises OrderRefused: a name is repeated
        """
        pairs = [*query, *parse_qsl(body.decode(errors="replace"), keep_blank_values=True)]
        values = dict(pairs)
        if len(values) != len(pairs):
            raise OrderRefused("duplicate_parameter", "Duplicate values for a parameter detected.")
        return cls(values)

    def text(self, name: str, default: str = "") -> str:
        value = self._values.get(name, default)
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, str):
            raise OrderRefused("invalid_parameter", f"Illegal characters found in parameter '{name}'.")
        return value

    def needed(self, name: str) -> str:
        """:raises OrderRefused: it is missing or empty"""
        if not (value := self.text(name)):
            raise OrderRefused("missing_parameter", f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def number(self, name: str, default: int) -> int:
        """A whole number.

        :raises OrderRefused: it is not one
        """
        value = self.text(name)
        if not value:
            return default
        if not _INTEGER.fullmatch(value):
            raise OrderRefused("invalid_parameter", f"Illegal characters found in parameter '{name}'.")
        return int(value)

    def limit(self, default: int, most: int) -> int:
        return max(1, min(most, self.number("limit", default)))

    def amount(self, name: str, code: str) -> Decimal | None:
        """:raises OrderRefused: ``code``"""
        value = self.text(name)
        return decimal(str(value), code) if value else None

    def choice(self, name: str, code: str, choices: tuple[str, ...], default: str = "") -> str:
        """:raises OrderRefused: ``code``, or it is missing and has no default"""
        value = self.text(name, default) or self.needed(name)
        if value not in choices:
            raise OrderRefused(code, f"Invalid {name}.")
        return value

    def client_id(self, name: str) -> str:
        value = self.text(name)
        if value and not _CLIENT_ID.fullmatch(value):
            raise OrderRefused("invalid_parameter", f"Illegal characters found in parameter '{name}'.")
        return value

    def market(self) -> Market:
        """:raises OrderRefused: ``symbol`` is missing or unknown"""
        return market_of(self.needed("symbol"))

    def markets(self) -> list[Market] | None:
        """The markets of ``symbols`` or ``symbol``; ``None``: neither is given, which means all.

        :raises OrderRefused: one is unknown
        """
        if self.text("symbol"):
            return [self.market()]
        names: Any = self._values.get("symbols")
        if isinstance(names, str) and names:
            try:
                names = json.loads(names)
            except (ValueError, RecursionError):
                names = [None]
        if not names:
            return None
        if not isinstance(names, list) or len(names) > 100:
            raise OrderRefused("invalid_parameter", "Illegal characters found in parameter 'symbols'.")
        return [market_of(name) for name in names]


def market_of(symbol: object) -> Market:
    """:raises OrderRefused: there is no such symbol"""
    if isinstance(symbol, str) and symbol in _BY_SYMBOL:
        return _BY_SYMBOL[symbol]
    raise OrderRefused("unknown_symbol", "Invalid symbol.")
