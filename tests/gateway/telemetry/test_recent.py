"""What is kept of recent decisions: counts by subtraction, a bounded number of refusals, and nothing that could be a secret."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import NoRoute, ScopeNotGranted, TimestampOutOfWindow
from gateway.runtime import clock
from gateway.telemetry import recent
from gateway.telemetry.recent import MOST, WINDOW_MS, Recent, Sample, shape
from tests.support.inside import remembered


def test_admitted_requests_are_those_since_ten_minutes_ago(monkeypatch):
    now_ms = clock.now_ms()
    kept = Recent()
    kept.note({"GET /a": 5, "GET /b": 1}, now_ms + 31_000)
    assert kept.report({"GET /a": 7, "GET /b": 1})["admitted"] == {"GET /a": 7, "GET /b": 1}, "since the start"
    for step in range(1, WINDOW_MS // 30_000 + 1):
        kept.note({"GET /a": 5 + step, "GET /b": 1}, now_ms + 31_000 + step * 30_000)
    report = kept.report({"GET /a": 30, "GET /b": 1, "GET /new": 2})
    assert report["admitted"] == {"GET /a": 24, "GET /new": 2}
    assert report["since_ms"] == now_ms + 31_000 + 30_000
    assert len(remembered(kept)) == WINDOW_MS // 30_000
    kept.note({}, report["since_ms"])
    assert remembered(kept)[-1][1] != {}, "not more often than every half minute"


def test_refusals_are_kept_with_what_they_are_about_up_to_a_bound():
    kept = Recent()
    at_ms = clock.now_ms() + 1
    scope = ScopeNotGranted("x", extras={"required": "trade", "granted": ["read"]})
    late = TimestampOutOfWindow("x", extras={"server_time_ms": at_ms, "skew_ms": -7_000, "window_ms": 5_000})
    for refusal, route in ((NoRoute("x"), None), (scope, "POST /v1/orders"), (late, "GET /v1/wallets")):
        kept.refused(refusal, at_ms=at_ms, method=b"GET", path=b"/v1/gbs_0123/BTC-IDR", route=route)
    assert [Sample(*sample) for sample in kept.report({})["refused"]] == [
        Sample(at_ms, "GET /v1/x/x", "no_route"),
        Sample(at_ms, "POST /v1/orders", "scope_not_granted", ("read",)),
        Sample(at_ms, "GET /v1/wallets", "timestamp_out_of_window", (), 7_000, 5_000),
    ]
    for _ in range(MOST + 5):
        kept.refused(NoRoute("x"), at_ms=at_ms, method=b"GET", path=b"/", route=None)
    assert len(kept.report({})["refused"]) == MOST
    remembered(kept).append((at_ms + 1, {}))
    remembered(kept).popleft()
    assert kept.report({})["refused"] == []


@given(st.binary(max_size=200))
def test_a_shape_is_bounded_and_holds_no_long_or_odd_part(path):
    found = shape(path).split("/")[1:]
    assert len(found) <= recent.SEGMENTS
    assert all(
        not part or part == "x" or (len(part) <= 40 and part.isascii() and part.replace("-", "").replace("_", "").isalnum())
        for part in found
    )


def test_a_shape_keeps_the_words_of_a_path():
    assert shape(b"/api/v3/openOrders") == "/api/v3/openOrders"
    assert shape(b"/v1/orders/8f14e45f") == "/v1/orders/x"
    assert shape(b"/gbk_ka7rJFfR1hFSj4ipk8CGXJ2fYC8h/%2e") == "/x/x"
