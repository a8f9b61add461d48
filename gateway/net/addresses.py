"""IP addresses: canonical text, the network that belongs to one customer, membership in a list of networks. Pure."""

from collections.abc import Iterable
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_LONGEST = 45
"""Length of the longest textual address: IPv6 with an embedded IPv4 address (RFC 4291 §2.2)."""
_MAPPED = IPv6Network("::ffff:0:0/96")
_REMEMBERED = 65_536
SITE_SHARES: Final = 10
"""What an IPv6 /48 may have, in shares of a /64."""
SITE_PART: Final = 4
"""It may have at most one in so many of everything."""

_WITH_KEYS = " with keys"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse(text: str) -> Address | None:
    """Parse an address; an IPv4-mapped IPv6 address is returned as IPv4 (RFC 4291 §2.5.5.2).

    :return: ``None`` for anything else: ports, octal, hexadecimal and short forms of IPv4, and zones (``fe80::1%eth0``), which name an
        interface of one machine (RFC 4007 §11)
    """
    if len(text) > _LONGEST or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def canonical(text: str) -> str | None:
    """The canonical text of an address (RFC 5952); ``None`` if :func:`parse` does not accept it."""
    return _canonical(text) if len(text) <= _LONGEST else None


@lru_cache(_REMEMBERED)
def _canonical(text: str) -> str | None:
    address = parse(text)
    return None if address is None else str(address)


@lru_cache(_REMEMBERED)
def customer_network(address: str) -> str:
    """The network that counts as one client: an IPv4 address, or the /64 of an IPv6 address (RFC 6177).

    A customer commonly has a whole /64, and so any number of addresses.

    :return: ``192.0.2.1``, ``2001:db8:1:2::/64``; text that is not an address is returned unchanged
    """
    known = canonical(address)
    if known is None or ":" not in known:
        return known or address
    return str(IPv6Network((int(IPv6Address(known)) >> 64 << 64, 64)))


@lru_cache(_REMEMBERED)
def owners(address: str) -> tuple[str, ...]:
    """The owners that a client's use of shared resources counts against, the widest first: an IPv4 address; for IPv6 the site, a /48 with
    65,536 networks as one customer may be assigned (RFC 6177), and the network, a /64 (:func:`customer_network`).

    A network may have what one address may; a site, :func:`most_of_site`. Turns are taken by the first, and in its turns by the last.

    :return: ``("192.0.2.1",)``, ``("2001:db8:1::/48", "2001:db8:1:2::/64")``; text that is not an address alone
    """
    known = canonical(address)
    if known is None or ":" not in known:
        return (known or address,)
    return str(IPv6Network((int(IPv6Address(known)) >> 80 << 80, 48))), customer_network(known)


@lru_cache(_REMEMBERED)
def owners_with_key(address: str) -> tuple[str, ...]:
    """:func:`owners` of a client that has a key. Within a site, these are counted apart from clients without one, which could otherwise use
    up all that the site may have, and a provider's customers may share a site.
    """
    return tuple(f"{owner}{_WITH_KEYS}" if is_site(owner) else owner for owner in owners(address))


def is_site(owner: str) -> bool:
    """Whether one of these owners is a site."""
    return owner.endswith(("/48", _WITH_KEYS))


def most_of_site(of_one: int, in_all: int | None = None) -> int:
    """What an IPv6 /48 may have: ten times as much as a /64, at most a quarter of everything, and never less than a /64.

    A provider's customers can share a /48, which is why it is not a /64's; and an attacker can have a whole one.
    """
    most = SITE_SHARES * of_one
    return most if in_all is None else max(of_one, min(most, in_all // SITE_PART))


class NetworkList:
    """A list of networks, such as the trusted proxies. IPv4-mapped IPv6 networks and addresses count as IPv4."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(map(_unmapped, networks))
        self.contains = lru_cache(_REMEMBERED)(partial(_any_contains, self._networks))
        """``(text of an address) -> bool``; ``False`` for text that is not an address."""

    def __bool__(self) -> bool:
        return bool(self._networks)


def _any_contains(networks: tuple[Network, ...], text: str) -> bool:
    known = canonical(text)
    if known is None:
        return False
    address = ip_address(known)
    return any(address in network for network in networks)


def _unmapped(network: Network) -> Network:
    """The network, converted to IPv4 if it is IPv4-mapped."""
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
