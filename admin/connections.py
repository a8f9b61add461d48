"""HTTP connections of the admin service: limited in number, by the client's network and in total."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from aiohttp import web

from admin.api.problems import common_headers
from admin.config import AdminLimits
from gateway.net import unparsable
from gateway.net.addresses import Network, NetworkList, customer_network
from gateway.net.tally import Tally


class ConnectionLimit:
    """Limits the connections of one port by the client's network, except those of trusted proxies.

    :param refused: called for each refused connection
    """

    def __init__(self, limits: AdminLimits, trusted: Sequence[Network], refused: Callable[[], None]) -> None:
        self._limits = limits
        self._trusted = NetworkList(trusted)
        self._refused = refused
        self._by_network = Tally()

    def has_room(self, peer: str, of_peer: int = 0, in_all: int = 0) -> bool:
        """Whether one more connection may be opened; if not, counts it as refused.

        :param of_peer: connections of its network that are being opened
        :param in_all: connections that are being opened in total
        """
        of_peer += self._by_network.of(customer_network(peer))
        full = of_peer >= self._limits.max_connections_per_address and not self._trusted.contains(peer)
        if full or self._by_network.total + in_all >= self._limits.max_connections:
            self._refused()
            return False
        return True

    def enter(self, peer: str) -> str | None:
        """Count a connection. Returns the network for :meth:`leave`; ``None``: there are too many."""
        if not self.has_room(peer):
            return None
        network = customer_network(peer)
        self._by_network.add(network)
        return network

    def leave(self, network: str) -> None:
        self._by_network.remove(network)


class Connection(unparsable.Connection):
    """One client connection; excess ones are dropped before anything is read."""

    __slots__ = ("_connection_limit", "_counted")

    def __init__(self, connection_limit: ConnectionLimit, server: web.Server, *, loop: asyncio.AbstractEventLoop, idle_s: float) -> None:
        super().__init__(server, loop=loop, finish=common_headers, keepalive_timeout=idle_s)
        self._connection_limit = connection_limit
        self._counted: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established, including TLS."""
        peer = transport.get_extra_info("peername")
        self._counted = self._connection_limit.enter(peer[0] if peer else "")
        if self._counted is None:
            cast("asyncio.Transport", transport).abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        if self._counted is not None:
            self._connection_limit.leave(self._counted)
            super().connection_lost(exc)


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
