"""Logging, metrics and tracing of both services.

Usage:

    log = structlog.get_logger(__name__);  log.warning("listener_lost", channel="redis")     an event's name, then values
    metrics.admitted[route] += 1;  metrics.connections += 1                                 all metrics: :class:`Metrics`
    if access.takes(now_ms): …                                                              whether the access log takes a refusal
"""

from gateway.telemetry.logs import AccessLog, configure_logging
from gateway.telemetry.metrics import Metrics, Snapshot, merge

__all__ = ["AccessLog", "Metrics", "Snapshot", "configure_logging", "merge"]
