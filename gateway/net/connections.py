"""aiohttp's server connections, for the operations port and the admin service: limited in number, and with requests that cannot be parsed
refused as problems (RFC 9457).

aiohttp would answer these in plain text with its name and version, and log a traceback at error level with a part of the request, which may
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

from gateway.errors import PROBLEM_JSON, ExpectationFailed, HeadersTooLarge, MalformedRequest, Refusal, problem_of
from gateway.net.addresses import Network, NetworkList, most_of_site, owners
from gateway.net.tally import NONE, Tally
from gateway.runtime import clock
from gateway.telemetry import AccessLog

MAX_LINE = 8_190
"""aiohttp's maximum of a line, unless it is configured."""

RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Finish = Callable[[web.StreamResponse, str], None]
"""Adds the header fields that every response of the port has; takes the request id."""

_log = structlog.get_logger(__name__)
_budget = AccessLog(0.0)
"""Whoever can connect can send such requests: they must not fill a disk."""


class ConnectionLimit:
    """Limits the connections of one port by the client's network and site, except those of trusted proxies.

    :param in_all: maximum number of connections
    :param of_one: maximum number of connections of one network
    :param refused: called for each refused connection
    """

    def __init__(self, *, in_all: int, of_one: int, trusted: Sequence[Network] = (), refused: Callable[[], None] = lambda: None) -> None:
        self._in_all = in_all
        self._of_one = of_one
        self._of_site = most_of_site(of_one, in_all)
        self._trusted = NetworkList(trusted)
        self._refused = refused
        self._open = Tally()

    def has_room(self, peer: str, opening: Tally = NONE) -> bool:
        """Whether one more connection may be opened; if not, counts it as refused.

        :param opening: connections that are being opened
        """
        full = self._open.total + opening.total >= self._in_all
        if not full and not self._trusted.contains(peer):
            full = self._open.room(owners(peer), self._of_one, self._of_site, opening) <= 0
        if full:
            self._refused()
        return not full

    def enter(self, peer: str) -> bool:
        """Count a connection, until :meth:`leave`. False: there are too many."""
        if not self.has_room(peer):
            return False
        self._open.add(owners(peer))
        return True

    def leave(self, peer: str) -> None:
        """The connection of a peer that entered is closed."""
        self._open.remove(owners(peer))


class Connection(web.RequestHandler):
    """One client connection; excess ones are dropped before anything is read.

    :param idle_s: time limit of silence, and of the first request's head
    :param head_s: a shorter limit of that head
    :param options: of aiohttp's ``RequestHandler``
    """

    __slots__ = ("_connection_limit", "_counted", "_finish", "_head_s", "_head_timer", "_max_line")

    def __init__(
        self, connection_limit: ConnectionLimit, server: web.Server, *, loop: asyncio.AbstractEventLoop, finish: Finish, idle_s: float,
        head_s: float | None = None, max_line: int = MAX_LINE, **options: Any,
    ) -> None:  # fmt: skip
        options |= {"max_line_size": max_line, "max_field_size": max_line, "auto_decompress": False, "keepalive_timeout": idle_s}
        super().__init__(server, loop=loop, access_log=None, **options)  # type: ignore[arg-type]  # None disables aiohttp's access log
        self._finish = finish
        self._max_line = max_line
        self._connection_limit = connection_limit
        self._counted: str | None = None
        self._head_s = head_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is established, including TLS."""
        name = transport.get_extra_info("peername")
        peer = name[0] if name else ""
        if not self._connection_limit.enter(peer):
            cast("asyncio.Transport", transport).abort()
            return
        self._counted = peer
        super().connection_made(transport)
        if self._head_s is not None:
            self._head_timer = asyncio.get_running_loop().call_later(self._head_s, cast("asyncio.Transport", transport).abort)

    def begun(self) -> None:
        """A request's head has arrived."""
        if self._head_timer is not None:
            self._head_timer.cancel()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        self.begun()
        if self._counted is not None:
            self._connection_limit.leave(self._counted)
            super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to bytes that are not a valid request; anything else is a defect, which aiohttp logs."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        return _refused(self._refusal(exc), type(exc).__name__, self._finish)

    def _refusal(self, error: HttpProcessingError) -> Refusal:
        if isinstance(error, LineTooLong):
            return HeadersTooLarge(f"A line of the request exceeds {self._max_line} bytes.", extras={"limit": self._max_line})
        return MalformedRequest("The request is not valid HTTP.")


def expecting_to_continue(handle: RequestHandler, finish: Finish) -> RequestHandler:
    """Wrap a server's handler to refuse other expectations (RFC 9110 §10.1.1) as problems: aiohttp refuses them outside all middlewares."""

    async def checked(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.begun()
        if any(value.lower() not in ("", "100-continue") for value in request.headers.getall("Expect", [])):
            return _refused(ExpectationFailed("The only expectation supported is 100-continue."), "Expect", finish)
        return await handle(request)

    return checked


def _refused(refusal: Refusal, kind: str, finish: Finish) -> web.Response:
    request_id = secrets.token_hex(16)
    if _budget.takes(clock.monotonic_ms()):
        _log.info("request_malformed", kind=kind, request_id=request_id)
    body = json.dumps(problem_of(refusal, request_id=request_id)).encode()
    response = web.Response(status=refusal.status, body=body, content_type=PROBLEM_JSON)
    finish(response, request_id)
    response.force_close()
    return response
