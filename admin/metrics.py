"""The admin service's metrics, for Prometheus on the internal port.

Labels are ports, codes and outcomes of this program, never client input.
"""

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.config.settings import Tls
from gateway.net.certificates import end_or_zero
from gateway.telemetry.histogram import SECONDS
from gateway.telemetry.logs import LineSink


class Family(NamedTuple):
    """One metric: its name, as it is exposed, its help and labels."""

    name: str
    help: str
    kind: type[Counter] | type[Gauge] | type[Histogram]
    labels: tuple[str, ...] = ()


REQUESTS = Family(
    "gerbang_admin_requests_total", "Requests by outcome: answered, or the code of the refusal.", Counter, ("port", "outcome")
)
DURATION = Family("gerbang_admin_request_seconds", "Time from the end of a request's header section to its answer.", Histogram, ("port",))
PROVIDER_FAILURES = Family("gerbang_admin_provider_failures_total", "Failed reads of the identity provider's documents.", Counter)
PROVIDER_UP = Family("gerbang_admin_provider_up", "1 unless the last read of the identity provider's documents failed.", Gauge)
RELOADS = Family("gerbang_admin_reloads_total", "Configuration reloads by outcome: applied, unchanged, refused.", Counter, ("outcome",))
CERTIFICATE = Family("gerbang_admin_certificate_end_timestamp_seconds", "Expiry of the public port's certificate; 0 without one.", Gauge)
STREAM_SEQ = Family(
    "gerbang_admin_audit_streamed_seq",
    "Sequence number of the last audit event that was streamed; with both a file and syslog, to both.",
    Gauge,
)
STREAM_UP = Family(
    "gerbang_admin_audit_stream_up", "1 while the audit log is streamed, to all that is configured, or no stream is configured.", Gauge
)
CONNECTIONS_REFUSED = Family("gerbang_admin_connections_refused_total", "Connections closed because there were too many.", Counter)
LOG_DROPPED = Family("gerbang_admin_log_lines_dropped_total", "Log lines that could not be written.", Counter)
FAMILIES = (
    REQUESTS,
    DURATION,
    PROVIDER_FAILURES,
    PROVIDER_UP,
    RELOADS,
    CERTIFICATE,
    STREAM_SEQ,
    STREAM_UP,
    CONNECTIONS_REFUSED,
    LOG_DROPPED,
)


class AdminMetrics:
    """See the module."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter(REQUESTS)
        self._requests.labels("public", "identity_provider_unavailable")  # there from the start, so that its first increase counts
        self._duration = Histogram(DURATION.name, DURATION.help, DURATION.labels, buckets=SECONDS, registry=self._registry)
        self._provider_failures = self._counter(PROVIDER_FAILURES)
        self._provider_up = self._gauge(PROVIDER_UP, 1)
        self._reloads = self._counter(RELOADS)
        self._certificate = self._gauge(CERTIFICATE, 0)
        self._stream_seq = self._gauge(STREAM_SEQ, 0)
        self._stream_up = self._gauge(STREAM_UP, 1)
        self._streamed: dict[str, int] = {}
        self._failing_streams: set[str] = set()
        self._connections_refused = self._counter(CONNECTIONS_REFUSED)
        self._dropped = self._counter(LOG_DROPPED)
        self._dropped_before = 0

    def answered(self, port: str, outcome: str, seconds: float) -> None:
        """:param outcome: ``answered``, or the refusal's code"""
        self._requests.labels(port, outcome).inc()
        self._duration.labels(port).observe(seconds)

    def connection_refused(self) -> None:
        """Count a refused connection."""
        self._connections_refused.inc()

    def provider_read(self, *, failed: bool) -> None:
        """Count a fetch of the identity provider's documents."""
        self._provider_up.set(not failed)
        self._provider_failures.inc(failed)

    def reloaded(self, outcome: str) -> None:
        self._reloads.labels(outcome).inc()

    def certificate(self, tls: Tls | None) -> None:
        """Record the certificate in use."""
        self._certificate.set(end_or_zero(tls) / 1000)

    def streams_begin(self) -> None:
        """Forget the streams of another configuration."""
        self._streamed.clear()
        self._failing_streams.clear()
        self._stream_up.set(1)

    def streamed(self, sink: str, seq: int) -> None:
        """The audit log has been streamed to this sink up to this event."""
        self._streamed[sink] = seq
        self._failing_streams.discard(sink)
        self._stream_seq.set(min(self._streamed.values()))
        self._stream_up.set(not self._failing_streams)

    def not_streamed(self, sink: str) -> None:
        """Streaming to this sink has failed; another one's success does not change that."""
        self._failing_streams.add(sink)
        self._stream_up.set(0)

    def render(self) -> bytes:
        """Prometheus text exposition format."""
        dropped = LineSink.dropped
        self._dropped.inc(dropped - self._dropped_before)
        self._dropped_before = dropped
        return generate_latest(self._registry)

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name, family.help, family.labels, registry=self._registry)

    def _gauge(self, family: Family, value: float) -> Gauge:
        gauge = Gauge(family.name, family.help, registry=self._registry)
        gauge.set(value)
        return gauge
