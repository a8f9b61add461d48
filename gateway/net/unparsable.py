"""aiohttp's server connections, with requests that cannot be parsed refused as problems (RFC 9457).

aiohttp would answer them in plain text with its name and version, and log a traceback at error level with a part of the request, which may
include an ``Authorization`` field. For the operations port and the admin service.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from gateway.errors import PROBLEM_JSON, ExpectationFailed, HeadersTooLarge, MalformedRequest, Refusal, problem_of
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


class Connection(web.RequestHandler):
    """One client connection.

    :param options: of aiohttp's ``RequestHandler``
    """

    __slots__ = ("_finish", "_max_line")

    def __init__(
        self, server: web.Server, *, loop: asyncio.AbstractEventLoop, finish: Finish, max_line: int = MAX_LINE, **options: Any
    ) -> None:
        options |= {"max_line_size": max_line, "max_field_size": max_line, "auto_decompress": False}
        super().__init__(server, loop=loop, access_log=None, **options)  # type: ignore[arg-type]  # None disables aiohttp's access log
        self._finish = finish
        self._max_line = max_line

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
