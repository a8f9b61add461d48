"""The HTTP connections of the admin service: aiohttp's, but what cannot be parsed is refused in this service's own form.

aiohttp answers it as plain text with its own name and version, and logs a traceback at error level with a piece of the request, which may
be one of an ``Authorization`` field.
"""

import json
import secrets
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from admin.api.problems import common_headers
from admin.errors import InvalidJson
from gateway.errors import PROBLEM_JSON, ExpectationFailed, HeadersTooLarge, Refusal, problem_of

_LONGEST_LINE = 8_190

RequestHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger(__name__)


class Connection(web.RequestHandler):
    """One connection of a client."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what never became a request; anything else is a defect and aiohttp's to log."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        return _refused(_refusal(exc), type(exc).__name__)


def expecting_to_continue(handle: RequestHandler) -> RequestHandler:
    """An application's handler that is asked for no other expectation (RFC 9110 §10.1.1): aiohttp refuses those outside all middlewares."""

    async def checked(request: web.BaseRequest) -> web.StreamResponse:
        if any(value.lower() not in ("", "100-continue") for value in request.headers.getall("Expect", [])):
            return _refused(ExpectationFailed("Expect takes 100-continue only."), "Expect")
        return await handle(request)

    return checked


def _refusal(error: HttpProcessingError) -> Refusal:
    if isinstance(error, LineTooLong):
        return HeadersTooLarge(f"A line of the request has at most {_LONGEST_LINE} bytes here.", extras={"limit": _LONGEST_LINE})
    return InvalidJson("The request is not valid HTTP.")


def _refused(refusal: Refusal, kind: str) -> web.Response:
    request_id = secrets.token_hex(16)
    _log.info("request_malformed", kind=kind, request_id=request_id)
    body = json.dumps(problem_of(refusal, request_id=request_id)).encode()
    response = web.Response(status=refusal.status, body=body, content_type=PROBLEM_JSON)
    common_headers(response, request_id)
    response.force_close()
    return response
