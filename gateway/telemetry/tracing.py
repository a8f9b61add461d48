"""Traces by OpenTelemetry, an optional extra: a span for a share of the forwarded requests, and its W3C context for the upstream.

Without it, and for requests outside the share, ``traceparent`` and ``tracestate`` pass through as they came. Spans are handed to a
thread of the SDK's, which sends them by OTLP over HTTP; when the collector is away they are dropped there.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

FLUSH_MS = 1_000
"""How long an end waits for spans to be sent."""
FIELD = b"traceparent"

_TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


def check_installed(_endpoint: str) -> None:
    """:raises ConfigError: ``gerbang[traces]`` is not installed"""
    if not all(map(_is_found, ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
        raise ConfigError([ConfigProblem("telemetry.traces", "needs the extra gerbang[traces], which is not installed")])


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even what it is part of
        return False


class Trace:
    """The span of one request."""

    __slots__ = ("_span", "line")

    def __init__(self, span: "Span") -> None:
        context = span.get_span_context()
        self._span = span
        self.line = b"traceparent: 00-%032x-%016x-01\r\n" % (context.trace_id, context.span_id)
        """The field line for the upstream (W3C Trace Context §3.2), in place of what the client sent."""

    def responded(self, status: int, upstream_ms: float) -> None:
        """The response's header section has come, that long after the request was sent."""
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("gerbang.upstream_ms", round(upstream_ms, 3))

    def end(self, error: str = "") -> None:
        """The exchange is over.

        :param error: why it failed, a refusal's code for one; empty when it did not
        """
        if error:
            self._span.set_attribute("error.type", error)
        self._span.end()


class Tracing:
    """Makes the spans of one process.

    :param endpoint: OTLP over HTTP, e.g. ``http://127.0.0.1:4318/v1/traces``
    :param share: of the forwarded requests, 0 to 1; every n-th, so that no client decides what is traced
    """

    def __init__(self, endpoint: str, share: float) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._provider = TracerProvider(resource=Resource.create({"service.name": "gerbang"}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=FLUSH_MS / 1000)))
        self._tracer = self._provider.get_tracer("gerbang")
        self._share = share
        self._credit = 0.0

    def begin(self, name: str, headers: tuple[tuple[bytes, bytes], ...], attributes: Mapping[str, str]) -> Trace | None:
        """A span for the present request, if it is among the share; a child of the client's, if that sent a context.

        :param name: the route as written
        :param attributes: no query, no secret
        """
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        self._credit += self._share
        if self._credit < 1.0:
            return None
        self._credit -= 1.0
        return Trace(self._tracer.start_span(name, context=_parent(headers), kind=SpanKind.SERVER, attributes=dict(attributes)))

    def flush(self) -> None:
        """Send what is left, for at most :data:`FLUSH_MS`; blocks."""
        self._provider.force_flush(FLUSH_MS)


def _parent(headers: tuple[tuple[bytes, bytes], ...]) -> "Context | None":
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415

    sent = [value for name, value in headers if name == FIELD]
    match = _TRACEPARENT.fullmatch(sent[0]) if len(sent) == 1 else None
    if match is None:
        return None
    context = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(context))
