"""Serializes HTTP/1.1 answers: the gateway's own, and the head of a relayed response. Pure; the time is an argument."""

from collections.abc import Collection, Iterable
from email.utils import formatdate
from typing import Final

from gateway.http1.cors import REPLACED
from gateway.http1.framing import NO_OPTIONS
from gateway.http1.message import Answer
from gateway.http1.request_head import METHODS
from gateway.http1.response import RATE_LIMIT, ResponseHead, status_line

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OPTIONS: Final = Answer(200, ((b"allow", METHODS),), b"")
"""The answer to ``OPTIONS *``, which addresses the gate itself, and to an OPTIONS that must not be forwarded (RFC 9110 §9.3.7, §7.6.2)."""

_CLOSE: Final = b"connection: close\r\n\r\n"
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n\r\n"
END: Final = b"\r\n"
_WITHOUT_CONTENT = frozenset({204, 304})


class DateLine:
    """The ``Date`` field line (RFC 9110 §6.6.1), formatted once a second."""

    __slots__ = ("_line", "_until_ms")

    def __init__(self) -> None:
        self._until_ms = 0
        self._line = b""

    def at(self, now_ms: int) -> bytes:
        if now_ms >= self._until_ms or now_ms < self._until_ms - 1000:
            second = now_ms // 1000
            self._until_ms = (second + 1) * 1000
            self._line = f"date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


def connection_end(*, keep_alive: bool, http10: bool) -> bytes:
    """The ``Connection`` field, if needed, and the empty line that ends a head."""
    if not keep_alive:
        return _CLOSE
    return _KEEP_ALIVE if http10 else END


def own(answer: Answer, *, date: bytes, more: bytes, keep_alive: bool, http10: bool, head_only: bool) -> bytes:
    """A complete answer of the gate itself.

    :param more: rendered field lines to add
    :param head_only: whether the request was a HEAD: the same head, no content (RFC 9110 §9.3.2)
    """
    lines = b"".join([name + b": " + value + b"\r\n" for name, value in answer.headers])
    bare = answer.status in _WITHOUT_CONTENT
    length = b"" if bare else b"content-length: %d\r\n" % len(answer.body)
    end = connection_end(keep_alive=keep_alive, http10=http10)
    return status_line(answer.status) + date + lines + more + length + end + (b"" if head_only or bare else answer.body)


def relayed(  # noqa: PLR0917  # in the order in which they are written
    head: ResponseHead, date: bytes, more: bytes, framing: bytes, end: bytes, cors: bytes = b""
) -> bytes:
    """The head of an upstream's response, as sent to the client.

    :param date: added to a head without ``Date`` (RFC 9110 §6.6.1)
    :param more: rendered field lines of the gate's rate limit, which replace the upstream's
    :param framing: the field line that frames the content, or ``b""``
    :param end: see :func:`connection_end`
    :param cors: CORS field lines, which replace the upstream's
    """
    kept = head.rendered
    if cors or head.named or (head.limited and more):
        drop = head.named | (REPLACED if cors else NO_OPTIONS) | (RATE_LIMIT if more else NO_OPTIONS)
        kept = status_line(head.status) + b"\r\n".join([*without(head.lines, drop), cors])
    return b"".join((kept, b"" if head.dated else date, more, framing, end))


def interim(head: ResponseHead) -> bytes:
    """A relayed 1xx response (RFC 9110 §15.2)."""
    return relayed(head, b"", b"", b"", END)


def switching(head: ResponseHead, more: bytes, drop: frozenset[bytes]) -> bytes:
    """A 101 that opens a WebSocket tunnel (RFC 6455 §4.2.2).

    :param drop: fields of the service that are not relayed
    """
    if drop:
        lines = b"\r\n".join([*without(head.lines, head.named | drop | RATE_LIMIT if more else head.named | drop), b""])
        return b"".join((status_line(head.status), lines, more, b"upgrade: websocket\r\nconnection: Upgrade\r\n\r\n"))
    return relayed(head, b"", more, b"upgrade: websocket\r\n", b"connection: Upgrade\r\n\r\n")


def without(lines: Iterable[bytes], names: Collection[bytes]) -> list[bytes]:
    """The field lines without those that have these lower-case names."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
