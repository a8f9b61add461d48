"""Limits of keys, accounts and tiers: who is charged, what is given back, and what is told."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.admission.allowances import Allowance
from gateway.admission.outcome import KeyNeeded
from gateway.admission.rules import rate_limited
from gateway.config.values import Rate
from gateway.errors import ReplayedRequest
from gateway.runtime.gcra import charge, whole_in_ms
from tests.support.keys import a_record
from tests.support.scene import Scene

ACCOUNT = f"account:{a_record().account_id}"
ORDERS = f"orders:{a_record().account_id}"


def with_account(rate: str, **options) -> Scene:
    scene = Scene(**options)
    scene.limits["per_account"] = rate
    return scene.build()


def told(lines: bytes) -> dict[bytes, bytes]:
    return dict(line.split(b": ", 1) for line in lines.split(b"\r\n")[:-1])


def used(scene: Scene, name: str, units: int) -> int:
    return scene.limiter.used(name, Rate(units, 60_000), scene.now_ms)


def test_of_two_limits_the_tighter_one_is_told_and_both_are_named():
    fields = told(with_account("50/minute").admit().answer_headers)
    assert fields[b"RateLimit-Policy"] == b'"key";q=100;w=60, "account";q=50;w=60'
    assert fields[b"RateLimit"] == b'"account";r=49;t=2'
    assert (fields[b"RateLimit-Limit"], fields[b"RateLimit-Remaining"], fields[b"RateLimit-Reset"]) == (b"50", b"49", b"2")
    fields = told(with_account("5000/minute").admit().answer_headers)
    assert (fields[b"RateLimit"], fields[b"RateLimit-Limit"]) == (b'"key";r=99;t=1', b"100")


@given(st.integers(1, 5_000), st.sampled_from([1_000, 60_000, 3_600_000]), st.lists(st.tuples(st.integers(1, 60), st.integers(0, 20_000))))
def test_more_is_available_when_the_field_says_so_and_never_after_retry_after(units, period_ms, charges):
    """draft-ietf-httpapi-ratelimit-headers-11 §4.1.2 and §6."""
    rate, tat_ms, now_ms = Rate(units, period_ms), 0.0, 1_000_000
    for weight, pause_ms in charges:
        now_ms += pause_ms
        done = charge(tat_ms, weight, now_ms, rate)
        tat_ms = done.tat_ms
        match = re.fullmatch(rb'"key";r=([0-9]+);t=([0-9]+)', told(Allowance(rate, None).lines(done))[b"RateLimit"])
        remaining, seconds = int(match[1]), int(match[2])
        assert remaining == done.remaining
        later = charge(tat_ms, 0, now_ms + 1_000 * seconds, rate).remaining
        assert later > remaining or remaining == units
        if not done.allowed and weight <= units:
            assert seconds <= int(dict(rate_limited("", done.retry_after_ms).headers)[b"Retry-After"])
        if seconds > 1:
            assert charge(tat_ms, 0, now_ms + 1_000 * (seconds - 1) - 1, rate).remaining == remaining


def test_what_the_window_holds_back_is_promised_for_the_end_of_a_period_at_the_latest():
    """GCRA alone would have more: at 60/minute, 17 s after a burst, 17 units that the window does not have yet."""
    rate = Rate(60, 60_000)
    done = charge(0.0, 60, 1_000_000, rate)
    later = charge(done.tat_ms, 0, 1_017_000, rate)
    assert later.remaining == 17
    later.remaining = 0
    fields = told(Allowance(rate, None).lines(later))
    assert (fields[b"RateLimit"], fields[b"RateLimit-Reset"]) == (b'"key";r=0;t=60', b"60")


@given(st.integers(1, 5_000), st.sampled_from([1_000, 60_000, 3_600_000]), st.integers(0, 3_600_000), st.data())
def test_all_of_a_limit_is_never_there_before_more_of_it_is(units, period_ms, reset_ms, data):
    """Whatever the window holds back, be it that GCRA has had all of it for long."""
    rate = Rate(units, period_ms)
    done = charge(1_000_000.0 + min(reset_ms, period_ms), 0, 1_000_000, rate)
    done.remaining = data.draw(st.integers(0, done.remaining))
    fields = told(Allowance(rate, None).lines(done))
    more, whole = int(fields[b"RateLimit"].rpartition(b"t=")[2]), int(fields[b"RateLimit-Reset"])
    assert more > 0 or done.remaining == units
    assert more <= whole
    assert whole == -int(-whole_in_ms(done, rate) // 1_000)


def test_a_refusal_never_says_that_more_is_there_before_it_says_to_try_again():
    scene = Scene(dialect="mobee", method="POST", target="/heavy")
    assert scene.admit()
    assert scene.admit()
    headers = dict(scene.refused().headers)
    assert headers[b"Retry-After"] == b"12"
    assert headers[b"RateLimit"] == b'"key";r=20;t=12'


def test_what_the_account_refuses_costs_the_key_nothing():
    scene = with_account("2/minute")
    assert all(b'RateLimit: "account"' in scene.admit().answer_headers for _ in range(2))
    refusal = scene.refused()
    assert (refusal.code, refusal.extras) == ("rate_limited", {"retry_after_ms": 30_000})
    assert "2/minute per account" in refusal.detail
    assert dict(refusal.headers)[b"RateLimit"] == b'"account";r=0;t=30'
    assert sum(scene.limiter.charged) == 2


def test_what_the_key_refuses_costs_the_account_nothing():
    scene = with_account("1000/minute")
    scene.limiter.tat = scene.now_ms + 60_000
    assert scene.refused().code == "rate_limited"
    assert used(scene, ACCOUNT, 1_000) == 0


async def test_an_account_that_must_be_settled_first_is_and_the_key_is_charged_once():
    scene = with_account("1000/minute")
    scene.limiter.needed.add(ACCOUNT)
    with pytest.raises(KeyNeeded) as needed:
        scene.admit()
    assert sum(scene.limiter.charged) == 0
    await scene.gate.resolve(needed.value)
    assert scene.limiter.settled_for == [(ACCOUNT, 1, Rate(1_000, 60_000))]
    scene.admit()
    assert sum(scene.limiter.charged) == 1
    assert used(scene, ACCOUNT, 1_000) == 1


@pytest.mark.parametrize(
    ("tier", "limit"),
    [("pro", b'"key";q=6000;w=60, "account";q=12000;w=60'), ("own", b'"key";q=7;w=1, "account";q=900;w=60'),
     (None, b'"key";q=100;w=60, "account";q=900;w=60'), ("unheard_of", b'"key";q=100;w=60, "account";q=900;w=60')],
)  # fmt: skip
def test_a_tier_has_its_own_limits_and_what_it_leaves_out_is_that_of_everybody(tier, limit):
    tiers = {"pro": {"per_key": "6000/minute", "per_account": "12000/minute"}, "own": {"per_key": "7/second"}}
    scene = with_account("900/minute", record=a_record(tier=tier), sections={"tiers": tiers})
    assert told(scene.admit().answer_headers)[b"RateLimit-Policy"] == limit


def test_a_tier_without_a_table_is_logged_once():
    scene = Scene(record=a_record(tier="unheard_of")).build()
    with capture_logs() as lines:
        for _ in range(3):
            scene.admit()
    assert [line["tier"] for line in lines if line["event"] == "unknown_tier"] == ["unheard_of"]


async def test_a_request_that_was_replayed_costs_its_owner_nothing():
    scene = with_account("1000/minute", method="POST", target="/trade")
    scene.guard.refusal = ReplayedRequest("before")
    for _ in range(5):
        with pytest.raises(ReplayedRequest):
            await scene.claim(scene.admit())
        await asyncio.sleep(0)
        assert sum(scene.limiter.charged) == 0
        assert (used(scene, ACCOUNT, 1_000), used(scene, ORDERS, 1_000_000_000)) == (0, 0)


@pytest.mark.parametrize("per_key", ["100/minute", "5000/hour"])
def test_binances_clients_are_told_the_weight_and_the_orders_of_the_last_minute(per_key):
    scene = Scene()
    scene.limits["per_key"] = per_key
    scene.build()
    fields = told(scene.admit().answer_headers)
    assert (fields[b"X-MBX-USED-WEIGHT-1M"], fields.get(b"X-MBX-ORDER-COUNT-1M")) == (b"1", None)
    scene.method, scene.target = "POST", "/trade"
    both = [told(scene.admit().answer_headers) for _ in range(2)]
    assert [each[b"X-MBX-USED-WEIGHT-1M"] for each in both] == [b"2", b"3"]
    assert [each[b"X-MBX-ORDER-COUNT-1M"] for each in both] == [b"1", b"2"]
    scene.dialect = "mobee"
    assert not [name for name in told(scene.admit().answer_headers) if name.startswith(b"X-MBX")]
