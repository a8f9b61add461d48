"""Determines the client IP address of a request: the peer's, or the one in a trusted proxy's header. Pure.

A chain of proxies is read from the right, over all of a header's lines, because only what trusted proxies appended can be believed: the
first address that is not a trusted proxy's is the client's. If a hop cannot be parsed, there is no address; it is never guessed.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from gateway.http1.message import Request
from gateway.net.addresses import Network, NetworkList, canonical

if TYPE_CHECKING:
    from gateway.config.settings import ClientIp, Form

_PEERS = 65_536

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_LARGEST_PORT = 65_535
_HOST = re.compile(rb"[A-Za-z0-9\-._~]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_SCHEMES = {b"https": True, b"http": False}
_FORMS: dict[bytes, "Form"] = {
    b"cloudfront-viewer-address": "address:port",  # the port is always present, and IPv6 without brackets
    **dict.fromkeys(
        (
            b"cf-connecting-ip", b"cf-connecting-ipv6", b"fastly-client-ip", b"fly-client-ip", b"incap-client-ip", b"true-client-ip",
            b"x-appengine-user-ip", b"x-azure-clientip", b"x-azure-socketip", b"x-client-ip", b"x-envoy-external-address", b"x-real-ip",
        ),
        "address",
    ),
}  # fmt: skip
"""Fields of one address, and the form that their vendors document."""
_GOOGLE = (IPv4Network("35.191.0.0/16"), IPv4Network("130.211.0.0/22"), IPv6Network("2600:2d00:1:b029::/64"))
"""The networks from which Google's load balancers connect."""
_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)
"""An address with brackets or a port, as some proxies write them in any header: ``[2001:db8::1]:80``, ``192.0.2.1:80``."""
_NODE = re.compile(r"(?:\[([^\[\]]*)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?", re.ASCII)
"""RFC 7239 §6 node that is an address."""
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)"'
_PAIR = re.compile(rb"[ \t]*(" + _TOKEN + rb")=(?:(" + _TOKEN + rb")|" + _QUOTED + rb")[ \t]*")
"""RFC 7239 §4 forwarded-pair. White space around ``;`` is accepted, as is common."""


class ClientAddress:
    """The client IP, or why it could not be determined."""

    __slots__ = ("address", "problem", "secure")

    def __init__(self, address: str, problem: str, *, secure: bool | None = None) -> None:
        self.address = address
        """Canonical text; ``""`` if it could not be determined."""
        self.problem = problem
        """Why it could not be determined, for the client; ``""`` if it could."""
        self.secure = secure
        """Whether the client used TLS, as reported by a trusted proxy (X-Forwarded-Proto, or ``Forwarded``); ``None``: not reported."""


