"""The head of an upstream's response and the checks on it that llhttp leaves to its user (RFC 9112 §6). Pure."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.http1.headers import HOP_BY_HOP, RATE_LIMIT

CHUNKED: Final = -1
"""As a length: the content ends where the chunked coding says so."""
UNTIL_CLOSE: Final = -2
"""As a length: the content ends where the connection does."""

_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_ZERO = ord("0")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CONTROLS = frozenset({b"close", b"keep-alive"})
_NOTHING: frozenset[bytes] = frozenset()


class Unframable(Exception):
    """A response whose end cannot be told beyond doubt. Internal to this room: it becomes a 502."""


class ResponseHead:
    """One response head. Mostly remembered, so quick to read matters more than quick to make."""

    __slots__ = ("dated", "framing", "keep_alive", "length", "limited", "lines", "named", "rendered", "status", "upgrade")

    def __init__(
        self, status: int, lines: Sequence[bytes], length: int, framing: bytes, named: frozenset[bytes], *,
        keep_alive: bool, dated: bool, limited: bool, upgrade: bytes,
    ) -> None:  # fmt: skip
        self.status = status
        self.lines = lines
        """The field lines as received, without those that are hop-by-hop or say how long the content is."""
        self.rendered = b"\r\n".join([*lines, b""])
        """The same, each ended by CRLF."""
        self.length = length
        """Bytes of content that follow, or :data:`CHUNKED`, or :data:`UNTIL_CLOSE`; 0 where the status or the method allows none."""
        self.framing = framing
        """The field line by which an HTTP/1.1 client is told where the content ends; ``b""`` where none is needed."""
        self.named = named
        """Fields that ``Connection`` names, in lower case: they go no further."""
        self.keep_alive = keep_alive
        self.dated = dated
        self.limited = limited
        """It has ``RateLimit-*`` fields of its own."""
        self.upgrade = upgrade
        """The Upgrade field's value in lower case."""


# What a field line is to the one who relays it; plain integers, since one is looked at for every line.
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
        b"date": _DATE,
        b"upgrade": _UPGRADE,
    }
)
_MEMO_LINES, _MEMO_LINE_BYTES = 1_024, 80
_MEMO_HEADS, _MEMO_HEAD_BYTES = 256, 1_024
_memo: Final[dict[bytes, tuple[int, Any]]] = {}
"""Lines read before, which most lines of most responses are; bounded, and without what belongs to one user."""
_heads: Final[dict[bytes, ResponseHead]] = {}
"""Heads read before, each with the empty line that ends it, so that none is the beginning of another. Bounded in the same way."""


def read_head(raw: bytes, status: int, *, head_only: bool) -> ResponseHead:
    """Check and cut a head that llhttp has accepted (see ``gateway.http1.request_head`` for why it is cut here).

    :param raw: begins with the status line and contains the head
    :param head_only: it answers a HEAD
    :raises Unframable: see RFC 9112 §6.3
    """
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    known = _heads.get(raw)
    if known is not None and not head_only:
        return known
    if not raw.startswith(_VERSIONS):
        raise Unframable("the protocol is not HTTP/1.1")
    if not 100 <= status <= 599:
        raise Unframable("the status code is not one")
    head = _read_lines(raw, status, head_only=head_only)
    if not head_only and len(raw) <= _MEMO_HEAD_BYTES and b"set-cookie" not in raw.lower():
        if len(_heads) >= _MEMO_HEADS:
            _heads.clear()
        _heads[raw] = head
    return head


def read_whole(data: bytes) -> tuple[ResponseHead, bytes] | None:
    """Head and content, when exactly one whole final response has come whose very head llhttp has accepted before; else ``None``.

    Not for what answers a HEAD.
    """
    end = data.find(b"\r\n\r\n") + 4  # 3 when there is none yet, and no head is so short
    known = _heads.get(data[:end])
    if known is None or known.status < 200 or len(data) - end != known.length:
        return None
    return known, data[end:]


def _read_lines(raw: bytes, status: int, *, head_only: bool) -> ResponseHead:
    lines: list[bytes] = []
    declared: int | None = None
    chunked = dated = limited = False
    options, upgrade = _NOTHING, b""
    for line in raw[:-4].split(b"\r\n")[1:]:
        kind, value = _memo.get(line) or _read_line(line)
        if kind == _PLAIN:
            lines.append(line)
        elif kind == _LENGTH:
            if declared is not None:
                raise Unframable("Content-Length is repeated")
            declared = value
        elif kind == _DATE:
            lines.append(line)
            dated = True
        elif kind == _OPTIONS:
            options |= value
        elif kind == _CODING:
            if chunked:
                raise Unframable("Transfer-Encoding is repeated")
            chunked = True
        elif kind == _LIMIT:
            lines.append(line)
            limited = True
        elif kind == _UPGRADE:
            upgrade = value if not upgrade else b"repeated"
    http10 = raw[7] == _ZERO
    if chunked and (declared is not None or http10):
        raise Unframable("Transfer-Encoding is beside Content-Length, or on HTTP/1.0")
    length = _length(status, declared, chunked=chunked, head_only=head_only)
    keep_alive = length != UNTIL_CLOSE and not http10
    if options:
        keep_alive = length != UNTIL_CLOSE and b"close" not in options and (not http10 or b"keep-alive" in options)
        options -= _CONTROLS
    framing = _framing_line(status, length, declared)
    return ResponseHead(status, lines, length, framing, options, keep_alive=keep_alive, dated=dated, limited=limited, upgrade=upgrade)


def _length(status: int, declared: int | None, *, chunked: bool, head_only: bool) -> int:
    """RFC 9112 §6.3."""
    if head_only or status < 200 or status in (204, 304):
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if declared is None else declared


def _framing_line(status: int, length: int, declared: int | None) -> bytes:
    """See :attr:`ResponseHead.framing`. To HEAD and 304, the length speaks of content that is not sent (RFC 9110 §8.6)."""
    if length < 0:
        return b"transfer-encoding: chunked\r\n"
    if declared is None or status < 200 or status == 204:
        return b""
    return b"content-length: %d\r\n" % declared


def _read_line(line: bytes) -> tuple[int, Any]:
    """Kind, and what a line of that kind says.

    :raises Unframable: it says nothing that could be relied on
    """
    written, _, value = line.partition(b":")
    name, value = written.lower(), value.strip()
    kind = _KINDS.get(name, _PLAIN)
    read = (kind, _READERS[kind](value) if kind in _READERS else None)
    if len(line) <= _MEMO_LINE_BYTES and name != b"set-cookie":
        if len(_memo) >= _MEMO_LINES:
            _memo.clear()
        _memo[line] = read
    return read


def _read_length(value: bytes) -> int:
    if not _DIGITS.fullmatch(value):
        raise Unframable("Content-Length is not a number")
    return int(value)


def _read_coding(value: bytes) -> None:
    if value.lower() != b"chunked":
        raise Unframable("Transfer-Encoding is not exactly chunked")


def _read_options(value: bytes) -> frozenset[bytes]:
    return frozenset(option for part in value.lower().split(b",") if (option := part.strip()))


_READERS: dict[int, Callable[[bytes], Any]] = {
    _LENGTH: _read_length, _CODING: _read_coding, _OPTIONS: _read_options, _UPGRADE: bytes.lower,
}  # fmt: skip
