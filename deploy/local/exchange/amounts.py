"""Parses and formats amounts as :class:`~decimal.Decimal`."""

import re
from decimal import ROUND_FLOOR, Decimal

from deploy.local.exchange.orders import OrderRefused

_DECIMAL = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")


def text(value: Decimal) -> str:
    """A plain decimal number, without exponent or trailing zeros."""
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def decimal(value: object, code: str) -> Decimal:
    """Parse a decimal number in text.

    :raises OrderRefused: with ``code``: it is not one
    """
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise OrderRefused(code, 'write amounts as text in plain decimal notation, e.g. "0.001"')
    return Decimal(value)


def floored(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of ``step`` not above ``value``."""
    return (value / step).to_integral_value(ROUND_FLOOR) * step