class ClientIpRule:
    """The client IP rule of one configuration version, compiled."""

    def __init__(self, trusted_proxies: Sequence[Network], header: str = "X-Forwarded-For", form: "Form | None" = None) -> None:
        """:param form: of a field of one address; ``None``: as its vendor documents it, and of other fields what has one reading only"""
        self.trusted = NetworkList(trusted_proxies)
        self._header = header
        self._name = header.lower().encode("ascii")
        self._form = form or _FORMS.get(self._name)
        self._hops = _LISTS.get(self._name)
        self.direct: dict[str, ClientAddress] = {}
        """Clients by peer, where the peer is not a trusted proxy: :meth:`of` for any request from it, once it has been called."""

    def of(self, request: Request) -> ClientAddress:
        """Determine the client IP. Header fields are read only if the peer is a trusted proxy."""
        client = self.direct.get(request.peer)
        return client if client is not None else self._of(request)

    def _of(self, request: Request) -> ClientAddress:
        peer = canonical(request.peer)
        if peer is not None and self.trusted.contains(peer):
            if not request.believed:
                return ClientAddress(peer, "")
            client = self.reported(request.field_lines(self._name), peer)
            client.secure = self._reported_scheme(request)
            return client
        client = ClientAddress(peer, "") if peer is not None else ClientAddress("", "the connection has no IP address")
        if len(self.direct) >= _PEERS:
            self.direct.clear()
        self.direct[request.peer] = client
        return client

    def as_sent(self, request: Request) -> Request:
        """The request with the scheme and Host that the client used, as reported by a trusted proxy, for RFC 9421 signatures."""
        peer = canonical(request.peer)
        if peer is None or not request.believed or not self.trusted.contains(peer):
            return request
        secure, host = self._reported_scheme(request), self._reported_host(request)
        if host:
            named = [(name, host if name == b"host" else value) for name, value in request.headers]
            request = request.replace(headers=named)
        return request if secure is None else request.replace(secure=secure)

    def reported(self, lines: list[bytes], peer: str) -> ClientAddress:
        """The client IP as reported by a trusted proxy.

        :param lines: the lines of the configured field
        """
        if not lines:
            return ClientAddress(peer, "")
        if self._hops is not None:
            return self._walk(self._hops(lines), peer)
        if len(lines) > 1:
            return self._not_one_address(peer, f"{len(lines)} lines, not with one IP address")
        text = lines[0].decode("latin-1")
        address = _address(text) if self._form != "address:port" else None
        before_port = _before_port(text) if self._form != "address" else None
        if address is not None and before_port is not None and address != before_port:
            return self._not_one_address(peer, f"{_shown(text)}, which is either an IPv6 address or one with a port")
        if found := address or before_port:
            return ClientAddress(found, "")
        return self._not_one_address(peer, f"{_shown(text)}, not with one IP address")

    def _not_one_address(self, peer: str, what: str) -> ClientAddress:
        return ClientAddress("", f"the trusted proxy {peer} sent {self._header} with {what}")

    def _reported_scheme(self, request: Request) -> bool | None:
        """Whether the nearest proxy reports TLS: in ``Forwarded`` if addresses are read from it, else in X-Forwarded-Proto."""
        if self._hops is _forwarded:
            return _SCHEMES.get(_nearest(request, b"proto").lower())
        for line in reversed(request.field_lines(b"x-forwarded-proto")):
            return _SCHEMES.get(line.rpartition(b",")[2].strip(b" \t").lower())
        return None

    def _reported_host(self, request: Request) -> bytes:
        """The Host that the client used, from the same field; ``b""`` if none or several are reported."""
        hosts = [_nearest(request, b"host")] if self._hops is _forwarded else request.field_lines(b"x-forwarded-host")
        return hosts[0] if len(hosts) == 1 and _HOST.fullmatch(hosts[0]) else b""

    def _walk(self, hops: Iterator[str], peer: str) -> ClientAddress:
        """Walk from the nearest hop outwards to the first that is not a trusted proxy."""
        address = peer
        for hop in hops:
            farther = _address(hop)
            if farther is None:
                return ClientAddress("", f"a trusted proxy sent {self._header} with a hop that is not an IP address: {_shown(hop)}")
            address = farther
            if not self.trusted.contains(address):
                break
        return ClientAddress(address, "")


