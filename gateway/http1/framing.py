"""Message framing (RFC 9112 §6) in both directions, including the smuggling checks that llhttp leaves out. Pure.

llhttp in strict mode has already refused bare CR or LF inside a head, obs-fold, white space before a colon, control bytes, a malformed
Content-Length, and Content-Length beside Transfer-Encoding. What it lets through is refused here (RFC 9112, RFC 9110 §7.2). A repeated
Content-Length is refused in both directions even when all values are the same: RFC 9112 §6.3 permits treating them as one, but such a
recipient accepts a message that others reject.
"""

import re
from typing import Final

from gateway.errors import ExpectationFailed, MalformedRequest

Field = tuple[bytes, bytes]

CHUNKED: Final = -1
"""As a length: the content is delimited by the chunked coding."""
LAST_CHUNK: Final = b"0\r\n\r\n"
UNTIL_CLOSE: Final = -2
"""As a length: the content is delimited by the end of the connection. Responses only."""

SPECIAL: Final = frozenset({
    b"host", b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"expect", b"upgrade",
})  # fmt: skip
"""The request fields that concern framing or the connection; this module ignores all others."""

NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
CONTROLS: Final = frozenset({b"close", b"keep-alive"})
"""Connection options that are not field names (RFC 9112 §9.6, Appendix C.2.2)."""

_CLOSE = frozenset({b"close"})
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+;=%]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
"""RFC 3986 §3.2.2, but without commas, which would turn ``X-Forwarded-Host`` into a list; the port may be empty."""
_LENGTH = re.compile(rb"[0-9]{1,18}")


# -- both directions


def content_length(value: bytes) -> int:
    """Parse Content-Length (RFC 9112 §6.2).

    :raises MalformedRequest: it is not a decimal number
    """
    if not _LENGTH.fullmatch(value):
        raise malformed("Content-Length must be given in digits")
    return int(value)


def check_coding(value: bytes) -> None:
    """Check Transfer-Encoding (RFC 9112 §6.1): recipients differ in how they frame anything except exactly ``chunked``.

    :raises MalformedRequest: it is not ``chunked``
    """
    if value.lower() != b"chunked":
        raise malformed("Transfer-Encoding must be exactly chunked")


def check_once(already: bool, name: str) -> None:
    """:raises MalformedRequest: a field is repeated that must not be"""
    if already:
        raise malformed(f"the {name} field is repeated")


def check_together(*, chunked: bool, with_length: bool, http10: bool) -> None:
    """Refuse combinations that indicate request smuggling (RFC 9112 §6.1).

    :raises MalformedRequest: there is such a combination
    """
    if chunked and with_length:
        raise malformed("both Content-Length and Transfer-Encoding are given")
    if chunked and http10:
        raise malformed("Transfer-Encoding does not exist in HTTP/1.0")


def chunk(data: bytes) -> bytes:
    """Encode ``data``, which must not be empty, as one chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def connection_options(name: bytes, value: bytes) -> frozenset[bytes]:
    """The options in a Connection field, in lower case (RFC 9110 §7.6.1).

    ``Proxy-Connection`` is obsolete, but llhttp and others honor its ``close``: so it counts here, too, so that all recipients agree.
    """
    options = frozenset([option for part in value.lower().split(b",") if (option := part.strip(b" \t"))])
    return options if name == b"connection" else options & _CLOSE


def persists(options: frozenset[bytes], *, http10: bool) -> bool:
    """Whether the connection persists after a message with these connection options (RFC 9112 §9.3)."""
    return b"close" not in options and (not http10 or b"keep-alive" in options)


# -- requests


class Framing:
    """The framing of one request, and whether the connection persists after it."""

    __slots__ = ("alone", "expects_continue", "host", "http10", "keep_alive", "length", "named", "upgrade")

    def __init__(
        self, length: int, *, keep_alive: bool, http10: bool, host: bytes, named: frozenset[bytes] = NO_OPTIONS,
        expects_continue: bool = False, upgrade: bytes = b"", alone: bool = False,
    ) -> None:  # fmt: skip
        self.length = length
        """Bytes of content, or :data:`CHUNKED`."""
        self.keep_alive = keep_alive
        self.http10 = http10
        self.host = host
        """The Host field, including the port; ``b""`` if an HTTP/1.0 client sent none."""
        self.named = named
        """The fields named by ``Connection``, in lower case, which are not forwarded (RFC 9110 §7.6.1)."""
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        """``b"websocket"`` if the client requests that upgrade, else ``b""``: other upgrades are ignored (RFC 9110 §7.8)."""
        self.alone = alone
        """Whether there is no content, and no field after which llhttp would expect anything except the next head."""


def frame(special: list[Field], *, http10: bool) -> Framing:
    """The framing of a request whose head llhttp has accepted.

    :param special: the fields in :data:`SPECIAL`, names in lower case
    :raises MalformedRequest, ExpectationFailed: both close the connection
    """
    host: bytes | None = None
    length = 0
    has_length = chunked = False
    options = NO_OPTIONS
    expect = offer = b""
    for name, value in special:
        if name == b"host":
            check_once(host is not None, "Host")
            host = value
        elif name == b"content-length":
            check_once(has_length, "Content-Length")
            length, has_length = content_length(value), True
        elif name == b"transfer-encoding":
            check_once(chunked, "Transfer-Encoding")
            check_coding(value)
            chunked = True
        elif name == b"expect":
            expect = value.lower() if not expect else b"repeated"
        elif name == b"upgrade":
            offer = offer + b"," + value.lower()
        else:
            options |= connection_options(name, value)
    check_together(chunked=chunked, with_length=has_length, http10=http10)
    if expect and expect != b"100-continue":
        raise ExpectationFailed("the only expectation supported is 100-continue", close=True)
    return Framing(
        CHUNKED if chunked else length,
        keep_alive=persists(options, http10=http10),
        http10=http10,
        host=_checked_host(host, http10=http10),
        named=options - CONTROLS,
        expects_continue=bool(expect) and not http10,
        upgrade=_taken(offer) if b"upgrade" in options and not (http10 or chunked or length) else b"",
        alone=not (chunked or length or offer or http10 or b"close" in options),
    )


def _taken(offer: bytes) -> bytes:
    """The protocol in an Upgrade list (RFC 9110 §7.8) that the gateway can switch to."""
    return b"websocket" if b"websocket" in [protocol.strip(b" \t") for protocol in offer.split(b",")] else b""


def _checked_host(host: bytes | None, *, http10: bool) -> bytes:
    """The value of Host (RFC 9112 §3.2), which only an HTTP/1.0 client may omit."""
    if host is None:
        if http10:
            return b""
        raise malformed("the Host field is missing")
    if not host:
        raise malformed("the Host field is empty: an http or https URI names a host (RFC 9110 §4.2.1)")
    check_host(host)
    return host.removesuffix(b":")


def check_host(host: bytes) -> None:
    """Check the value of Host, or the authority of an absolute-form target.

    :raises MalformedRequest: it is not a host with an optional port
    """
    if not _HOST.fullmatch(host):
        raise malformed("Host must be a host with an optional port")


def malformed(detail: str) -> MalformedRequest:
    """A refusal that closes the connection: where the next request starts is no longer certain."""
    return MalformedRequest(detail, close=True)
