"""The immutable request and answer values that the server, admission and forwarding share.

It lives outside those three rooms because each of them speaks of it and none may import another for it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.http1.shape import Shape


class Inbound:
    """What admission decides on: a request, or one message of a session."""

    __slots__ = ("peer", "received_ms", "request_id")

    peer: str
    """The transport peer's IP address as text, or the source a trusted peer's PROXY header names; ``""`` for a Unix socket."""
    received_ms: int
    """Unix milliseconds, captured once when it was complete."""
    request_id: str
    """This gate's own id for it; goes upstream, in refusals and in logs."""


class Request(Inbound):
    """One HTTP/1.1 request as received (RFC 9112). Nothing in it was decoded or re-encoded, and nothing is changed after it was made.

    A plain class with slots, as is whatever is made for every request: the quickest to make and to read, compiled or not.
    """

    __slots__ = ("believed", "body", "headers", "method", "path", "query", "secure", "shape", "target")

    def __init__(  # noqa: PLR0917  # in the order of its story, by position, where it is made
        self, method: bytes, target: bytes, path: bytes, query: bytes | None, headers: Sequence[tuple[bytes, bytes]], body: bytes,
        peer: str, secure: bool, received_ms: int, request_id: str, believed: bool = True, shape: Shape | None = None,
    ) -> None:  # fmt: skip
        self.method = method
        """In upper case as received, e.g. ``b"GET"``."""
        self.target = target
        """The origin-form request target (RFC 9112 §3.2.1), exactly the bytes received."""
        self.path = path
        """``target`` up to, not including, the first ``?``."""
        self.query = query
        """What follows the first ``?``; ``None`` when there is no ``?``, ``b""`` when nothing follows it."""
        self.headers = headers
        """Field lines in the order received; names in lower case, values without surrounding white space."""
        self.body = body
        """The whole content (chunked coding removed); ``b""`` when there is none, and always for a streamed body."""
        self.peer = peer
        self.secure = secure
        """True when the client came over TLS to this gate."""
        self.received_ms = received_ms
        self.request_id = request_id
        self.believed = believed
        """False when a PROXY header did not say who the client is: then no header field is believed about it either."""
        self.shape = shape
        """That of its head, when it is known."""

    def with_content(self, body: bytes, received_ms: int) -> "Request":
        """The same request once its content has come."""
        return Request(
            self.method, self.target, self.path, self.query, self.headers, body, self.peer, self.secure, received_ms, self.request_id,
            self.believed, self.shape,
        )  # fmt: skip

    def replace(self, **changes: Any) -> "Request":
        """The same request but for these values. Off the hot path."""
        return Request(**{name: getattr(self, name) for name in _NAMES} | changes)

    def field_lines(self, name: bytes) -> list[bytes]:
        """Values of every field line with this lower-case name, in order; never joined, so a repeat stays visible."""
        return [value for field, value in self.headers if field == name]


_NAMES = ("method", "target", "path", "query", "headers", "body", "peer", "secure", "received_ms", "request_id", "believed")


class Answer(NamedTuple):
    """An answer that the gate itself gives, ready to be framed by the server (which adds Content-Length, Date, Connection)."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Identity(NamedTuple):
    """Who an admitted request is from, as asserted to the upstream. One object per cached key, so it can be cached by."""

    account_id: str
    key_id: str
    scopes: tuple[str, ...]
    """Sorted: ``("read",)``, ``("read", "trade")``, ``("trade",)``."""
