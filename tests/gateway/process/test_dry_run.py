"""What another version would have decided of recent requests, said only where it is known."""

from pathlib import Path

import pytest

from gateway.config.loading import Raw
from gateway.ops.report import Effect
from gateway.process.configuration import prepare_raw
from gateway.process.dry_run import compare
from gateway.process.version import Configuration
from gateway.telemetry.recent import Sample

ROUTES = {
    "GET /public": "public",
    "GET /v1/{name}/summary": "public",
    "GET /read": "read",
    "POST /trade": "trade",
    "GET /any": "any",
    "GET /closed": "read",
}


def version(changes: dict[str, str | None] | None = None, *, window_ms: int = 5_000, closed: tuple[str, ...] = ()) -> Configuration:
    """A configuration with these routes; ``None`` takes one away."""
    scopes = {match: scope for match, scope in (ROUTES | (changes or {})).items() if scope is not None}
    routes = [
        {"match": match, "scope": scope, "upstream": "spot"} | ({"maintenance": "Back at ten"} if match in closed else {})
        for match, scope in scopes.items()
    ]
    session = {"match": "GET /ws", "scope": "public", "upstream": "spot", "websocket": "binance", "methods": "m"}
    values = {
        "stores": {"postgres": "postgresql://x@localhost/x", "redis": "redis://localhost"},
        "vault": {"keys": "k1:" + "A" * 43 + "="},
        "auth": {"clock_window_ms": window_ms},
        "upstreams": {"spot": {"servers": ["http://127.0.0.1:1"]}},
        "methods": {"m": {"order.place": {"scope": scopes.get("order.place", "trade")}}},
        "routes": [*(route for route in routes if route["match"] != "order.place"), session],
    }
    return prepare_raw(Raw(str(Path("gateway.toml")), values, []))


ADMITTED = {
    "GET /read": 10,
    "GET /public": 20,
    "POST /trade": 3,
    "GET /v1/{name}/summary": 4,
    "GET /ws order.place": 2,
    "GET /any": 1,
}


@pytest.mark.parametrize(
    ("after", "otherwise"),
    [
        (version(), []),
        (version({"GET /read": None}), [("GET /read", 10, "admitted", "no_route")]),
        (version({"POST /trade": None, "GET /trade": "read"}), [("POST /trade", 3, "admitted", "method_not_allowed")]),
        (version({"GET /read": "public", "POST /trade": "any"}), []),
        (version({"GET /public": "read"}), [("GET /public", 20, "admitted", "depends on the key")]),
        (version({"GET /read": "trade"}), [("GET /read", 10, "admitted", "depends on the key")]),
        (version(closed=("GET /v1/{name}/summary",)), [("GET /v1/{name}/summary", 4, "admitted", "maintenance")]),
        (version({"order.place": "read"}), [("GET /ws order.place", 2, "admitted", "depends on the key")]),
    ],
)
def test_admitted_requests_are_looked_at_by_route(after, otherwise):
    traffic = compare(version(), after, [{"since_ms": 5, "admitted": ADMITTED, "refused": []}] * 2, 9)
    assert (traffic.since_ms, traffic.admitted, traffic.refused) == (5, 80, 0)
    assert traffic.otherwise == tuple(Effect(call, 2 * count, now, then) for call, count, now, then in otherwise)


LATE = Sample(1, "GET /read", "timestamp_out_of_window", (), 7_000, 5_000)


@pytest.mark.parametrize(
    ("sample", "after", "then"),
    [
        (Sample(1, "GET /new/x", "no_route"), version({"GET /new/{id}": "public"}), "admitted"),
        (Sample(1, "GET /new/x", "no_route"), version({"GET /new/{id}": "read"}), "depends on the key"),
        (Sample(1, "GET /new/x", "no_route"), version(), None),
        (Sample(1, "GET /new/x", "no_route"), version({"POST /new/x": "read"}), None),
        (Sample(1, "GET /ws nothing", "no_route"), version(), None),
        (Sample(1, "GET /read", "maintenance"), version(closed=("GET /read",)), None),
        (Sample(1, "GET /read", "maintenance"), version(), "depends on the key"),
        (Sample(1, "POST /trade", "scope_not_granted", ("read",)), version({"POST /trade": "read"}), "admitted"),
        (Sample(1, "POST /trade", "scope_not_granted", ("read",)), version({"POST /trade": "any"}), "admitted"),
        (Sample(1, "GET /read", "scope_not_granted", ("trade",)), version({"GET /read": None}), None),
        (Sample(1, "GET /read", "missing_credentials"), version({"GET /read": "public"}), "admitted"),
        (Sample(1, "GET /read", "rate_limited"), version({"GET /read": "public"}), None),
        (LATE, version(window_ms=10_000), "depends on the key"),
        (LATE, version(window_ms=6_000), None),
        (LATE._replace(age_ms=-2_000), version(window_ms=10_000), None),
        (LATE._replace(window_ms=500), version(window_ms=10_000), None),
    ],
)
def test_a_refused_request_is_decided_again_as_far_as_it_is_known(sample, after, then):
    traffic = compare(version(), after, [{"since_ms": 5, "admitted": {}, "refused": [list(sample)]}], 9)
    assert traffic.otherwise == (() if then is None else (Effect(sample.call, 1, sample.code, then),))


def test_no_worker_that_answers_is_no_traffic():
    assert compare(version(), version(), [], 9) == (9, 0, 0, ())
