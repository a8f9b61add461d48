"""The immutable request and answer values that the server, admission and forwarding share.

They are defined here because all three use them, and must not import each other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gateway.http1.shape import Shape


class Inbound:
    """The input of admission: a request, or one message of a session."""

    __slots__ = ("peer", "received_ms", "request_id")

    peer: str
    """The transport peer's IP address as text, or the source address in a trusted peer's PROXY header; ``""`` for a Unix socket."""
    received_ms: int
    """Unix milliseconds, taken once, when it was complete."""
    request_id: str
    """The id that this gate assigned; sent to the upstream, and part of refusals and logs."""


class Request(Inbound):
    """One HTTP/1.1 request as received (RFC 9112). Nothing in it is decoded or re-encoded, and it is immutable.

    A plain class with slots, like everything created for each request, because that is fastest, compiled or not.
    """

    __slots__ = ("believed", "body", "headers", "method", "path", "query", "secure", "shape", "target")

    def __init__(  # noqa: PLR0917  # in the order of its story, by position, where it is made
        self, method: bytes, target: bytes, path: bytes, query: bytes | None, headers: Sequence[tuple[bytes, bytes]], body: bytes,
        peer: str, secure: bool, received_ms: int, request_id: str, believed: bool = True, shape: Shape | None = None,
    ) -> None:  # fmt: skip
        self.method = method
        """As received, in upper case, e.g. ``b"GET"``."""
        self.target = target
        """The origin-form request target (RFC 9112 §3.2.1), exactly the bytes received."""
        self.path = path
        """``target`` up to, not including, the first ``?``."""
        self.query = query
        """The part after the first ``?``; ``None`` without ``?``, ``b""`` if nothing follows it."""
        self.headers = headers
        """Field lines in the order received; names in lower case, values without surrounding white space."""
        self.body = body
        """The complete content (chunked coding removed); ``b""`` without content, and for streamed content."""
        self.peer = peer
        self.secure = secure
        """Whether the client connected to this gate over TLS."""
        self.received_ms = received_ms
        self.request_id = request_id
        self.believed = believed
        """False if a PROXY header did not name the client: then no header field is believed about it either."""
        self.shape = shape
        """The shape of its head, if recognized."""

    def with_content(self, body: bytes, received_ms: int) -> "Request":
        """The same request with its content."""
        return Request(
            self.method, self.target, self.path, self.query, self.headers, body, self.peer, self.secure, received_ms, self.request_id,
            self.believed, self.shape,
        )  # fmt: skip

    def replace(self, **changes: Any) -> "Request":
        """A copy of the request with these changes. Not for the hot path."""
        return Request(**{name: getattr(self, name) for name in _NAMES} | changes)

    def field_lines(self, name: bytes) -> list[bytes]:
        """The values of all field lines with this lower-case name, in order; not joined, so that repetitions remain visible."""
        return [value for field, value in self.headers if field == name]


_NAMES = ("method", "target", "path", "query", "headers", "body", "peer", "secure", "received_ms", "request_id", "believed")


class Answer(NamedTuple):
    """An answer of the gate itself, to be framed by the server (which adds Content-Length, Date, Connection)."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Identity(NamedTuple):
    """Who an admitted request is from, as asserted to the upstream. One object per cached key, so that it can be a cache key."""

    account_id: str
    key_id: str
    scopes: tuple[str, ...]
    """Sorted: ``("read",)``, ``("read", "trade")``, ``("trade",)``."""
