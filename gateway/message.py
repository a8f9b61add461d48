"""The frozen request value that the server makes, admission reads and forward sends.

It lives outside those three rooms because each of them speaks of it and none may import another for it.
"""

from typing import NamedTuple


class Request(NamedTuple):
    """One HTTP/1.1 request as received (RFC 9112). Nothing in it was decoded or re-encoded.

    A named tuple rather than a frozen dataclass: it is built once per request on the hot path.
    """

    method: bytes
    """In upper case as received, e.g. ``b"GET"``."""
    target: bytes
    """The origin-form request target (RFC 9112 §3.2.1), exactly the bytes received."""
    path: bytes
    """``target`` up to, not including, the first ``?``."""
    query: bytes | None
    """What follows the first ``?``; ``None`` when there is no ``?``, ``b""`` when nothing follows it."""
    headers: tuple[tuple[bytes, bytes], ...]
    """Field lines in the order received; names in lower case, values without surrounding white space."""
    body: bytes
    """The whole content (chunked coding removed); ``b""`` when there is none, and always for a streamed body."""
    peer: str
    """The transport peer's IP address as text, or the source a trusted peer's PROXY header names; ``""`` for a Unix socket."""
    secure: bool
    """True when the client came over TLS to this gate."""
    received_ms: int
    """Unix milliseconds, captured once when the request was complete."""
    request_id: str
    """This gate's own id for the request; goes upstream, in refusals and in logs."""

    def field_lines(self, name: bytes) -> list[bytes]:
        """Values of every field line with this lower-case name, in order; never joined, so a repeat stays visible."""
        return [value for field, value in self.headers if field == name]


class Answer(NamedTuple):
    """An answer that the gate itself gives, ready to be framed by the server (which adds Content-Length, Date, Connection)."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Identity(NamedTuple):
    """Who an admitted request is from: what the upstream is told. One object per cached key, so it can be cached by."""

    account_id: str
    key_id: str
    scopes: tuple[str, ...]
    """Sorted: ``("read",)``, ``("read", "trade")``, ``("trade",)``."""
