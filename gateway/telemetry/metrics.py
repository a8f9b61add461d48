"""Metrics: plain integers on the hot path, merged over workers and rendered for Prometheus on request.

:class:`Metrics` is the table of all metrics: each field declares its name, kind, labels and help text. Counting is
``metrics.admitted[route] += 1`` or ``metrics.connections += 1``: a dict or an attribute, no lock, no call. Labels are bounded by the
configuration (routes, upstreams) or by this program (codes, channels), never by what a client sends.

This package imports no other part of the gateway; other modules count here, or register a probe that copies their own integers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from gateway.telemetry.histogram import Histogram

Counts = defaultdict[str, int]
"""One label."""
PairCounts = defaultdict[tuple[str, str], int]
"""Two labels."""
Sample = tuple[tuple[str, ...], list[float]]
"""Label values and one number; for a histogram, the count of each bucket followed by the sum."""
Snapshot = dict[str, list[Sample]]
"""Field name to samples, as a worker sends them to its parent (tuples become lists in JSON)."""


class Family(NamedTuple):
    """How a field is exported to Prometheus, and how workers' values are merged."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    merge: Literal["sum", "max", "min"]


def _field(family: Family) -> Any:
    if family.kind == "histogram":
        return dataclasses.field(default_factory=lambda: defaultdict(Histogram), metadata={"family": family})
    if family.labels:
        return dataclasses.field(default_factory=lambda: defaultdict(int), metadata={"family": family})
    return dataclasses.field(default=0, metadata={"family": family})


def _counter(name: str, text: str, *labels: str) -> Any:
    return _field(Family(f"gerbang_{name}_total", text, "counter", labels, "sum"))


def _gauge(name: str, text: str, *labels: str, merge: Literal["sum", "max", "min"] = "sum") -> Any:
    return _field(Family(f"gerbang_{name}", text, "gauge", labels, merge))


def _histogram(name: str, text: str, label: str) -> Any:
    return _field(Family(f"gerbang_{name}_seconds", text, "histogram", (label,), "sum"))


