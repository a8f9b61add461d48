"""Metrics: what is counted is what Prometheus is told, over any number of workers."""

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Metrics, merge
from gateway.telemetry.exposition import render
from gateway.telemetry.histogram import SECONDS
from gateway.telemetry.metrics import FAMILIES


def through_json(metrics):
    """A snapshot as the parent gets it."""
    return json.loads(json.dumps(metrics.snapshot()))


def exposed(*snapshots):
    """Sample name and labels to value, read back by Prometheus' own parser."""
    families = text_string_to_metric_families(render(snapshots).decode())
    return {(sample.name, tuple(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_counters_of_workers_add_up():
    one, other = Metrics(), Metrics()
    one.admitted["GET /a"] += 2
    other.admitted["GET /a"] += 3
    other.admitted["GET /b"] += 1
    samples = exposed(through_json(one), through_json(other))
    assert samples["gerbang_requests_admitted_total", ("GET /a",)] == 5
    assert samples["gerbang_requests_admitted_total", ("GET /b",)] == 1


def test_a_gauge_merges_as_it_says():
    one, other = Metrics(), Metrics()
    one.connections, other.connections = 2, 3
    one.listener_up["redis"], other.listener_up["redis"] = 1, 0
    one.limits_local, other.limits_local = 1, 0
    samples = exposed(through_json(one), through_json(other))
    assert samples["gerbang_connections", ()] == 5
    assert samples["gerbang_listener_up", ("redis",)] == 0
    assert samples["gerbang_limits_local", ()] == 1


def test_a_pair_of_labels_keeps_its_order():
    metrics = Metrics()
    metrics.upstream_responses["spot", "2xx"] += 7
    text = render([through_json(metrics)]).decode()
    assert 'gerbang_upstream_responses_total{class="2xx",upstream="spot"} 7.0' in text


def test_histogram_buckets_are_cumulative_and_bounds_belong_to_their_bucket():
    metrics = Metrics()
    for seconds in (SECONDS[0], SECONDS[1], 1000.0):
        metrics.upstream_latency["spot"].observe(seconds)
    samples = exposed(through_json(metrics), through_json(metrics))
    name = "gerbang_upstream_response_seconds"
    buckets = [samples[f"{name}_bucket", (str(bound), "spot")] for bound in (*SECONDS, "+Inf")]
    assert buckets[:2] == [2, 4]
    assert buckets[-2:] == [4, 6]
    assert samples[f"{name}_count", ("spot",)] == 6
    assert samples[f"{name}_sum", ("spot",)] == 2 * (SECONDS[0] + SECONDS[1] + 1000.0)


def test_what_remains_of_a_dead_worker_are_its_counters():
    metrics = Metrics()
    metrics.connections = 4
    metrics.connections_accepted = 9
    remains = merge([through_json(metrics)], counters_only=True)
    assert "connections" not in remains
    assert remains["connections_accepted"] == [((), [9])]


def test_probes_run_before_each_snapshot():
    metrics = Metrics()
    values = iter((5, 6))
    metrics.probes.append(lambda target: setattr(target, "cache_entries", next(values)))
    assert metrics.snapshot()["cache_entries"] == [((), [5])]
    assert metrics.snapshot()["cache_entries"] == [((), [6])]


def test_routes_that_left_the_configuration_are_forgotten():
    metrics = Metrics()
    metrics.admitted["GET /old"] += 1
    metrics.admitted["GET /kept"] += 1
    metrics.forget_routes(["GET /kept", "GET /new"])
    assert dict(metrics.admitted) == {"GET /kept": 1}


def test_every_family_is_named_and_explained():
    names = [family.name for family in FAMILIES.values()]
    assert len(set(names)) == len(names)
    for family in FAMILIES.values():
        assert re.fullmatch(r"gerbang_[a-z_]+", family.name)
        assert family.help.endswith(".")
        assert family.name.endswith("_total") == (family.kind == "counter")
