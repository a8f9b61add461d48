"""Addresses and rates of a configuration, for modules that do not import pydantic."""

from typing import Final, NamedTuple

PERIODS: Final = {"second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_PERIOD_NAMES: Final = {milliseconds: name for name, milliseconds in PERIODS.items()}


class Address(NamedTuple):
    """An address to listen on: host (IPv6 without brackets) and TCP port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Rate(NamedTuple):
    """``units`` in ``period_ms`` milliseconds, written ``"1200/minute"``."""

    units: int
    period_ms: int

    def __str__(self) -> str:
        return f"{self.units}/{_PERIOD_NAMES.get(self.period_ms, f'{self.period_ms} ms')}"


def is_host(name: str) -> bool:
    """Whether a host name can be looked up, or an address: of ``a..b`` or a label of more than 63 bytes (RFC 1035 §2.3.4) Python's resolver
    raises ``UnicodeError``, which is no ``OSError``.
    """
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True
