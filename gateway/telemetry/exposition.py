"""Renders the metrics in Prometheus's text format. Workers do not serve ``/metrics`` and do not import this module."""

from collections.abc import Iterator, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.histogram import SECONDS
from gateway.telemetry.metrics import FAMILIES, Family, Sample, Snapshot, merge


class _Exposition(Collector):
    """A merged snapshot as a collector for ``prometheus_client``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for name, family in FAMILIES.items():
            yield _metric(family, self._snapshot.get(name, []))


def _metric(family: Family, samples: list[Sample]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, numbers in samples:
            histogram.add_metric(labels, _buckets(numbers), numbers[-1])
        return histogram
    build = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = build(family.name, family.help, labels=family.labels)
    for labels, numbers in samples:
        metric.add_metric(labels, numbers[0])
    return metric


def _buckets(numbers: list[float]) -> list[tuple[str, float]]:
    """Cumulative buckets, as Prometheus expects."""
    below = 0.0
    buckets = []
    for bound, count in zip((*map(str, SECONDS), "+Inf"), numbers, strict=False):
        below += count
        buckets.append((bound, below))
    return buckets


def render(snapshots: Sequence[Snapshot]) -> bytes:
    """Prometheus text exposition format of several processes' snapshots."""
    return generate_latest(_Exposition(merge(snapshots)))
