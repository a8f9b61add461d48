"""Validation of IP allowlist entries: public addresses only. Pure.

The table is literal, from the IANA special-purpose registries (RFC 6890), rather than ``ipaddress.is_global``, whose answer
has changed between Python releases.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from admin.errors import FieldError
from gateway.net.addresses import Address, parse

MAX_ADDRESSES = 3

_NOT_PUBLIC: dict[IPv4Network | IPv6Network, str] = {
    IPv4Network("0.0.0.0/8"): "reserved",
    IPv4Network("10.0.0.0/8"): "private",
    IPv4Network("100.64.0.0/10"): "shared by a carrier's customers",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("172.16.0.0/12"): "private",
    IPv4Network("192.0.0.0/24"): "reserved",
    IPv4Network("192.0.2.0/24"): "for documentation",
    IPv4Network("192.88.99.0/24"): "reserved",
    IPv4Network("192.168.0.0/16"): "private",
    IPv4Network("198.18.0.0/15"): "for benchmarks",
    IPv4Network("198.51.100.0/24"): "for documentation",
    IPv4Network("203.0.113.0/24"): "for documentation",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
    IPv6Network("::1/128"): "loopback",
    IPv6Network("64:ff9b::/96"): "a translated IPv4 address",
    IPv6Network("2001::/23"): "reserved",
    IPv6Network("2001:db8::/32"): "for documentation",
    IPv6Network("2002::/16"): "a tunnel (6to4)",
    IPv6Network("3fff::/20"): "for documentation",
    IPv6Network("fc00::/7"): "private",
    IPv6Network("fe80::/10"): "link-local",
    IPv6Network("ff00::/8"): "multicast",
}
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has allocated (RFC 4291 §2.4)


def parse_allowlist(texts: Sequence[str]) -> tuple[tuple[Address, ...], list[FieldError]]:
    """Parse addresses, in order, IPv4-mapped ones as IPv4 (as the gate sees them). Returns them and the errors of the others.

    :param texts: the customer's input: single addresses, no networks, no white space
    """
    errors: list[FieldError] = []
    if len(texts) > MAX_ADDRESSES:
        errors.append(FieldError("ip_allowlist", "too_many", f"At most {MAX_ADDRESSES} addresses; there are {len(texts)}."))
    found: dict[Address, int] = {}
    for index, text in enumerate(texts[: 2 * MAX_ADDRESSES]):  # a bounded number of errors is reported
        where = f"ip_allowlist[{index}]"
        address = parse(text)
        if address is None:
            errors.append(FieldError(where, "not_an_address", _NOT_AN_ADDRESS))
        elif (kind := why_not_public(address)) is not None:
            errors.append(
                FieldError(where, "not_public", f"{address} is {kind}: enter the public address that your bot's requests come from.")
            )
        elif address in found:
            errors.append(FieldError(where, "duplicate", f"{address} is already number {found[address] + 1} of the list."))
        else:
            found[address] = index
    return tuple(found), errors


_NOT_AN_ADDRESS = "Not an IP address: write one IPv4 or IPv6 address, such as 8.8.8.8 or 2606:4700::1111, without port or network."


def why_not_public(address: Address) -> str | None:
    """The kind of a non-public address; ``None`` for a public one."""
    for network, kind in _NOT_PUBLIC.items():
        if address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "reserved"
    return None
