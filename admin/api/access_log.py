"""Access log and request metrics of the admin service, without query strings, credentials or bodies."""

from collections.abc import Sequence

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from admin.api.problems import ACCOUNT, CODE, OPERATOR, REASON, REQUEST_ID
from admin.metrics import AdminMetrics
from gateway.net.addresses import Network
from gateway.net.client_ip import client_ip
from gateway.runtime import clock
from gateway.telemetry import AccessLog

_log = structlog.get_logger("access")


def access_log(share: float, trusted: Sequence[Network], metrics: AdminMetrics, *, port: str) -> Middleware:
    """A middleware, outside ``problems``, that logs refusals and a share of other requests.

    :param share: 0 logs refusals only, within their budget
    :param trusted: proxies whose ``X-Forwarded-For`` is used
    """
    access = AccessLog(share)

    @web.middleware
    async def log(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_ms = clock.monotonic_ms()
        response = await handler(request)
        code, total_ms = response.get(CODE), clock.monotonic_ms() - started_ms
        metrics.answered(port, code or "answered", total_ms / 1000)
        if access.takes(clock.monotonic_ms()) if code is not None else access.enabled and access.sampled():
            _log.info(
                "request",
                port=port,
                outcome=code or "answered",
                method=request.method,
                path=request.path,
                status=response.status,
                reason=response.get(REASON),
                request_id=request.get(REQUEST_ID),
                account_id=request.get(ACCOUNT),
                operator=request.get(OPERATOR),
                client_ip=client_ip(request.remote, request.headers.getall("X-Forwarded-For", []), trusted),
                total_ms=total_ms,
            )
        return response

    return log
