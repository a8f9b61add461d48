"""One line per answer, as far as the settings want it: without query, credentials or bodies."""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from admin.api.problems import CODE, REQUEST_ID
from gateway.runtime import clock
from gateway.telemetry import AccessLog

_log = structlog.get_logger("access")


def access_log(share: float) -> Middleware:
    """A middleware outside ``problems``: every refusal, and the share of the rest.

    :param share: 0 logs nothing
    """
    access = AccessLog(share)

    @web.middleware
    async def log(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_ms = clock.monotonic_ms()
        response = await handler(request)
        code = response.get(CODE)
        if access.enabled and (code is not None or access.sampled()):
            _log.info(
                "request",
                outcome=code or "answered",
                method=request.method,
                path=request.path,
                status=response.status,
                request_id=request.get(REQUEST_ID),
                total_ms=clock.monotonic_ms() - started_ms,
            )
        return response

    return log
