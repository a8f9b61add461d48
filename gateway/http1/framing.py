"""Where a request begins and ends, and who may be fooled about it: the checks that llhttp leaves to its user. Pure.

llhttp in strict mode has already refused bare CR or LF inside a head, obs-fold, white space before a colon, control bytes, a repeated or
malformed Content-Length, and Content-Length beside Transfer-Encoding. What it lets through is refused here (RFC 9112, RFC 9110 §7.2).
"""

import re
from typing import Final

from gateway.errors import ExpectationFailed, MalformedRequest, MethodNotAllowed
from gateway.http1.headers import shadows

Field = tuple[bytes, bytes]

CHUNKED: Final = -1
"""As a length: the content ends where the chunked coding says so."""

SPECIAL: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})
"""The fields that say something about framing; all others are none of this module's business."""

_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ALLOW = ((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)


_NO_OPTIONS: frozenset[bytes] = frozenset()


class Framing:
    """How to read one request, and what to do with the connection after it."""

    __slots__ = ("expects_continue", "host", "http10", "keep_alive", "length", "named", "upgrade")

    def __init__(
        self, length: int, *, keep_alive: bool, http10: bool, host: bytes, named: frozenset[bytes] = _NO_OPTIONS,
        expects_continue: bool = False, upgrade: bytes = b"",
    ) -> None:  # fmt: skip
        self.length = length
        """Bytes of content, or :data:`CHUNKED`."""
        self.keep_alive = keep_alive
        self.http10 = http10
        self.host = host
        """The one Host field's value; ``b""`` when an HTTP/1.0 client sent none."""
        self.named = named
        """Fields that ``Connection`` names, in lower case: they go no further (RFC 9110 §7.6.1)."""
        self.expects_continue = expects_continue
        self.upgrade = upgrade
        """The Upgrade field's value in lower case when ``Connection`` names it too, else ``b""``."""


_CONTROLS = frozenset({b"close", b"keep-alive"})


class RequestLine:
    """The first line of a request, cut."""

    __slots__ = ("http10", "method", "path", "query", "target")

    def __init__(self, method: bytes, target: bytes, path: bytes, query: bytes | None, *, http10: bool) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        """``None`` when the target has no ``?``."""
        self.http10 = http10


def read_request_line(line: bytes) -> RequestLine:
    """The request line (RFC 9112 §3) of a head that llhttp has accepted.

    llhttp also takes several spaces between the parts, and other protocols and versions.

    :raises MalformedRequest, MethodNotAllowed: both close the connection
    """
    known = _request_lines.get(line)
    if known is not None:
        return known
    read = _cut_request_line(line)
    if read.query is None and len(line) <= _MEMO_LINE_BYTES:
        if len(_request_lines) >= _MEMO_LINES:
            _request_lines.clear()
        _request_lines[line] = read
    return read


_MEMO_LINES: Final = 1_024
_MEMO_LINE_BYTES: Final = 256
_request_lines: Final[dict[bytes, RequestLine]] = {}
"""Lines read before, which bots repeat for ever; bounded, and none with a query, where signatures stand."""


def _cut_request_line(line: bytes) -> RequestLine:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise malformed("the request line must be METHOD SP target SP HTTP/1.1")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise malformed("the version must be HTTP/1.1 or HTTP/1.0")
    if method in (b"CONNECT", b"TRACE"):
        raise MethodNotAllowed(f"{method.decode()} is not supported", headers=_ALLOW, close=True)
    if target[:1] != b"/" or not method.isalpha():
        raise malformed("the target must be in origin form, beginning with /, and nothing may stand before the method")
    path, mark, query = target.partition(b"?")
    return RequestLine(method, target, path, query if mark else None, http10=version == b"HTTP/1.0")


def frame(special: list[Field], *, http10: bool) -> Framing:
    """How to read a request whose head llhttp has accepted.

    :param special: those of its fields that are in :data:`SPECIAL`, names in lower case
    :raises MalformedRequest, ExpectationFailed: both close the connection
    """
    host: bytes | None = None
    length = 0
    has_length = chunked = False
    options = _NO_OPTIONS
    expect = upgrade = b""
    for name, value in special:
        if name == b"host":
            if host is not None:
                raise malformed("the Host field is repeated")
            host = value
        elif name == b"content-length":
            length, has_length = _content_length(value, repeated=has_length), True
        elif name == b"transfer-encoding":
            _check_coding(value, repeated=chunked, http10=http10)
            chunked = True
        elif name == b"connection":
            options |= {option for part in value.lower().split(b",") if (option := part.strip(b" \t"))}
        elif name == b"expect":
            expect = value.lower() if not expect else b"repeated"
        else:
            upgrade = value.lower() if not upgrade else b"repeated"
    if chunked and has_length:
        raise malformed("both Content-Length and Transfer-Encoding are given")
    if expect and expect != b"100-continue":
        raise ExpectationFailed("the only expectation supported is 100-continue", close=True)
    upgrade = upgrade if b"upgrade" in options else b""
    if upgrade and (chunked or length):
        raise malformed("a request that upgrades the connection must not have content")
    return Framing(
        CHUNKED if chunked else length,
        keep_alive=(b"keep-alive" in options and b"close" not in options) if http10 else b"close" not in options,
        http10=http10,
        host=_check_host(host, http10=http10),
        named=options - _CONTROLS if options else options,
        expects_continue=bool(expect) and not http10,
        upgrade=upgrade,
    )


def check_field_name(name: bytes) -> None:
    """Refuse a name (lower case, with ``_``) that an upstream may take for one the gate owns."""
    if shadows(name):
        raise malformed(f"the field {name.decode('latin-1')!r} can be taken for one that only the gate sets")


def _content_length(value: bytes, *, repeated: bool) -> int:
    if repeated or not _LENGTH.fullmatch(value):
        raise malformed("Content-Length must be given once, in digits")
    return int(value)


def _check_coding(value: bytes, *, repeated: bool, http10: bool) -> None:
    """RFC 9112 §6.1: what is not exactly ``chunked`` cannot be framed the same way by everybody."""
    if repeated or value.lower() != b"chunked":
        raise malformed("Transfer-Encoding must be given once and be exactly chunked")
    if http10:
        raise malformed("Transfer-Encoding does not exist in HTTP/1.0")


def _check_host(host: bytes | None, *, http10: bool) -> bytes:
    """RFC 9112 §3.2; only an HTTP/1.0 client may leave it out."""
    if host is None:
        if http10:
            return b""
        raise malformed("the Host field is missing")
    if not _HOST.fullmatch(host):
        raise malformed("the Host field is not a host with an optional port")
    return host


def malformed(detail: str) -> MalformedRequest:
    """A refusal after which the connection cannot be trusted to be in step."""
    return MalformedRequest(detail, close=True)
