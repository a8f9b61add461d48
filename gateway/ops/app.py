"""HTTP API of the operations port: health, readiness, metrics, reload, configuration, public keys, decisions.

GET  /health                  200 {"status": "alive"} as long as the process lives
GET  /ready                   200 or 503 {"status": "ready" | "degraded" | "unready", "missing": […], "degraded": […], "workers": […]}
GET  /metrics                 Prometheus text
POST /reload                  200 {"outcome": "applied" | "unchanged", "version", "previous_version", "changes": […]}
                              or 422 with code ``reload_refused`` and "problems": [{"path", "message"}]
POST /reload?dry_run=true     the same without changing anything, outcome "would_apply", and "traffic": {"since_ms", "admitted", "refused",
                              "otherwise": [{"call", "requests", "now", "then"}]}
GET  /shadow                  {"enforce": "always" | "shadow", "decisions": [{"route", "outcome", "count"}]}
GET  /config                  {"version", "loaded_at", "settings"}, without secrets
GET  /.well-known/jwks.json   RFC 7517
ANY  /decision/…              see :mod:`gateway.ops.decision_endpoint`
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import structlog
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.assertion.keys import JWKS_MAX_AGE_S
from gateway.errors import PROBLEM_JSON, BodyTooLarge, InternalError, Refusal, problem
from gateway.net import descriptors
from gateway.net.connections import Connection, ConnectionLimit, expecting_to_continue
from gateway.ops import decision_endpoint as decision
from gateway.ops.report import Operated, Readiness, ReloadReport
from gateway.runtime import clock
from gateway.telemetry import AccessLog

MAX_BODY_BYTES = 1_024
"""Maximum body of a request, except for decisions."""
_MAX_HEADER_BYTES = 1 << 20
"""The maximum of ``limits.max_header_bytes``; decisions apply the configured value."""
_MAX_CONNECTIONS = 10_000
"""Of them one network has at most half: who only reads the public keys must not keep an operator, or a readiness probe, from connecting."""
_HEAD_SECONDS = 75.0
_IDLE_SECONDS = 3_630.0
"""Longer than proxies that ask for decisions keep a connection, Envoy an hour: a question that meets its close may not be repeated."""
_BODY_SECONDS = 15.0
_STOP_SECONDS = 1.0
"""How long requests in progress may take when the port is closed: no worker is left that could decide."""

_log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(operated: Operated) -> web.Application:
    """The ops application; it holds no state of its own."""
    app = web.Application(middlewares=[_problems], client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(_finish_headers)
    handlers = _Handlers(operated)
    app.add_routes(
        [
            web.route("*", "/decision/{proxy:nginx|forward-auth|envoy}", handlers.decide),
            web.route("*", "/decision/{proxy:envoy}/{target:.*}", handlers.decide),
            web.get("/health", handlers.health),
            web.get("/ready", handlers.ready),
            web.get("/metrics", handlers.metrics),
            web.post("/reload", handlers.reload),
            web.get("/shadow", handlers.shadow),
            web.get("/config", handlers.configuration),
            web.get("/.well-known/jwks.json", handlers.jwks),
        ]
    )
    return app


@asynccontextmanager
async def serving(operated: Operated, listening: socket.socket) -> AsyncIterator[None]:
    """Serve the port on this socket, which is taken over, until the end of the block.

    Decisions need headers as large as the data plane's, and content as it was signed.
    """
    runner = web.AppRunner(create_app(operated), access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS)
    await runner.setup()
    server, loop = cast("web.Server", runner.server), asyncio.get_running_loop()
    server.request_handler = expecting_to_continue(server.request_handler, _common_headers)
    in_all = min(_MAX_CONNECTIONS, descriptors.connections())
    budget = AccessLog(0.0)

    def refused() -> None:
        if budget.takes(clock.monotonic_ms()):
            _log.warning("ops_connections_refused", connections=in_all, of_one_address=in_all // 2)

    connection_limit = ConnectionLimit(in_all=in_all, of_one=in_all // 2, refused=refused)

    def connection() -> Connection:
        return Connection(
            connection_limit, server, loop=loop, finish=_common_headers, idle_s=_IDLE_SECONDS, head_s=_HEAD_SECONDS,
            max_line=_MAX_HEADER_BYTES, max_headers=_MAX_HEADER_BYTES // 4,
        )  # fmt: skip

    accepting = await loop.create_server(connection, sock=listening)
    try:
        yield
    finally:
        accepting.close()
        await runner.cleanup()


async def _finish_headers(_request: web.Request, response: web.StreamResponse) -> None:
    _common_headers(response, "")


def _common_headers(response: web.StreamResponse, _request_id: str) -> None:
    response.headers["Server"] = "gerbang"  # a decision's answer is shown to clients: it must not reveal versions


class _Handlers:
    def __init__(self, operated: Operated) -> None:
        self._operated = operated

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(self, _request: web.Request) -> web.Response:
        return _readiness(await self._operated.readiness())

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=await self._operated.metrics(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    async def reload(self, request: web.Request) -> web.Response:
        if hdrs.ORIGIN in request.headers:
            # A web page in the operator's browser can reach a loopback port, but cannot omit this header (Fetch §3.2).
            raise web.HTTPForbidden(text="not for browsers")
        dry_run = request.query.get("dry_run", "false")
        if dry_run not in ("true", "false"):
            raise web.HTTPBadRequest(text="dry_run must be true or false")
        return _reloaded(await (self._operated.dry_run() if dry_run == "true" else self._operated.reload()))

    async def configuration(self, _request: web.Request) -> web.Response:
        return web.json_response(self._operated.configuration())

    async def jwks(self, _request: web.Request) -> web.Response:
        return web.json_response(self._operated.jwks(), headers={hdrs.CACHE_CONTROL: f"public, max-age={JWKS_MAX_AGE_S}"})

    async def shadow(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._operated.shadow())

    async def decide(self, request: web.Request) -> web.Response:
        operated, proxy = self._operated, request.match_info["proxy"]
        try:
            body = await _whole_body(request, operated.max_body_bytes())
            verdict = await operated.decide(decision.read(request, proxy, body))
        except Refusal as refusal:
            verdict = operated.undecided(refusal)
        except ConnectionError:  # the proxy closed the connection before the content was complete
            raise web.HTTPBadRequest(text="the request ended early") from None
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except Exception:  # noqa: BLE001 - logged with its traceback, answered without
            _log.exception("ops_failed", method=request.method, path=request.path)
            verdict = operated.undecided(InternalError("internal error: see the gateway's log"))
        return decision.answer(verdict, proxy)


async def _whole_body(request: web.Request, limit: int) -> bytes:
    """:raises BodyTooLarge: it exceeds the limit

    :raises TimeoutError: it did not arrive in time
    """
    pieces, size = [], 0
    async with asyncio.timeout(_BODY_SECONDS):
        async for piece in request.content.iter_any():
            size += len(piece)
            if size > limit:
                raise BodyTooLarge(f"the body exceeds {limit} bytes")
            pieces.append(piece)
    return b"".join(pieces)


def _readiness(readiness: Readiness) -> web.Response:
    status = "unready" if readiness.missing else "degraded" if readiness.degraded else "ready"
    body = {"status": status, "missing": readiness.missing, "degraded": readiness.degraded, "workers": readiness.workers}
    return web.json_response(body, status=503 if readiness.missing else 200)


def _reloaded(report: ReloadReport) -> web.Response:
    body: dict[str, Any] = {
        "outcome": report.outcome,
        "version": report.version,
        "previous_version": report.previous,
        "changes": [change._asdict() for change in report.changes],
    }
    if report.traffic is not None:
        body["traffic"] = {**report.traffic._asdict(), "otherwise": [effect._asdict() for effect in report.traffic.otherwise]}
    if report.outcome != "refused":
        return web.json_response(body)
    detail = f"nothing was changed; version {report.version} stays in force"
    return _problem(422, "reload_refused", "Reload refused", detail, problems=[problem._asdict() for problem in report.problems], **body)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware that renders every error of this port as a problem (RFC 9457)."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        refusal = _problem(error.status, error.reason.lower().replace(" ", "_"), error.reason, f"{request.method} {request.path}")
        if hdrs.ALLOW in error.headers:
            refusal.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return refusal
    except Exception:  # noqa: BLE001 - logged with its traceback, answered without
        _log.exception("ops_failed", method=request.method, path=request.path)
        return _problem(500, "internal_error", "Internal error", "internal error: see the gateway's log")


def _problem(status: int, code: str, title: str, detail: str, **extras: Any) -> web.Response:
    return web.json_response({**problem(status, code, title, detail), **extras}, status=status, content_type=PROBLEM_JSON)
