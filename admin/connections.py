"""HTTP connections of the admin service: aiohttp's, with requests that cannot be parsed refused as problems (RFC 9457).

aiohttp would answer them in plain text with its name and version, and log a traceback at error level with a part of the request, which may
include an ``Authorization`` field.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from admin.api.problems import common_headers
from admin.config import AdminLimits
from admin.errors import InvalidJson
from gateway.errors import PROBLEM_JSON, ExpectationFailed, HeadersTooLarge, Refusal, problem_of
from gateway.net.addresses import Network, NetworkList, customer_network
from gateway.net.tally import Tally

_MAX_LINE = 8_190

RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger(__name__)


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


class Connection(web.RequestHandler):
    """One client connection; excess ones are dropped before anything is read."""

    __slots__ = ("_connection_limit", "_counted")

    def __init__(self, connection_limit: ConnectionLimit, server: web.Server, *, loop: asyncio.AbstractEventLoop, idle_s: float) -> None:
        # None disables aiohttp's access log.
        super().__init__(server, loop=loop, keepalive_timeout=idle_s, access_log=None, auto_decompress=False)  # type: ignore[arg-type]
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

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to bytes that are not a valid request; anything else is a defect, which aiohttp logs."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        return _refused(_refusal(exc), type(exc).__name__)


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


def expecting_to_continue(handle: RequestHandler) -> RequestHandler:
    """Wrap a handler to refuse other expectations (RFC 9110 §10.1.1) as problems: aiohttp refuses them outside all middlewares."""

    async def checked(request: web.BaseRequest) -> web.StreamResponse:
        if any(value.lower() not in ("", "100-continue") for value in request.headers.getall("Expect", [])):
            return _refused(ExpectationFailed("The only expectation supported is 100-continue."), "Expect")
        return await handle(request)

    return checked


def _refusal(error: HttpProcessingError) -> Refusal:
    if isinstance(error, LineTooLong):
        return HeadersTooLarge(f"A line of the request exceeds {_MAX_LINE} bytes.", extras={"limit": _MAX_LINE})
    return InvalidJson("The request is not valid HTTP.")


def _refused(refusal: Refusal, kind: str) -> web.Response:
    request_id = secrets.token_hex(16)
    _log.info("request_malformed", kind=kind, request_id=request_id)
    body = json.dumps(problem_of(refusal, request_id=request_id)).encode()
    response = web.Response(status=refusal.status, body=body, content_type=PROBLEM_JSON)
    common_headers(response, request_id)
    response.force_close()
    return response
