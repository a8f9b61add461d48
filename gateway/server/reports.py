"""Access log lines and trace spans of a request."""

from collections.abc import Callable

import structlog

from gateway.admission.outcome import Admitted
from gateway.admission.routes import Route
from gateway.errors import Refusal, Requester
from gateway.http1.message import Request
from gateway.runtime import clock
from gateway.telemetry.tracing import Trace, Tracing

_log = structlog.get_logger("access")


def begin_trace(
    tracing: Tracing, request: Request, route: Route | None, admitted: Admitted | None, *, trusted: Callable[[], bool]
) -> Trace:
    """The span of a request, with what is known about it; one that records nothing if the request is not sampled.

    :param trusted: whether the peer's trace context is continued
    """
    if not tracing.wants(request.headers, trusted):
        return tracing.untraced
    name = method = request.method.decode("latin-1")
    attributes = {
        "http.request.method": method,
        "client.address": admitted.client_ip if admitted is not None else request.peer,
        "gerbang.request_id": request.request_id,
    }
    if route is not None:
        name = route.pattern
        attributes["http.route"] = name.partition(" ")[2]
    if admitted is not None and admitted.identity is not None:
        attributes |= {"gerbang.key_id": admitted.identity.key_id, "gerbang.account_id": admitted.identity.account_id}
    return tracing.begin(name, request.headers, attributes, start_ms=request.received_ms)


def log_admitted(request: Request, admitted: Admitted, *, status: int, admission_ms: float, upstream_ms: float) -> None:
    """Log a request that was forwarded and answered.

    :param admission_ms: from receiving the request to sending it to the upstream
    :param upstream_ms: from then to the response's header section
    """
    identity = admitted.identity
    _log.info(
        "request",
        outcome="admitted",
        request_id=request.request_id,
        route=admitted.route.pattern,
        method=request.method,
        path=request.path,
        status=status,
        key_id=identity.key_id if identity is not None else None,
        account_id=identity.account_id if identity is not None else None,
        client_ip=admitted.client_ip,
        admission_ms=round(admission_ms, 3),
        upstream_ms=round(upstream_ms, 3),
        total_ms=clock.now_ms() - request.received_ms,
    )


def log_refused(refusal: Refusal, request: Request | None, route: str | None, admitted: Admitted | None, *, event: str = "request") -> None:
    """Log a refused request with its internal reason; ``None`` for what is not known about it."""
    requester = refusal.requester or _requester(request, admitted)
    _log.info(
        event,
        outcome=refusal.code,
        request_id=request.request_id if request is not None else "",
        route=route or refusal.route or None,
        method=request.method if request is not None else None,
        path=request.path if request is not None else None,
        status=refusal.status,
        reason=refusal.reason,
        key_id=requester.key_id,
        account_id=requester.account_id,
        client_ip=requester.client_ip,
    )


def _requester(request: Request | None, admitted: Admitted | None) -> Requester:
    """Who sent a request that was refused before its credentials were read, or after it was admitted."""
    if admitted is None:
        return Requester(None, None, request.peer if request is not None else "")
    if admitted.identity is None:
        return Requester(None, None, admitted.client_ip)
    return Requester(admitted.identity.key_id, admitted.identity.account_id, admitted.client_ip)
