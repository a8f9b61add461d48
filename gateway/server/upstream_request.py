"""Writes the request that an upstream receives. Strip first, set last (architecture decision 7): no client field shadows the gate's own."""

from typing import Final

from gateway.admission.outcome import Admitted
from gateway.admission.routes import Route
from gateway.forward.pool import Pool
from gateway.http1.forwarding import VIA, VIA_HTTP10
from gateway.http1.framing import CHUNKED, Framing
from gateway.http1.headers import EXTENSIONS, request_lines
from gateway.http1.message import Request
from gateway.server.ports import ClientEnd
from gateway.server.serving import Serving
from gateway.telemetry.tracing import Trace

_WITH_CONTENT: Final = frozenset({b"POST", b"PUT", b"PATCH"})
_UNEXPECTED: Final = frozenset({b"GET", b"HEAD"})
_END: Final = b"\r\n\r\n"
_UPGRADE: Final = b"\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


def parts(  # noqa: PLR0917  # on the hot path
    request: Request, framing: Framing, serving: Serving, admitted: Admitted, pool: Pool, client: ClientEnd, trace: Trace | None,
    streamed: bool, upgrade: bool,
) -> list[bytes]:  # fmt: skip
    """The request in pieces, of which :data:`gateway.forward.call.HOST` is a placeholder.

    :param upgrade: whether it is a WebSocket handshake
    """
    shape, secure = request.shape, admitted.secure
    if shape is not None and trace is None and not admitted.route.session:
        lines = shape.forwarded(serving.dropped)
    else:
        lines = _client_lines(request, framing, serving, admitted.route, trace)
    return [
        request.method,
        b" ",
        request.target,
        b" HTTP/1.1\r\n",
        b"",
        lines,
        pool.identity_lines.at(admitted.identity, request.received_ms),
        client.lines.render(admitted.client_ip, framing.host, request.secure if secure is None else secure),
        VIA_HTTP10 if framing.http10 else VIA,
        b"x-request-id: ",
        request.request_id.encode(),
        _UPGRADE
        if upgrade
        else _END
        if framing.length == 0 and request.method in _UNEXPECTED
        else _content_lines(request, framing, streamed=streamed),
        request.body,
    ]


def _client_lines(request: Request, framing: Framing, serving: Serving, route: Route, trace: Trace | None) -> bytes:
    """The client's field lines that are forwarded, and those that continue its trace."""
    drop = serving.dropped
    if framing.named:
        drop |= framing.named
    if route.session:
        drop |= EXTENSIONS
    if trace is not None and trace.line:
        return request_lines(request.headers, drop | trace.replaced) + trace.line
    return request_lines(request.headers, drop)


def is_last(method: bytes, framing: Framing) -> bool:
    """Whether the upstream connection must not be reused: many services do not read content on this method (RFC 9110 §9.3.1) and
    would take it for the next request.
    """
    return framing.length != 0 and method in _UNEXPECTED


def _content_lines(request: Request, framing: Framing, *, streamed: bool) -> bytes:
    """The lines from the end of the request id to the end of the head."""
    lines = b"\r\n"
    if streamed and framing.length == CHUNKED:
        lines = b"\r\ntransfer-encoding: chunked\r\n"
    elif streamed or request.body or request.method in _WITH_CONTENT:
        lines = b"\r\ncontent-length: %d\r\n" % (framing.length if streamed else len(request.body))
    return lines + (b"connection: close\r\n\r\n" if is_last(request.method, framing) else b"\r\n")
