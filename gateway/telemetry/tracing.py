"""OpenTelemetry tracing (optional): spans for a sample of requests, and W3C trace context for the upstream.

Without it, and for requests that are not sampled, ``traceparent`` and ``tracestate`` pass through unchanged. Spans are handed to a
thread of the SDK, which sends them by OTLP over HTTP and drops them while the collector is unavailable.
Requests are sampled here, and only here: by the share, or by a trusted proxy's ``traceparent``, never by a client's.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

FLUSH_MS = 1_000
"""How long shutdown waits for spans to be sent."""

_FIELD = b"traceparent"
_STATE = b"tracestate"
_TRACEPARENT = re.compile(rb"(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
"""W3C Trace Context §3.2.2. In later versions the fields of version 00 are read, and more may follow (§4.3)."""


def check_installed(_endpoint: str) -> None:
    """:raises ConfigError: ``gerbang[traces]`` is not installed"""
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")  # requires the others
    except ModuleNotFoundError:  # not even its parent package
        found = None
    if found is None:
        raise ConfigError([ConfigProblem("telemetry.traces", "OpenTelemetry is not installed: pip install gerbang[traces]")])


class Trace:
    """The span of one request."""

    __slots__ = ("_span", "line", "replaced")

    def __init__(self, span: "Span", line: bytes, replaced: frozenset[bytes]) -> None:
        self._span = span
        self.line = line
        """The field line for the upstream (W3C Trace Context §3.2), instead of the client's own; ``b""``: that is forwarded as received."""
        self.replaced = replaced
        """The client's fields that are not forwarded: ``tracestate`` belongs to the trace that it came with (§3.3)."""

    def responded(self, status: int, admission_ms: float, upstream_ms: float) -> None:
        """Record the response's header section.

        :param admission_ms: from receiving the request to sending it to the upstream
        :param upstream_ms: from then until now
        """
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("gerbang.admission_ms", round(admission_ms, 3))
        self._span.set_attribute("gerbang.upstream_ms", round(upstream_ms, 3))

    def end(self, error: str = "", status: int | None = None) -> None:
        """End the span.

        :param error: why it failed, e.g. a refusal's code; empty if it did not
        :param status: the status of the answer, if it is the gate's own
        """
        self._span.set_attribute("gerbang.outcome", error or "admitted")
        if error:
            self._span.set_attribute("error.type", error)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        self._span.end()


class Tracing:
    """Creates the spans of one process.

    :param endpoint: OTLP over HTTP, e.g. ``http://127.0.0.1:4318/v1/traces``
    :param share: share of requests that are traced, 0 to 1: every n-th
    """

    def __init__(self, endpoint: str, share: float) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an optional extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415
        from opentelemetry.trace import INVALID_SPAN  # noqa: PLC0415

        resource = Resource.create({"service.name": "gerbang"})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)  # ignores OTEL_TRACES_SAMPLER
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=FLUSH_MS / 1000)))
        self._tracer = self._provider.get_tracer("gerbang")
        self._share = share
        self._credit = 0.0
        self.untraced = Trace(INVALID_SPAN, b"", frozenset())
        """The trace of a request that is not sampled: it records nothing."""

    def wants(self, headers: Sequence[tuple[bytes, bytes]], trusted: Callable[[], bool]) -> bool:
        """Whether the current request is sampled. Call once per request.

        :param trusted: whether the peer is a trusted proxy: its ``traceparent`` decides, by the sampled flag; a client's does not
        """
        parent = _parent(headers)
        if parent is not None and trusted():
            return bool(int(parent[3], 16) & 1)
        self._credit += self._share
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True

    def begin(self, name: str, headers: Sequence[tuple[bytes, bytes]], attributes: Mapping[str, str], *, start_ms: int) -> Trace:
        """A span for the current request; a child of the client's, if it sent a context.

        :param name: the route's pattern; the method alone if there is no route
        :param attributes: no query, no secret
        :param start_ms: when the request was received
        """
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an optional extra

        parent = _parent(headers)
        context = _context(parent) if parent is not None else None
        span = self._tracer.start_span(
            name, context=context, kind=SpanKind.SERVER, attributes=dict(attributes), start_time=start_ms * 1_000_000
        )
        own = span.get_span_context()
        line = b"traceparent: 00-%032x-%016x-01\r\n" % (own.trace_id, own.span_id)
        return Trace(span, line, frozenset({_FIELD} if parent is not None else {_FIELD, _STATE}))

    def shutdown(self) -> threading.Thread:
        """Send what is left and end the SDK's thread, in a separate thread, because the SDK does not keep its own time limit."""
        ending = threading.Thread(target=self._provider.shutdown, name="end of tracing", daemon=True)
        ending.start()
        return ending

    def close(self) -> None:
        """Shut down, waiting for at most :data:`FLUSH_MS`; blocks."""
        self.shutdown().join(FLUSH_MS / 1000)


def _parent(headers: Sequence[tuple[bytes, bytes]]) -> re.Match[bytes] | None:
    """The received context, if valid and unique: trace id, parent id and flags in hexadecimal."""
    sent = [value for name, value in headers if name == _FIELD]
    return _TRACEPARENT.fullmatch(sent[0]) if len(sent) == 1 else None


def _context(parent: re.Match[bytes]) -> "Context":
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415 - an optional extra

    context = SpanContext(int(parent[1], 16), int(parent[2], 16), is_remote=True, trace_flags=TraceFlags(int(parent[3], 16)))
    return set_span_in_context(NonRecordingSpan(context))
