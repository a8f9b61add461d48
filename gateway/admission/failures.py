"""The limit of refused credentials by address, in this process's memory. Pure: no store is asked, so a flood of guesses costs little.

An address over its limit is held back, and whoever verifies passes all the same: behind one address there may be thousands of customers.
A key in memory is verified first. Only keys that nobody knows and wrong signatures are refused early, without look-up or hint.
"""

from typing import Final

from gateway.admission import gcra
from gateway.config.settings import Rate
from gateway.net.addresses import customer_network

LOOK_UPS: Final = Rate(50, 1_000)
"""Look-ups for all addresses together that are held back: a customer behind one of them, whose key is not in memory yet, may have one."""


class FailureLimiter:
    """Refused credentials by address; IPv6 by /64. A table of fixed size: an address that it loses is forgiven."""

    def __init__(self, *, max_addresses: int = 65_536) -> None:
        self._max = max_addresses
        self._tats: dict[str, float] = {}
        self._look_ups_tat_ms = 0.0

    def retry_after_ms(self, address: str, rate: Rate, now_ms: float) -> float:
        """Milliseconds for which this address waits; 0 when it need not."""
        if not self._tats:
            return 0.0
        tat_ms = self._tats.get(customer_network(address))
        return 0.0 if tat_ms is None else gcra.charge(tat_ms, 1, now_ms, rate).retry_after_ms

    def failed(self, address: str, rate: Rate, now_ms: float) -> None:
        """Note one refusal."""
        name = customer_network(address)
        tat_ms = self._tats.pop(name, 0.0)  # and put behind all others: the first in the dict is the one longest without a refusal
        if len(self._tats) >= self._max:
            del self._tats[next(iter(self._tats))]
        self._tats[name] = gcra.charge(tat_ms, 1, now_ms, rate).tat_ms

    def may_look_up(self, now_ms: float) -> bool:
        """Whether the stores may be asked for a key on behalf of an address that is held back; counts it when they may."""
        charge = gcra.charge(self._look_ups_tat_ms, 1, now_ms, LOOK_UPS)
        self._look_ups_tat_ms = charge.tat_ms
        return charge.allowed
