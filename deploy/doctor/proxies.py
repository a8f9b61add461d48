"""Checks of trusted proxies."""

from collections import Counter
from ipaddress import IPv4Network, IPv6Network

from admin.config import AdminSettings
from deploy.doctor.findings import Finding
from gateway.config.settings import GatewaySettings
from gateway.net.addresses import NetworkList, parse

_ENOUGH = 5
"""Minimum number of keys in use or events before a single common address is reported."""


def proxies_as_configured(settings: GatewaySettings | AdminSettings) -> Finding:
    about, trusted = "client_ip.trusted_proxies", settings.client_ip.trusted_proxies
    wide = [str(network) for network in trusted if network.num_addresses > (1 << 16 if network.version == 4 else 1 << 80)]
    if wide:
        return Finding(
            "wrong", about, f"{', '.join(wide)} is wide: any host in it can claim any address", "list the proxies' own addresses"
        )
    if trusted:
        return Finding("ok", about, ", ".join(map(str, trusted)))
    if isinstance(settings, AdminSettings) and settings.public_url.startswith("https") and settings.listen.tls is None:
        text = (
            "public_url is https without listen.tls, so there is a proxy, but none is trusted: every customer appears to have its address"
        )
        return Finding("wrong", about, text, "list the proxy's address")
    return Finding("note", about, "none: correct only if clients connect to this port directly", "behind a proxy, list its address")


def proxy_seen(seen: Counter[str], trusted: tuple[IPv4Network | IPv6Network, ...]) -> Finding | None:
    """:param seen: client addresses of customers, and how often"""
    if len(seen) != 1 or sum(seen.values()) < _ENOUGH:
        return None
    (text,) = seen
    address = parse(text)
    if address is None or address.is_global or NetworkList(trusted).contains(text):
        return None
    if address.is_loopback:
        return Finding("note", "client_ip.trusted_proxies", f"every customer seen came from {text}", "if that is a proxy, list it")
    said = f"every customer seen came from {text}: a proxy that is not trusted"
    return Finding("wrong", "client_ip.trusted_proxies", said, f'add "{text}"; until then allow lists and limits see the proxy')
