"""Header hygiene, both ways: what may pass, what the gate alone may say. Pure.

Order (architecture decision 7): hop-by-hop fields and whatever ``Connection`` names go first, then every field the gate owns, then
credentials; only then the gate writes its own. So nothing a client sends can remove or shadow what the gate sets.
"""

from collections.abc import Collection, Iterable

Field = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""RFC 9110 §7.6.1, with the obsolete ones that are still sent."""

OWNED = frozenset(
    {
        b"x-account-id",
        b"x-key-id",
        b"x-key-scopes",
        b"x-client-ip",
        b"x-request-id",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-gateway-assertion",
        # Other names under which services look for the same facts; the gate sets none of them, so nobody may.
        b"forwarded",
        b"x-forwarded-port",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)
"""What only the gate may tell an upstream."""

REROUTING = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url"})
"""Where some frameworks look for another method or path than the request line's, which alone was signed and admitted."""

REGENERATED = frozenset({b"host", b"content-length", b"expect"})
"""Written anew for the next connection, or dealt with here."""

REQUEST_DROP = HOP_BY_HOP | OWNED | REROUTING | REGENERATED
RATE_LIMIT = frozenset({b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset"})


def shadows(name: bytes) -> bool:
    """Whether a name with ``_`` becomes one of the gate's where ``_`` and ``-`` are folded (CGI, WSGI: RFC 3875 §4.1.18)."""
    return name.replace(b"_", b"-") in REQUEST_DROP


def request_lines(fields: Iterable[Field], drop: Collection[bytes]) -> bytes:
    """The client's field lines that may go on, each ended by CRLF."""
    lines: list[bytes] = []
    for name, value in fields:
        if name not in drop:
            lines += (name, b": ", value, b"\r\n")
    return b"".join(lines)


def without(lines: Iterable[bytes], names: Collection[bytes]) -> list[bytes]:
    """Whole field lines but those with these lower-case names."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
