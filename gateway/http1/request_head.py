"""Parses a request head: request line (RFC 9112 §3) and fields (§5), validated by llhttp. Pure.

Fields are split here, line by line, and not by llhttp, because most lines are the same in every request of a client.
"""

import re
from typing import Final

from gateway.errors import MethodNotAllowed
from gateway.http1.framing import SPECIAL, Field, check_host, malformed
from gateway.http1.headers import shadows
from gateway.http1.memo import LINE_BYTES, remember

METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""The methods that may be routed, as ``Allow`` lists them."""
_ALLOW = ((b"Allow", METHODS),)

STEADY: Final = frozenset({
    b"accept", b"accept-encoding", b"accept-language", b"cache-control", b"connection", b"content-length", b"content-type", b"expect",
    b"host", b"origin", b"proxy-connection", b"transfer-encoding", b"upgrade", b"user-agent", b"x-api-key", b"x-mbx-apikey",
})  # fmt: skip
"""Fields that a client repeats with the same value and that contain no secret: only their lines are cached."""
_CHANGING = ("authorization", "content-digest", "signature", "signature-input", "x-request-signature", "x-request-timestamp")
_SPELLED: Final[dict[bytes, bytes]] = {
    spelling.encode(): name.encode() for name in _CHANGING for spelling in (name, name.title(), name.upper())
}
"""Common spellings of common names, which need no check."""
_plain: Final[dict[bytes, Field]] = {}
_special: Final[dict[bytes, Field]] = {}
"""Cached field lines. The second cache contains those that concern framing."""
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)


class RequestLine:
    """A parsed request line."""

    __slots__ = ("authority", "http10", "method", "path", "query", "target")

    def __init__(self, method: bytes, target: bytes, *, http10: bool, authority: bytes = b"") -> None:
        path, mark, query = target.partition(b"?")
        self.method = method
        self.target = target
        """In origin form, or ``*`` (RFC 9112 §3.2.1, §3.2.4)."""
        self.path = path
        self.query = query if mark else None
        """``None`` if the target has no ``?``."""
        self.http10 = http10
        self.authority = authority
        """The authority of an absolute-form target (RFC 9112 §3.2.2), which replaces Host; else ``b""``."""


_lines: Final[dict[bytes, RequestLine]] = {}
"""Cached request lines, which bots repeat; none with a query, which may contain a signature."""


def read_request_line(line: bytes) -> RequestLine:
    """Parse the request line of a head that llhttp has accepted.

    llhttp also accepts several spaces between the parts, and other protocols and versions, which are refused here.

    :raises MalformedRequest, MethodNotAllowed: both close the connection
    """
    known = _lines.get(line)
    if known is not None:
        return known
    read = _split_request_line(line)
    if read.query is None and len(line) <= LINE_BYTES:
        remember(_lines, line, read)
    return read


def _split_request_line(line: bytes) -> RequestLine:
    parts = line.split(b" ")
    if len(parts) != 3:
        raise malformed("the request line must be METHOD SP target SP HTTP/1.1")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise malformed("the version must be HTTP/1.1 or HTTP/1.0")
    if method in (b"CONNECT", b"TRACE"):
        raise MethodNotAllowed(f"{method.decode()} is not supported", headers=_ALLOW, close=True)
    if not method.isalpha():
        raise malformed("the method must consist of letters")
    http10 = version == b"HTTP/1.0"
    if target[:1] == b"/" or (target == b"*" and method == b"OPTIONS"):
        return RequestLine(method, target, http10=http10)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise malformed("the target must begin with / or be an http or https URI")
    authority, rest = absolute[1], absolute[2]
    check_host(authority)
    if rest[:1] != b"/":  # an empty path is /, and * for OPTIONS (RFC 9112 §3.2.1, §3.2.4)
        rest = b"*" if method == b"OPTIONS" and not rest else b"/" + rest
    return RequestLine(method, rest, http10=http10, authority=authority)


def split_fields(lines: list[bytes]) -> tuple[list[Field], list[Field]]:
    """Split the field lines of a head that llhttp has accepted: names in lower case, values without surrounding white space (RFC 9112 §5).

    :param lines: the head's lines, beginning with the request line
    :return: all fields, and those that concern framing (:data:`gateway.http1.framing.SPECIAL`)
    :raises MalformedRequest: a name could be mistaken for one that the gate owns
    """
    fields: list[Field] = []
    special: list[Field] = []
    for index in range(1, len(lines)):
        line = lines[index]
        field = _plain.get(line)
        if field is None:
            field = _special.get(line)
            if field is None:
                field = _split_field(line)
                if field[0] in SPECIAL:
                    special.append(field)
            else:
                special.append(field)
        fields.append(field)
    return fields, special


def with_target_authority(authority: bytes, fields: list[Field], *, http10: bool) -> list[Field]:
    """The fields with Host replaced by an absolute-form target's authority (RFC 9112 §3.2.2).

    :raises MalformedRequest: Host is invalid, which is refused whatever the target (RFC 9112 §3.2)
    """
    host = (b"host", authority)
    replaced: list[Field] = []
    for field in fields:
        if field[0] == b"host" and field[1]:
            check_host(field[1])
        replaced.append(host if field[0] == b"host" else field)
    if http10 and host not in replaced:
        replaced.append(host)
    return replaced


def _split_field(line: bytes) -> Field:
    spelled, _, value = line.partition(b":")
    value = value.strip(b" \t")
    known = _SPELLED.get(spelled)
    if known is not None:
        return known, value
    name = spelled.lower()
    if shadows(name):
        raise malformed(f"the field {name.decode('latin-1')!r} could be mistaken for one that only the gateway sets")
    field = (name, value)
    if name in STEADY and len(line) <= LINE_BYTES:
        remember(_special if name in SPECIAL else _plain, line, field)
    return field
