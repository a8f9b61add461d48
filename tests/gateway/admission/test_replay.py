"""The replay guard on real Redis."""

import asyncio
from typing import Any

import pytest
import structlog

from gateway.admission import replay
from gateway.admission.replay import MAX_BATCH, ReplayGuard
from gateway.errors import ReplayedRequest, ReplayGuardUnavailable
from gateway.keys import redis_client
from gateway.runtime import clock
from gateway.telemetry.metrics import Metrics
from tests.support import claims, inside


@pytest.fixture
def metrics():
    """Those of the first of the guards, or of the one that is alone."""
    return Metrics()


@pytest.fixture
async def guards(redis_url, metrics):
    """Two gates' guards on one Redis."""
    clients = [redis_client.connect(redis_url) for _ in range(2)]
    yield [ReplayGuard(client, metrics=each) for client, each in zip(clients, (metrics, Metrics()), strict=True)]
    for client in clients:
        await client.aclose()


@pytest.fixture
async def alone(own_redis, metrics):
    """One guard, and a Redis of its own."""
    client = redis_client.connect(own_redis.url)
    yield ReplayGuard(client, metrics=metrics)
    own_redis.thaw()
    await client.aclose()


def claim(
    guard: ReplayGuard, signature: bytes, *, key_id: str = "key", ttl_ms: int = 60_000, outage: str = "deny", shared: bool = False
) -> "asyncio.Future[None]":
    return claims.claim(guard, key_id, signature, ttl_ms=ttl_ms, outage=outage, shared=shared)


async def outcomes(*claims: "asyncio.Future[None]") -> list[type | None]:
    """``None`` for each that passed, else the kind of its refusal."""
    return [None if error is None else type(error) for error in await asyncio.gather(*claims, return_exceptions=True)]


async def test_of_a_thousand_identical_pairs_at_two_gates_exactly_one_passes(guards):
    for number in range(1_000):
        found = await outcomes(*(claim(guard, b"%d" % number) for guard in guards))
        assert sorted(found, key=str) == [ReplayedRequest, None]


async def test_of_many_identical_requests_in_one_tick_the_first_passes(guards):
    found = await outcomes(*(claim(guards[0], b"same") for _ in range(3 * MAX_BATCH)))
    assert found.count(None) == 1
    assert found.count(ReplayedRequest) == 3 * MAX_BATCH - 1


async def test_all_claims_of_one_tick_share_one_round_trip(guards, metrics):
    assert await outcomes(*(claim(guards[0], b"%d" % number) for number in range(100))) == [None] * 100
    assert metrics.replay_round_trips == 1
    assert metrics.replay_claims == {"first": 100}


async def test_a_replay_that_is_sent_again_is_refused_without_redis(guards, metrics):
    guard = guards[0]
    assert await outcomes(claim(guard, b"used")) == [None]
    assert await outcomes(claim(guard, b"used")) == [ReplayedRequest]
    asked = metrics.replay_round_trips
    again = [claim(guard, b"used") for _ in range(100)]
    assert await outcomes(*again) == [ReplayedRequest] * 100
    assert {each.exception().repeated for each in again} == {True}
    assert metrics.replay_round_trips == asked == 2
    assert metrics.replay_claims == {"first": 1, "replayed": 1, "repeated": 100}
    assert await outcomes(claim(guard, b"used", key_id="other"), claim(guard, b"new")) == [None, None]


async def test_what_is_known_of_replays_is_bounded_and_ends_with_their_window(guards, metrics, monkeypatch):
    monkeypatch.setattr(replay, "REMEMBERED", 2)
    guard = guards[0]
    for number in range(3):
        assert await outcomes(claim(guard, b"%d" % number), claim(guard, b"%d" % number)) == [None, ReplayedRequest]
    assert len(inside.remembered(guard)) == 2
    later_ms = clock.monotonic_ms() + 60_000
    monkeypatch.setattr(clock, "monotonic_ms", lambda: later_ms)
    asked = metrics.replay_round_trips
    assert await outcomes(claim(guard, b"2")) == [ReplayedRequest]
    assert metrics.replay_round_trips == asked + 1


async def test_a_read_may_share_what_a_trade_was_refused_for(guards):
    guard = guards[0]
    assert await outcomes(claim(guard, b"read", shared=True)) == [None]
    assert await outcomes(claim(guard, b"read")) == [ReplayedRequest]
    assert await outcomes(claim(guard, b"read"), claim(guard, b"read", shared=True)) == [ReplayedRequest, None]


async def test_keys_do_not_share_signatures(guards):
    assert await outcomes(claim(guards[0], b"same"), claim(guards[0], b"same", key_id="other")) == [None, None]


async def test_a_claim_stands_for_its_window(guards, redis_url):
    await claim(guards[0], b"short", ttl_ms=1_234)
    client = redis_client.connect(redis_url)
    (name,) = await client.keys("gerbang:{key}:replay:*")
    assert 0 < await client.pttl(name) <= 1_234
    assert b"short" not in name
    await client.delete(name)
    await claim(guards[0], b"short")
    await client.aclose()


