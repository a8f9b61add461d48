"""Limits how many refusals per second are explained to unauthenticated clients: in detail, with a hint and a log line. Pure.

Nobody reads the refusals of a flood, so they must be cheap. A misconfigured bot causes a few refusals per second, and all of them are
explained; in a flood, each address still gets as many explanations, within a total for all addresses. Other refusals have only the code and
its members, such as ``string_to_sign``.
"""

from typing import Final

from gateway.net.addresses import most_of_site, owners
from gateway.net.tally import Tally

PER_ADDRESS: Final = 30
"""Explanations per second for an IPv4 address, or the /64 of an IPv6 address; a /48 has a quarter of all."""
IN_ALL: Final = 300
"""Explanations per second for all addresses: each costs about as much as three admitted requests."""


class Explanations:
    """Fixed windows of a second, in memory of this process."""

    __slots__ = ("_in_all", "_second", "_taken", "in_all", "per_address")

    def __init__(self) -> None:
        self.per_address = PER_ADDRESS
        self.in_all = IN_ALL
        self._second = 0
        self._in_all = 0
        self._taken = Tally()

    def take(self, address: str, now_ms: int) -> bool:
        """Whether a refusal to this address is explained; if so, counts it.

        :param now_ms: monotonic milliseconds
        """
        second = now_ms // 1_000
        if second != self._second:
            self._second = second
            self._in_all = 0
            self._taken = Tally()
        if self._in_all >= self.in_all:
            return False
        whose = owners(address)
        if self._taken.room(whose, self.per_address, most_of_site(self.per_address, self.in_all)) <= 0:
            return False
        self._taken.add(whose)
        self._in_all += 1
        return True
