"""TLS connections of the admin service."""

from collections.abc import Callable
from typing import Any

from admin.config import AdminLimits
from gateway.net.connections import Connection, ConnectionLimit


class ListenerHost:
    """A :class:`gateway.net.preamble.Host`, whose preambles count as open connections."""

    def __init__(self, connection_limit: ConnectionLimit, connection: Callable[[], Connection], limits: AdminLimits) -> None:
        self._connection = connection
        self._seconds = limits.request_timeout_ms / 1000
        self.has_room = connection_limit.has_room

    def sends_header(self, _peer: str) -> bool:
        """PROXY headers are not supported here."""
        return False

    def preamble_seconds(self) -> float:
        """The time limit of a handshake."""
        return self._seconds

    def tls_limits(self) -> dict[str, Any]:
        """The event loop's default applies."""
        return {}

    def preamble_failed(self, reason: str) -> None:
        """Failed handshakes are neither counted nor logged."""

    def in_turn(self, _peer: str, begin: Callable[[], None]) -> None:
        """Begin at once."""
        begin()

    def client(self, _peer: str | None = None, *, believed: bool = True) -> Connection:  # noqa: ARG002  # a peer without a header is trusted
        """The protocol for a client, which is the transport's peer."""
        return self._connection()