def client_ip(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str | None:
    """The client IP for a service that makes no decision by it: if a field cannot be parsed, the trusted proxy's address.

    :param peer: as reported by the transport, possibly with a zone id
    :param forwarded_for: the lines of X-Forwarded-For, in order
    :return: ``None`` if the peer has no address
    """
    known = canonical((peer or "").partition("%")[0])
    if known is None:
        return None
    rule = _rule(tuple(trusted))
    if not rule.trusted.contains(known):
        return known
    return rule.reported([line.encode("latin-1", "replace") for line in forwarded_for], known).address or known


@lru_cache(8)
def _rule(trusted: tuple[Network, ...]) -> ClientIpRule:
    return ClientIpRule(trusted)


def notes(settings: "ClientIp") -> list[tuple[str, str]]:
    """Notes of ``gerbang check`` on a valid configuration: key and text."""
    found: list[tuple[str, str]] = []
    name = settings.header.lower().encode("ascii")
    documented = _FORMS.get(name)
    if settings.header_form is None and documented is None and name not in _LISTS:
        found.append(("client_ip.header", _FORM_UNKNOWN))
    if settings.header_form is not None and documented is not None and settings.header_form != documented:
        found.append(("client_ip.header_form", f"{settings.header} is documented with the form {documented}"))
    networks = [(network, google) for network in settings.trusted_proxies for google in _GOOGLE if network.version == google.version]
    if name == b"x-forwarded-for" and any(network.overlaps(google) for network, google in networks):
        found.append(("client_ip.trusted_proxies", _GOOGLES))
    return found


_FORM_UNKNOWN = (
    "the form of this field is not known: an IPv6 address that may have a port behind it (2001:db8::9:9985) is refused; "
    'header_form = "address" or "address:port" determines how it is read'
)
_GOOGLES = (
    "Google's load balancers append their own address behind the client's (203.0.113.9, 34.120.5.6): list the forwarding rule's address "
    "too, or every client will appear to have it"
)


def _address(hop: str) -> str | None:
    address = canonical(hop)
    if address is None and (match := _WITH_PORT.fullmatch(hop)) is not None:
        return _of_family(match[1], match[2])
    return address


def _before_port(text: str) -> str | None:
    """The address of ``address:port``. The port is required; IPv6 may be in brackets."""
    address, _, port = text.rpartition(":")
    if _PORT.fullmatch(port) is None or int(port) > _LARGEST_PORT:
        return None
    return _of_family(address[1:-1], None) if address[:1] == "[" and address[-1:] == "]" else canonical(address)


def _of_family(bracketed: str | None, bare: str | None) -> str | None:
    """Parse an address; IPv6 if and only if in brackets."""
    if bracketed is not None:
        return canonical(bracketed) if ":" in bracketed else None
    return canonical(bare or "")


def _comma_separated(lines: list[bytes]) -> Iterator[str]:
    """``X-Forwarded-For``: hops from the nearest to the farthest. Empty elements are ignored (RFC 9110 §5.6.1.2)."""
    for line in reversed(lines):
        for hop in reversed(line.split(b",")):
            if text := hop.strip(b" \t"):
                yield text.decode("latin-1")


def _forwarded(lines: list[bytes]) -> Iterator[str]:
    """``Forwarded`` (RFC 7239): hops from the nearest to the farthest; addresses without brackets and ports.

    A line is parsed from its beginning, as quoting requires; a line that does not parse counts as one hop that is not an address.
    """
    for line in reversed(lines):
        elements = _elements(line)
        if elements is None:
            yield _no_address(line.decode("latin-1"))
            return
        for element in reversed(elements):
            node = element.get(b"for", b"no for").decode("latin-1")
            match = _NODE.fullmatch(node)
            yield (_of_family(match[1], match[2]) if match is not None else None) or _no_address(node)


def _nearest(request: Request, name: bytes) -> bytes:
    """A parameter of the nearest proxy's element of ``Forwarded``; ``b""`` if it is absent or does not parse."""
    for line in reversed(request.field_lines(b"forwarded")):
        elements = _elements(line)
        return elements[-1].get(name, b"") if elements else b""
    return b""


def _no_address(node: str) -> str:
    """Text that is not parsed as an address: in ``Forwarded``, a bare IPv6 address is not valid."""
    return node if _address(node) is None else f'"{node}"'


def _elements(line: bytes) -> list[dict[bytes, bytes]] | None:
    """The pairs of each element, names in lower case; ``None`` if the line is malformed."""
    elements: list[dict[bytes, bytes]] = []
    pairs: dict[bytes, bytes] = {}
    position, end = 0, len(line)
    while position < end:
        if line[position] in b" \t":
            position += 1
        elif line[position] in b",;":
            if line[position] == 44 and pairs:
                elements.append(pairs)
                pairs = {}
            position += 1
        else:
            match = _PAIR.match(line, position)
            if match is None or (match.end() < end and line[match.end()] not in b",;") or match[1].lower() in pairs:
                return None
            pairs[match[1].lower()] = match[2] if match[2] is not None else re.sub(rb"\\(.)", rb"\1", match[3])
            position = match.end()
    if pairs:
        elements.append(pairs)
    return elements


def _shown(text: str) -> str:
    return ascii(text[:60])


_LISTS: dict[bytes, Callable[[list[bytes]], Iterator[str]]] = {b"x-forwarded-for": _comma_separated, b"forwarded": _forwarded}
"""Fields that contain a list of hops; all others contain one address."""
