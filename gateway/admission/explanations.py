"""Limits how many refusals per second are explained to unauthenticated clients: in detail, with a hint and a log line. Pure.

Nobody reads the refusals of a flood, so they must be cheap. A misconfigured bot causes a few refusals per second, and all of them are
explained; in a flood, each address still gets as many explanations, within a total for all addresses. Other refusals have only the code and
its members, such as ``string_to_sign``.
"""

from typing import Final

from gateway.net.addresses import customer_network

PER_ADDRESS: Final = 30
"""Explanations per second for an IPv4 address, or the /64 of an IPv6 address."""
IN_ALL: Final = 300
"""Explanations per second for all addresses: each costs about as much as three admitted requests."""


class Explanations:
    """Fixed windows of a second, in memory of this process."""

    __slots__ = ("_by_address", "_in_all", "_second", "in_all", "per_address")

    def __init__(self) -> None:
        self.per_address = PER_ADDRESS
        self.in_all = IN_ALL
        self._second = 0
        self._in_all = 0
        self._by_address: dict[str, int] = {}

    def take(self, address: str, now_ms: int) -> bool:
        """Whether a refusal to this address is explained; if so, counts it.

        :param now_ms: monotonic milliseconds
        """
        second = now_ms // 1_000
        if second != self._second:
            self._second = second
            self._in_all = 0
            self._by_address.clear()
        if self._in_all >= self.in_all:
            return False
        network = customer_network(address)
        taken = self._by_address.get(network, 0)
        if taken >= self.per_address:
            return False
        self._by_address[network] = taken + 1
        self._in_all += 1
        return True
