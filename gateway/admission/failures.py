"""Rate limits by client address, for failed authentication and for public routes, in process memory. Pure.

An address over its limit is throttled, but a request whose signature verifies still passes, because thousands of customers may share one
address. A key in memory is verified first. Only unknown keys and wrong signatures are refused early, without a look-up or hint.
"""

from typing import Final

from gateway.config.values import Rate
from gateway.net.addresses import customer_network
from gateway.runtime import gcra

LOOK_UPS: Final = Rate(50, 1_000)
"""Look-ups for all throttled addresses together: a customer behind one of them whose key is not in memory yet needs one."""

REFUSED_MESSAGES: Final = Rate(2_000, 10_000)
"""Refused session messages per address, when no key was verified: each costs time to parse, and no other limit applies."""


class AddressLimiter:
    """Units by address; IPv6 by /64. The table has a fixed size, and an evicted address starts afresh."""

    __slots__ = ("_max", "tats")

    def __init__(self, *, max_addresses: int = 65_536) -> None:
        self._max = max_addresses
        self.tats: dict[str, float] = {}
        """The theoretical arrival time of each network."""

    def __len__(self) -> int:
        return len(self.tats)

    def admits(self, address: str, weight: int, rate: Rate, now_ms: float) -> bool:
        """Charge an address, which becomes the last to be evicted. ``False``: it is over its limit, and nothing is charged."""
        name, tats = customer_network(address), self.tats
        tat_ms = tats.pop(name, 0.0)  # reinserted at the end: the first in the dict is the least recently charged
        if not tat_ms and len(tats) >= self._max:
            del tats[next(iter(tats))]
        new = gcra.passed(tat_ms, weight, now_ms, rate)
        if new < 0.0:
            tats[name] = tat_ms
            return False
        tats[name] = new
        return True

    def wait_ms(self, address: str, weight: int, rate: Rate, now_ms: float) -> float:
        """Milliseconds until :meth:`admits` would admit this; 0: now."""
        return gcra.charge(self.tats.get(customer_network(address), 0.0), weight, now_ms, rate).retry_after_ms


class FailureLimiter(AddressLimiter):
    """Failed authentication by address."""

    __slots__ = ("_look_ups_tat_ms",)

    def __init__(self, *, max_addresses: int = 65_536) -> None:
        super().__init__(max_addresses=max_addresses)
        self._look_ups_tat_ms = 0.0

    def retry_after_ms(self, address: str, rate: Rate, now_ms: float) -> float:
        """Milliseconds for which this address is throttled; 0: it is not."""
        return self.wait_ms(address, 1, rate, now_ms)

    def failed(self, address: str, rate: Rate, now_ms: float) -> None:
        """Count one failure."""
        self.admits(address, 1, rate, now_ms)

    def may_look_up(self, now_ms: float) -> bool:
        """Whether a key may be looked up for a throttled address; if so, counts the look-up."""
        charge = gcra.charge(self._look_ups_tat_ms, 1, now_ms, LOOK_UPS)
        self._look_ups_tat_ms = charge.tat_ms
        return charge.allowed
