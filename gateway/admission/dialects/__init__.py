"""The registry of signature dialects for HTTP requests: one module each, one line here. Pure."""

from collections.abc import Iterable

from gateway.admission.dialects.base import Credentials, Dialect, Mistake
from gateway.admission.dialects.binance import Binance
from gateway.admission.dialects.mobee import Mobee
from gateway.admission.dialects.rfc9421 import Rfc9421

DIALECTS: dict[str, Dialect] = {
    "mobee": Mobee(),
    "binance": Binance(),
    "rfc9421": Rfc9421(),
}

CREDENTIAL_FIELDS: frozenset[bytes] = frozenset().union(*(dialect.fields for dialect in DIALECTS.values()))
"""Every header field that carries credentials. None is ever forwarded."""


def by_field(names: Iterable[str]) -> dict[bytes, Dialect]:
    """The dialect of each credential field."""
    return {field: DIALECTS[name] for name in names for field in DIALECTS[name].fields}


__all__ = ["CREDENTIAL_FIELDS", "DIALECTS", "Credentials", "Dialect", "Mistake", "by_field"]
