"""Header filtering in both directions: hop-by-hop fields, and fields that only the gateway may set. Pure.

Order (architecture decision 7): hop-by-hop fields and those named by ``Connection`` are removed first, then every field the gate owns, then
credentials; only then are the gate's fields added. So nothing a client sends can remove or shadow what the gate sets.
"""

from collections.abc import Collection, Iterable
from typing import Final

from gateway.http1.framing import Field

HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"http2-settings",
})  # fmt: skip
"""Hop-by-hop fields (RFC 9110 §7.6.1), including obsolete ones that are still in use."""

OWNED = frozenset({
    b"x-account-id", b"x-key-id", b"x-key-scopes", b"x-client-ip", b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto",
    b"x-forwarded-host", b"x-gateway-assertion",
    # Other names that services read for the same information; the gate sets none of them, so they are always removed.
    b"forwarded", b"x-forwarded-port", b"x-forwarded-server", b"x-real-ip",
})  # fmt: skip
"""Fields that only the gate may send to an upstream."""

FAMILIES: Final = (b"x-forward", b"x-original-", b"x-rewrite-", b"x-envoy-", b"x-http-method", b"x-method-override")
"""Prefixes of fields from which frameworks and proxies read the client's identity, or a method or path other than the
request line's, which alone was signed and admitted."""

ELSEWHERE = frozenset(
    {
        b"x-method", b"x-override-url", b"x-http-path-override",  # method, path
        b"x-host", b"x-http-host-override", b"x-http-destinationurl",
        b"x-scheme", b"x-url-scheme", b"front-end-https",  # scheme
        b"remote-user", b"x-remote-user", b"x-authenticated-user",  # who asks
        b"proxy",  # becomes HTTP_PROXY in CGI, which redirects a service's own requests (CVE-2016-5385)
        b"forwarded-for", b"forwarded-host", b"forwarded-proto",
        b"client-ip", b"true-client-ip", b"x-true-client-ip", b"x-true-ip", b"incap-client-ip", b"x-sucuri-clientip", b"cdn-src-ip",
        b"ali-cdn-real-ip", b"x-cluster-client-ip", b"x-originating-ip", b"x-remote-ip", b"x-remote-addr", b"remote-addr",
        b"x-source-ip", b"x-proxyuser-ip", b"proxy-client-ip", b"wl-proxy-client-ip", b"x-appengine-user-ip", b"x-azure-clientip",
        b"x-azure-socketip", b"cf-connecting-ip", b"cf-connecting-ipv6", b"cf-pseudo-ipv4", b"cloudfront-viewer-address",
        b"fastly-client-ip", b"fly-client-ip", b"do-connecting-ip", b"x-nf-client-connection-ip", b"x-vercel-forwarded-for",
    }
)  # fmt: skip
"""Individual names with the same meaning. None is forwarded; one may still be read as ``client_ip.header``."""

REGENERATED = frozenset({b"host", b"content-length", b"expect"})
"""Regenerated for the next connection, or processed here."""

REQUEST_DROP = HOP_BY_HOP | OWNED | ELSEWHERE | REGENERATED
"""Together with :data:`FAMILIES`, all fields of a client that are never forwarded."""
_X: Final = ord("x")  # all families begin with it
_USUAL: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_FOLDED: Final = bytes(byte if byte in _USUAL else ord("-") for byte in range(256))
EXTENSIONS = frozenset({b"sec-websocket-extensions"})
"""Not negotiated where the gate admits messages (RFC 6455 §9.1), since it could not read extended frames."""


def shadows(name: bytes) -> bool:
    """Whether a name becomes one of the gate's in a service that folds characters: ``_`` and ``-`` in CGI and WSGI (RFC 3875
    §4.1.18), ``.`` in PHP, everything except letters and digits in lighttpd.
    """
    return bool(name.translate(None, _USUAL)) and is_never_forwarded(name.translate(_FOLDED))


def is_never_forwarded(name: bytes) -> bool:
    """Whether a field with this lower-case name is never forwarded."""
    return name in REQUEST_DROP or name.startswith(FAMILIES)


def request_lines(fields: Iterable[Field], drop: Collection[bytes]) -> bytes:
    """The client's field lines that are forwarded, each ended by CRLF.

    :param drop: names that are not forwarded, in addition to :data:`FAMILIES`
    """
    lines: list[bytes] = []
    for name, value in fields:
        if name not in drop and (name[0] != _X or not name.startswith(FAMILIES)):
            lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)
