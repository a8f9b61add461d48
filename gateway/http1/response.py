"""Parses an upstream's response head, with the framing checks that llhttp omits (RFC 9112 §6). Pure."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from gateway.http1.framing import (
    CHUNKED,
    CONTROLS,
    NO_OPTIONS,
    UNTIL_CLOSE,
    check_coding,
    check_once,
    check_together,
    connection_options,
    content_length,
    malformed,
    persists,
)  # fmt: skip
from gateway.http1.headers import HOP_BY_HOP
from gateway.http1.memo import remember

RATE_LIMIT = frozenset({
    b"ratelimit", b"ratelimit-policy", b"ratelimit-limit", b"ratelimit-remaining", b"ratelimit-reset",
    b"x-mbx-used-weight-1m", b"x-mbx-order-count-1m",
})  # fmt: skip
"""Fields that report the gate's limits; an upstream's own are removed if the gate sends them."""

STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_ZERO = ord("0")


def status_line(status: int) -> bytes:
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Unframable(Exception):
    """A response with ambiguous framing. It becomes a 502, or aborts the client's connection if part of it has been relayed."""


class ResponseHead:
    """One response head. Usually taken from a cache, so it is optimized for reading."""

    __slots__ = ("dated", "framing", "keep_alive", "length", "limited", "lines", "named", "rendered", "status", "upgrade")

    def __init__(
        self, status: int, lines: Sequence[bytes], length: int, framing: bytes, named: frozenset[bytes], *,
        keep_alive: bool, dated: bool, limited: bool, upgrade: bytes,
    ) -> None:  # fmt: skip
        self.status = status
        self.lines = lines
        """The field lines as received, without hop-by-hop fields and those that frame the content."""
        self.rendered = status_line(status) + b"\r\n".join([*lines, b""])
        """The status line and the same, each ended by CRLF."""
        self.length = length
        """Length of the content, or :data:`CHUNKED`, or :data:`UNTIL_CLOSE`; 0 if the status or the method allows none."""
        self.framing = framing
        """The field line that frames the content for an HTTP/1.1 client; ``b""`` if none is needed."""
        self.named = named
        """The fields named by ``Connection``, in lower case, which are not forwarded."""
        self.keep_alive = keep_alive
        self.dated = dated
        self.limited = limited
        """Whether it has ``RateLimit-*`` fields of its own."""
        self.upgrade = upgrade
        """The Upgrade field's value in lower case."""


# Kinds of field lines; plain integers, since one is compared for every line.
_PLAIN: Final = 0
_DROPPED: Final = 1
_LENGTH: Final = 2
_CODING: Final = 3
_OPTIONS: Final = 4
_DATE: Final = 5
_LIMIT: Final = 6
_UPGRADE: Final = 7
_KINDS = (
    dict.fromkeys(HOP_BY_HOP, _DROPPED)
    | dict.fromkeys(RATE_LIMIT, _LIMIT)
    | {
        b"content-length": _LENGTH,
        b"transfer-encoding": _CODING,
        b"connection": _OPTIONS,
        b"proxy-connection": _OPTIONS,
        b"date": _DATE,
        b"upgrade": _UPGRADE,
    }
)
_LINE_BYTES: Final = 80
_HEADS, _HEAD_BYTES = 256, 1_024
_memo: Final[dict[bytes, tuple[int, Any]]] = {}
"""Cached lines, which cover most lines of most responses; none with data of one user."""
KNOWN_HEADS: Final[dict[bytes, ResponseHead]] = {}
"""Cached heads that llhttp and :func:`read_head` have accepted: a busy upstream repeats the same one within a second. Each includes its
terminating empty line, so that none is a prefix of another; responses to HEAD are excluded."""


def known_head(raw: bytes) -> ResponseHead | None:
    """The cached result for exactly this head.

    :param raw: up to and including the empty line; not for responses to HEAD
    """
    return KNOWN_HEADS.get(raw)


def read_head(raw: bytes, *, head_only: bool) -> ResponseHead:
    """Check and parse a head that llhttp has accepted (see ``gateway.http1.request_head`` for why it is parsed here).

    :param raw: from the status line to the empty line
    :param head_only: whether it answers a HEAD
    :raises Unframable, MalformedRequest: see RFC 9112 §6.3
    """
    if not raw.startswith(_VERSIONS):
        raise Unframable("the protocol is not HTTP/1.1")
    status = int(raw[9:12]) if raw[9:12].isdigit() and raw[12:13] in (b" ", b"\r") else 0
    if not 100 <= status <= 599:
        raise Unframable("the status code is invalid")
    head = _read_lines(raw, status, head_only=head_only)
    if not head_only and len(raw) <= _HEAD_BYTES and b"set-cookie" not in raw.lower():
        remember(KNOWN_HEADS, raw, head, _HEADS)
    return head


def _read_lines(raw: bytes, status: int, *, head_only: bool) -> ResponseHead:
    lines: list[bytes] = []
    declared: int | None = None
    chunked = dated = limited = False
    options, upgrade = NO_OPTIONS, b""
    for line in raw[:-4].split(b"\r\n")[1:]:
        kind, value = _memo.get(line) or _read_line(line)
        if kind == _PLAIN:
            lines.append(line)
        elif kind == _LENGTH:
            check_once(declared is not None, "Content-Length")
            declared = value
        elif kind == _DATE:
            lines.append(line)
            dated = True
        elif kind == _OPTIONS:
            options |= value
        elif kind == _CODING:
            check_once(chunked, "Transfer-Encoding")
            chunked = True
        elif kind == _LIMIT:
            lines.append(line)
            limited = True
        elif kind == _UPGRADE:
            upgrade = value if not upgrade else b"repeated"
    http10 = raw[7] == _ZERO
    check_together(chunked=chunked, with_length=declared is not None, http10=http10)
    announced = chunked or bool(declared)
    if announced and status < 200:
        raise malformed("a 1xx response with content (RFC 9110 §15.2)")
    length = _length(status, declared, chunked=chunked, head_only=head_only)
    return ResponseHead(
        status,
        lines,
        length,
        _framing_line(status, length, declared),
        options - CONTROLS,
        keep_alive=length != UNTIL_CLOSE and persists(options, http10=http10) and not (announced and status == 204),
        dated=dated and b"date" not in options,
        limited=limited,
        upgrade=upgrade,
    )


def _length(status: int, declared: int | None, *, chunked: bool, head_only: bool) -> int:
    """The length of the content (RFC 9112 §6.3)."""
    if head_only or status < 200 or status in (204, 304):
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if declared is None else declared


def _framing_line(status: int, length: int, declared: int | None) -> bytes:
    """See :attr:`ResponseHead.framing`. For HEAD and 304, the length describes content that is not sent (RFC 9110 §8.6)."""
    if length < 0:
        return b"transfer-encoding: chunked\r\n"
    if declared is None or status < 200 or status == 204:
        return b""
    return b"content-length: %d\r\n" % declared


def _read_line(line: bytes) -> tuple[int, Any]:
    """The kind of a line, and its parsed value.

    :raises MalformedRequest: the line is invalid
    """
    written, _, value = line.partition(b":")
    name, value = written.lower(), value.strip(b" \t")
    kind = _KINDS.get(name, _PLAIN)
    said: Any = None
    if kind == _LENGTH:
        said = content_length(value)
    elif kind == _CODING:
        check_coding(value)
    elif kind == _OPTIONS:
        said = connection_options(name, value)
    elif kind == _UPGRADE:
        said = value.lower()
    read = (kind, said)
    if len(line) <= _LINE_BYTES and name != b"set-cookie":
        remember(_memo, line, read)
    return read