async def test_a_waiter_that_goes_away_shifts_no_reply_and_its_signature_is_used(guards):
    await claim(guards[0], b"used")
    first, second, third = claim(guards[0], b"new"), claim(guards[0], b"used"), claim(guards[0], b"newer")
    first.cancel()
    assert await outcomes(second, third) == [ReplayedRequest, None]
    assert await outcomes(claim(guards[1], b"new")) == [ReplayedRequest]


async def test_without_redis_nothing_passes_unless_the_operator_chose_so(alone, own_redis, metrics):
    await claim(alone, b"1")
    own_redis.stop()
    with structlog.testing.capture_logs() as logs:
        found = await outcomes(claim(alone, b"1"), claim(alone, b"2"), claim(alone, b"3", outage="allow"))
    assert found == [ReplayGuardUnavailable, ReplayGuardUnavailable, None]
    assert metrics.replay_claims == {"first": 1, "refused": 2, "let_pass": 1}
    assert len([line for line in logs if line["event"] == "replay_guard_unavailable"]) == 1


async def test_a_reply_that_comes_too_late_admits_nobody(alone, own_redis, monkeypatch):
    await claim(alone, b"warm")
    own_redis.freeze()
    monkeypatch.setattr(replay, "TIMEOUT_SECONDS", 0.1)
    late = claim(alone, b"late")
    assert await outcomes(late) == [ReplayGuardUnavailable]
    own_redis.thaw()
    monkeypatch.setattr(replay, "TIMEOUT_SECONDS", 20)
    for number in range(50):  # on connections that the late reply may have come over
        assert await outcomes(claim(alone, b"%d" % number), claim(alone, b"warm")) == [None, ReplayedRequest]
    assert isinstance(late.exception(), ReplayGuardUnavailable)


async def test_an_error_of_redis_is_no_answer(alone, own_redis):
    client = redis_client.connect(own_redis.url)
    await client.config_set("maxmemory", "1")
    assert await outcomes(claim(alone, b"1")) == [ReplayGuardUnavailable]
    await client.config_set("maxmemory", "0")
    assert await outcomes(claim(alone, b"1")) == [None]
    await client.aclose()


async def test_the_guard_recovers_when_redis_does(alone, own_redis):
    own_redis.stop()
    assert await outcomes(claim(alone, b"1")) == [ReplayGuardUnavailable]
    own_redis.start()
    assert await outcomes(claim(alone, b"1")) == [None]


@pytest.mark.parametrize("while_away", [True, False])
async def test_a_read_that_passed_without_redis_becomes_no_trade(alone, own_redis, while_away):
    await claim(alone, b"warm")
    own_redis.stop()
    assert await outcomes(*(claim(alone, b"read", outage="allow", shared=True) for _ in range(2))) == [None, None]
    if not while_away:
        own_redis.start()
    trades = [claim(alone, b"read"), claim(alone, b"read", outage="allow"), claim(alone, b"read", outage="allow")]
    assert await outcomes(*trades) == [ReplayedRequest] * 3
    assert await outcomes(claim(alone, b"read", outage="allow", shared=True)) == [None]


async def test_without_redis_a_trade_that_the_operator_lets_pass_does_so_once(alone, own_redis):
    own_redis.stop()
    assert await outcomes(*(claim(alone, b"1", outage="allow") for _ in range(2))) == [None, ReplayedRequest]
    assert await outcomes(claim(alone, b"1", outage="allow"), claim(alone, b"1", outage="allow", shared=True)) == [ReplayedRequest] * 2


async def test_what_passed_without_redis_is_told_to_it_when_it_is_back(alone, own_redis, monkeypatch):
    monkeypatch.setattr(replay, "RECORD_AGAIN_SECONDS", 0.001)
    own_redis.stop()
    assert await outcomes(claim(alone, b"read", outage="allow", shared=True), claim(alone, b"trade", outage="allow")) == [None, None]
    own_redis.start()
    other: Any = redis_client.connect(own_redis.url)
    names: list[Any] = []
    async with asyncio.timeout(10):
        while len(names) < 2 or inside.unrecorded(alone):
            names = await other.keys("gerbang:{key}:replay:*")
    assert sorted([await other.get(name) for name in names]) == [b"read", b"trade"]
    assert {0 < await other.pttl(name) <= 60_000 for name in names} == {True}
    elsewhere = ReplayGuard(other, metrics=Metrics())
    assert await outcomes(claim(elsewhere, b"read"), claim(elsewhere, b"read", shared=True)) == [ReplayedRequest, None]
    await other.aclose()


