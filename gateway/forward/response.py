"""The head of an upstream's response and the checks on it that llhttp leaves to its user (RFC 9112 §6). Pure."""

import re
from typing import NamedTuple

from gateway.forward.headers import Field

CHUNKED = -1
"""As a length: the content ends where the chunked coding says so."""
UNTIL_CLOSE = -2
"""As a length: the content ends where the connection does."""

SPECIAL = frozenset({b"content-length", b"transfer-encoding", b"connection", b"date"})

_LENGTH = re.compile(rb"[0-9]{1,18}")


class Unframable(Exception):
    """A response whose end cannot be told beyond doubt. Internal to this room: it becomes a 502."""


class ResponseHead(NamedTuple):
    """One response head. Field names are in lower case."""

    status: int
    headers: list[Field]
    length: int
    """Bytes of content that follow, or :data:`CHUNKED`, or :data:`UNTIL_CLOSE`; 0 where the status or the method allows none."""
    declared_length: int | None
    """What Content-Length says, which for HEAD and 304 speaks of content that is not sent."""
    options: frozenset[bytes]
    """What ``Connection`` names, in lower case."""
    keep_alive: bool
    dated: bool


_NO_OPTIONS: frozenset[bytes] = frozenset()


def read_head(status: int, fields: list[Field], special: list[Field], *, http10: bool, head_only: bool) -> ResponseHead:
    """Check one head that llhttp has accepted.

    :param special: those of ``fields`` that are in :data:`SPECIAL`
    :param head_only: it answers a HEAD
    :raises Unframable: see RFC 9112 §6.3
    """
    declared: int | None = None
    chunked = dated = False
    options = _NO_OPTIONS
    for name, value in special:
        if name == b"content-length":
            if declared is not None or not _LENGTH.fullmatch(value):
                raise Unframable("Content-Length is repeated or not a number")
            declared = int(value)
        elif name == b"date":
            dated = True
        elif name == b"connection":
            options |= {option for part in value.lower().split(b",") if (option := part.strip(b" \t"))}
        else:
            if chunked or value.lower() != b"chunked" or http10:
                raise Unframable("Transfer-Encoding is not exactly chunked, or is on HTTP/1.0")
            chunked = True
    if chunked and declared is not None:
        raise Unframable("both Content-Length and Transfer-Encoding are given")
    if not 100 <= status <= 599:
        raise Unframable("the status code is not one")
    if head_only or status < 200 or status in (204, 304):
        length = 0
    elif chunked:
        length = CHUNKED
    else:
        length = UNTIL_CLOSE if declared is None else declared
    keep_alive = b"keep-alive" in options if http10 else True
    return ResponseHead(
        status=status,
        headers=fields,
        length=length,
        declared_length=declared,
        options=options,
        keep_alive=keep_alive and b"close" not in options and length != UNTIL_CLOSE,
        dated=dated,
    )
