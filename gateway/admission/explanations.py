"""Limits how many refusals per second are explained to unauthenticated clients: in detail, with a hint and a log line. Pure.

A flood consists of refusals that nobody reads, so they must be cheap. A misconfigured bot causes a few refusals a second, and all of them
are explained; in a flood, each address gets as many explanations, within a total for all addresses. Other refusals have the code and the
members that belong to it, such as ``string_to_sign``.
"""

from typing import Final

from gateway.net.addresses import customer_network

PER_ADDRESS: Final = 30
"""Explanations in a second for an IPv4 address, or the /64 of an IPv6 address."""
IN_ALL: Final = 300
"""In a second for all of them: about as much work as as many admitted requests, three times over."""


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
        """Whether a refusal is explained to this address; counts it when it is.

        :param now_ms: of the monotonic clock
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
