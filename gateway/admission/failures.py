"""Rate limits by client address, for failed authentication and for public routes, in process memory. Pure.

An address over its limit is throttled, but a request whose signature verifies still passes, because thousands of customers may share one
address. A key in memory is verified first. Only unknown keys and wrong signatures are refused early, without a look-up or hint.
"""

from typing import Final

from gateway.config.values import Rate
from gateway.net.addresses import most_of_site, owners
from gateway.runtime import gcra

LOOK_UPS: Final = Rate(50, 1_000)
"""Look-ups for all throttled addresses together: a customer behind one of them whose key is not in memory yet needs one. As many for those
addresses of a throttled site that are not throttled themselves.
"""

REFUSED_MESSAGES: Final = Rate(2_000, 10_000)
"""Refused session messages per address, when no key was verified: each costs time to parse, and no other limit applies."""


class AddressLimiter:
    """Units by address; IPv6 by /64, and by /48, which has ten times the rate. The table has a fixed size, and an evicted address starts
    afresh.
    """

    __slots__ = ("_max", "tats")

    def __init__(self, *, max_addresses: int = 65_536) -> None:
        self._max = max_addresses
        self.tats: dict[str, float] = {}
        """The theoretical arrival time of each network and site."""

    def __len__(self) -> int:
        return len(self.tats)

    def admits(self, address: str, weight: int, rate: Rate, now_ms: float) -> bool:
        """Charge an address, which becomes the last to be evicted. ``False``: it or its site is over its limit, and nothing is charged."""
        whose, tats = owners(address), self.tats
        if len(whose) > 1:
            return self._site_admits(whose[0], whose[1], weight, rate, now_ms)
        name = whose[0]
        tat_ms = tats.pop(name, 0.0)  # reinserted at the end: the first in the dict is the least recently charged
        if not tat_ms and len(tats) >= self._max:
            del tats[next(iter(tats))]
        new = gcra.passed(tat_ms, weight, now_ms, rate)
        if new < 0.0:
            tats[name] = tat_ms
            return False
        tats[name] = new
        return True

    def _site_admits(self, site: str, network: str, weight: int, rate: Rate, now_ms: float) -> bool:
        """:meth:`admits` for a network of a site. While the site is over its limit, its networks take no rows from others."""
        of_site = _of_site(rate)
        if gcra.passed(self.tats.get(site, 0.0), weight, now_ms, of_site) < 0.0:
            return False
        return self.admits(network, weight, rate, now_ms) and self.admits(site, weight, of_site, now_ms)

    def wait_ms(self, address: str, weight: int, rate: Rate, now_ms: float) -> float:
        """Milliseconds until :meth:`admits` would admit this; 0: now."""
        whose, tats = owners(address), self.tats
        wait_ms = gcra.charge(tats.get(whose[-1], 0.0), weight, now_ms, rate).retry_after_ms
        if len(whose) > 1 and not wait_ms:
            return gcra.charge(tats.get(whose[0], 0.0), weight, now_ms, _of_site(rate)).retry_after_ms
        return wait_ms


class FailureLimiter(AddressLimiter):
    """Failed authentication by address.

    Networks of a site with too many failures that have not failed too often themselves are limited in look-ups alone, and share those of
    their site; a wrong signature under a known key is answered as ever.
    """

    __slots__ = ("_look_ups_tat_ms",)

    def __init__(self, *, max_addresses: int = 65_536) -> None:
        super().__init__(max_addresses=max_addresses)
        self._look_ups_tat_ms = 0.0

    def retry_after_ms(self, address: str, rate: Rate, now_ms: float) -> float:
        """Milliseconds for which this address is throttled; 0: it is not."""
        return self.wait_ms(address, 1, rate, now_ms)

    def of_network_ms(self, address: str, rate: Rate, now_ms: float) -> float:
        """The same of its network alone, whatever else has failed in its site."""
        return self.wait_ms(owners(address)[-1], 1, rate, now_ms)

    def failed(self, address: str, rate: Rate, now_ms: float) -> None:
        """Count one failure."""
        self.admits(address, 1, rate, now_ms)

    def may_look_up(self, address: str, rate: Rate, now_ms: float) -> bool:
        """Whether a key may be looked up for a throttled address; if so, counts the look-up."""
        if not self.of_network_ms(address, rate, now_ms):  # only its site is: it must not take from others, nor they from it
            return self.admits(f"look-ups of {owners(address)[0]}", 1, LOOK_UPS, now_ms)
        charge = gcra.charge(self._look_ups_tat_ms, 1, now_ms, LOOK_UPS)
        self._look_ups_tat_ms = charge.tat_ms
        return charge.allowed


def _of_site(rate: Rate) -> Rate:
    return Rate(most_of_site(rate.units), rate.period_ms)