@dataclasses.dataclass(slots=True)
class Metrics:
    """All metrics of one process. One object per process, kept across reloads."""

    # Admission. ``route`` is the route's pattern, ``code`` the refusal's code.
    admitted: Counts = _counter("requests_admitted", "Requests that passed every check.", "route")
    refused: Counts = _counter("requests_refused", "Requests refused by the gateway.", "code")

    refusals_brief: int = _counter(
        "refusals_brief", "Refused requests that were neither explained nor logged, because there were too many at once."
    )

    # Shadow mode: the decision endpoint refuses nothing. Outcome is "admitted" or the code of the refusal.
    shadow: int = _gauge("shadow", "1 while auth.enforce is shadow: the decision endpoint admits every request.", merge="max")
    shadow_decisions: PairCounts = _counter(
        "shadow_decisions", "Decisions that the decision endpoint would have made without shadow mode.", "route", "outcome"
    )

    decisions_unstated: int = _counter(
        "decisions_unstated",
        "Signed requests that the decision endpoint admitted without a statement of what becomes of content.",
    )

    # Clients' connections.
    connections: int = _gauge("connections", "Open client connections.")
    connections_accepted: int = _counter("connections_accepted", "Client connections accepted.")
    connections_refused: Counts = _counter("connections_refused", "Client connections refused on arrival.", "reason")
    timeouts: Counts = _counter("client_timeouts", "Client connections closed by a timeout.", "kind")
    aborted: int = _counter("client_aborts", "Exchanges aborted because the client disconnected.")
    tunnels: int = _gauge("tunnels", "Open WebSocket tunnels.")
    tunnels_closed: Counts = _counter("tunnels_closed", "Closed WebSocket tunnels.", "reason")

    # Upstreams.
    upstream_latency: defaultdict[str, Histogram] = _histogram(
        "upstream_response", "Time from sending a request to the end of the response's header section.", "upstream"
    )
    upstream_responses: PairCounts = _counter("upstream_responses", "Upstream responses by status class.", "upstream", "class")
    upstream_errors: PairCounts = _counter("upstream_errors", "Failed upstream exchanges.", "upstream", "kind")
    upstream_retries: Counts = _counter("upstream_retries", "Requests sent again on another connection.", "upstream")
    upstream_connections: Counts = _gauge("upstream_connections", "Open upstream connections.", "upstream")
    upstream_opened: Counts = _counter("upstream_connections_opened", "Upstream connections opened.", "upstream")
    upstream_servers: Counts = _gauge("upstream_servers", "Configured upstream servers.", "upstream", merge="max")
    upstream_healthy: Counts = _gauge(
        "upstream_servers_healthy", "Upstream servers in use; the lowest of all workers.", "upstream", merge="min"
    )

    # Keys: caches, stores, invalidation.
    cache_misses: int = _counter("key_cache_misses", "Requests that waited for a key lookup.")
    cache_entries: int = _gauge("key_cache_entries", "Keys cached in process memory.")
    key_fetches: PairCounts = _counter("key_fetches", "Keys requested from a store.", "store", "outcome")
    key_rereads: int = _counter("key_rereads", "Keys refreshed in the background because changes may have been missed.")
    stale_served: int = _counter("key_stale_served", "Cached keys used past their freshness because PostgreSQL did not answer.")
    feed_reads: int = _counter("key_feed_reads", "Reads of the change feed.")
    feed_changes: int = _counter("key_feed_changes", "Changes read from the change feed.")
    feed_age_ms: int = _gauge(
        "key_feed_age_milliseconds", "Time since the change feed was last read; the highest of all workers.", merge="max"
    )
    invalidations: Counts = _counter("key_invalidations", "Invalidations received.", "channel")
    revocation_delay: defaultdict[str, Histogram] = _histogram(
        "revocation_delay", "Time from the publication of an invalidation until it was applied.", "channel"
    )
    listener_up: Counts = _gauge(
        "listener_up", "1 while every worker reads the change feed (postgres) or receives messages (redis).", "channel", merge="min"
    )

    # Limits and replay.
    limit_settlements: Counts = _counter("limit_settlements", "Settlements of rate limits in Redis.", "outcome")
    limit_keys: int = _gauge("limit_keys", "Keys whose rate limit is tracked in process memory.")
    limits_local: int = _gauge("limits_local", "1 while rate limits apply per process because Redis is unavailable.", merge="max")
    redis_evicts: int = _gauge(
        "redis_evicts", "1 while Redis may evict keys under memory pressure, which would allow replays.", merge="max"
    )
    resource_used: Counts = _gauge(
        "resource_used_percent", "Utilization of a resource that clients share; the highest of all workers.", "resource", merge="max"
    )
    resource_refused: Counts = _counter(
        "resource_refused", "Refusals because a shared resource was exhausted, or one client's share of it.", "resource"
    )
    replay_claims: Counts = _counter("replay_claims", "Signatures claimed at the replay guard.", "outcome")
    replay_round_trips: int = _counter("replay_round_trips", "Redis round trips of the replay guard.")

    # Usage statistics and logs.
    usage_flushes: Counts = _counter("usage_flushes", "Flushes of usage counts to Redis.", "outcome")
    usage_dropped: int = _counter("usage_dropped", "Usage counts dropped because their memory limit was reached.")
    log_lines_dropped: int = _counter("log_lines_dropped", "Log lines that could not be written.")

    # The process itself.
    resident_bytes: Counts = _gauge("worker_resident_bytes", "Resident memory.", "worker", merge="max")
    loop_lag: Counts = _gauge(
        "worker_loop_lag_milliseconds", "Highest delay of the event loop since the last scrape.", "worker", merge="max"
    )
    turns_waited: int = _counter("turns_waited", "Times that input of a client without a verified key was deferred.")
    long_turns: float = _counter(
        "long_turns_seconds", "Processor time of event loop iterations over 5 ms, while clients without a verified key were served."
    )

    # Counted by the parent only.
    workers: int = _gauge("workers", "Workers that accept requests.")
    worker_restarts: int = _counter("worker_restarts", "Restarts of workers that ended unexpectedly.")
    reloads: Counts = _counter("reloads", "Configuration reloads by outcome: applied, unchanged, refused.", "outcome")
    config: Counts = _gauge("config_info", "1 for the configuration in force.", "version", merge="max")
    compiled: int = _gauge("compiled", "1 when the data plane runs as machine code, 0 when it is interpreted.", merge="max")
    config_loaded_ms: int = _gauge(
        "config_loaded_timestamp_milliseconds", "Time at which the configuration in force was loaded.", merge="max"
    )

    certificate_end: int = _gauge(
        "certificate_end_timestamp_seconds", "Expiry of the public port's certificate; 0 without one.", merge="max"
    )

    probes: list[Callable[["Metrics"], None]] = dataclasses.field(default_factory=list)
    """Called before a snapshot, to copy integers kept elsewhere, e.g. ``metrics.cache_entries = len(cache)``."""

    def snapshot(self) -> Snapshot:
        """All values, serializable as JSON."""
        for probe in self.probes:
            probe(self)
        return {name: list(_samples(getattr(self, name))) for name in FAMILIES}

    def forget_routes(self, known: Iterable[str]) -> None:
        """Drop the counts of removed routes, so that labels do not accumulate over reloads."""
        keep = set(known)
        for route in [route for route in self.admitted if route not in keep]:
            del self.admitted[route]
        for pair in [pair for pair in self.shadow_decisions if pair[0] and pair[0] not in keep]:
            del self.shadow_decisions[pair]


FAMILIES: dict[str, Family] = {field.name: field.metadata["family"] for field in dataclasses.fields(Metrics) if "family" in field.metadata}
"""Every metric by field name."""


def _samples(value: Any) -> Iterator[Sample]:
    if isinstance(value, int | float):
        yield (), [value]
        return
    for label, item in value.items():
        labels = label if isinstance(label, tuple) else (label,)
        yield labels, [*item.counts, item.total] if isinstance(item, Histogram) else [item]


def merge(snapshots: Sequence[Snapshot], *, counters_only: bool = False) -> Snapshot:
    """Merge the snapshots of several processes.

    :param counters_only: omit gauges: for a worker that has ended, whose counters are kept so that none ever decreases
    """
    merged: Snapshot = {}
    for name, family in FAMILIES.items():
        if counters_only and family.kind == "gauge":
            continue
        values: dict[tuple[str, ...], list[float]] = {}
        for snapshot in snapshots:
            for labels, numbers in snapshot.get(name, ()):
                key = tuple(labels)
                known = values.get(key)
                values[key] = list(numbers) if known is None else [_combine(family, *pair) for pair in zip(known, numbers, strict=True)]
        merged[name] = list(values.items())
    return merged


def _combine(family: Family, one: float, other: float) -> float:
    return one + other if family.merge == "sum" else max(one, other) if family.merge == "max" else min(one, other)