async def test_a_trade_that_passed_without_redis_is_recorded_over_the_read_that_redis_knew(alone, own_redis, monkeypatch):
    other = redis_client.connect(own_redis.url)
    elsewhere = ReplayGuard(other, metrics=Metrics())
    await claim(elsewhere, b"1", shared=True)
    own_redis.freeze()
    with monkeypatch.context() as patch:
        patch.setattr(replay, "TIMEOUT_SECONDS", 0.1)
        await claim(alone, b"1", outage="allow")
    own_redis.thaw()
    async with asyncio.timeout(10):
        while inside.unrecorded(alone):
            await other.ping()
    assert await outcomes(claim(elsewhere, b"1", shared=True)) == [ReplayedRequest]
    await other.aclose()


async def test_who_asks_while_a_round_trip_is_under_way_shares_the_next(alone, own_redis, metrics, monkeypatch):
    monkeypatch.setattr(replay, "PATIENCE_MS", 60_000)
    await claim(alone, b"warm")
    own_redis.freeze()
    first = [claim(alone, b"%d" % number) for number in range(3)]
    await asyncio.sleep(0)  # the round trip of these begins
    second = [claim(alone, b"%d" % number) for number in range(10, 60)]
    await asyncio.sleep(0)
    assert metrics.replay_round_trips == 2  # that of "warm", and the first
    own_redis.thaw()
    assert await outcomes(*first, *second) == [None] * 53
    assert metrics.replay_round_trips == 3


async def test_who_waits_behind_a_round_trip_that_hangs_needs_nobody_else_to_come(alone, own_redis, metrics, monkeypatch):
    monkeypatch.setattr(replay, "TIMEOUT_SECONDS", 60)
    await claim(alone, b"warm")
    own_redis.freeze()
    hanging = claim(alone, b"1")
    await asyncio.sleep(0)
    behind = claim(alone, b"2"), claim(alone, b"3")
    for _ in range(1_000):
        if metrics.replay_round_trips == 3:
            break
        await asyncio.sleep(0.01)
    own_redis.thaw()
    assert await outcomes(hanging, *behind) == [None] * 3
    assert metrics.replay_round_trips == 3


async def test_who_is_left_behind_a_full_batch_that_hangs_needs_nobody_else_to_come(alone, own_redis, metrics, monkeypatch):
    monkeypatch.setattr(replay, "TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(replay, "MAX_BATCH", 2)
    await claim(alone, b"warm")
    own_redis.freeze()
    claims = [claim(alone, bytes([number])) for number in range(5)]
    for _ in range(1_000):
        if metrics.replay_round_trips == 4:
            break
        await asyncio.sleep(0.01)
    meanwhile = metrics.replay_round_trips
    own_redis.thaw()
    assert await outcomes(*claims) == [None] * 5
    assert meanwhile == 4


async def test_a_round_trip_that_hangs_holds_up_nobody_for_long(alone, own_redis, metrics, monkeypatch):
    await claim(alone, b"warm")
    own_redis.freeze()
    monkeypatch.setattr(replay, "TIMEOUT_SECONDS", 0.2)
    hanging = claim(alone, b"1")
    await asyncio.sleep(0)
    monkeypatch.setattr(replay, "PATIENCE_MS", 0)
    next_one = claim(alone, b"2")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert metrics.replay_round_trips == 3  # the one of "warm", and two at once
    assert await outcomes(hanging, next_one) == [ReplayGuardUnavailable] * 2


@pytest.mark.parametrize(
    ("reads", "passed"),
    [
        ([True, True, True], [True, True, True]),
        ([True, False, True], [True, False, True]),
        ([False, True, True, False], [True, False, False, False]),
        ([False, False], [True, False]),
    ],
)
@pytest.mark.parametrize("together", [False, True])
async def test_a_reads_signature_serves_reads_again_and_no_trade_and_a_trades_nothing(guards, reads, passed, together):
    """At two gates in turn, one after the other and all in one round trip."""
    claims = [(guards[0 if together else number % 2], shared) for number, shared in enumerate(reads)]
    if together:
        found = await outcomes(*(claim(guard, b"one", shared=shared) for guard, shared in claims))
    else:
        found = [(await outcomes(claim(guard, b"one", shared=shared)))[0] for guard, shared in claims]
    assert found == [None if one else ReplayedRequest for one in passed]


async def test_a_refused_replay_does_not_tell_anybody_to_send_again(guards):
    await claim(guards[0], b"one")
    with pytest.raises(ReplayedRequest, match="check the outcome of the first") as refused:
        await claim(guards[1], b"one")
    assert "sign it again" not in refused.value.detail
    assert "again" not in refused.value.detail


async def test_a_claimant_that_fails_costs_no_other_its_answer(guards):
    guard, _ = guards
    told: list[object] = []
    answered = asyncio.Event()

    def failing(_refusal: object) -> None:
        raise ValueError("a defect")

    def counting(refusal: object) -> None:
        told.append(refusal)
        answered.set()

    with structlog.testing.capture_logs() as lines:
        guard.ask("key", b"one", failing, ttl_ms=1_000, outage="deny")
        guard.ask("key", b"two", counting, ttl_ms=1_000, outage="deny")
        await asyncio.wait_for(answered.wait(), 10)
    assert told == [None]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["claimant_failed"]
