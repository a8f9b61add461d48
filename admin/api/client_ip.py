"""The customer's address as far as it can be believed: for the audit and the limits, never for a decision about a key."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Networks = Sequence[IPv4Network | IPv6Network]


def client_ip(peer: str | None, forwarded_for: Sequence[str], trusted: Networks) -> str | None:
    """The peer, or when that is a trusted proxy, the first address from the right of X-Forwarded-For that is not one.

    :param forwarded_for: the header's field lines, in order
    """
    address = _address(peer or "")
    if address is None or not _is_trusted(address, trusted):
        return None if address is None else str(address)
    for text in reversed([item for line in forwarded_for for item in line.split(",")]):
        hop = _address(text.strip())
        if hop is None:  # what a proxy wrote cannot be read: nothing left of it can be believed
            break
        address = hop
        if not _is_trusted(hop, trusted):
            break
    return str(address)


def failure_group(client_ip: str | None) -> str:
    """What failures are counted by: the address; for IPv6 its /64, which one customer has whole."""
    address = _address(client_ip or "")
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Networks) -> bool:
    return any(address in network for network in trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
