"""Usage in Redis: what the gateway counted is what the admin service reads, from real Redis."""

import asyncio
import json

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.errors import StoreUnavailable
from gateway.keys import redis_client, usage_store
from gateway.keys.ids import new_key_id
from gateway.keys.usage import MINUTE_MS, Refused, UsageCounts
from gateway.keys.usage_store import LastUse, UsagePeriod, UsageWriter
from gateway.runtime.moments import rfc3339
from gateway.runtime.tasks import spawn
from gateway.telemetry import Metrics

KEY, OTHER = "gbk_" + "a" * 28, "gbk_" + "b" * 28
NOON = 1_800_000_000_000 // usage_store.HOUR_MS * usage_store.HOUR_MS


@pytest.fixture
async def client(redis_url):
    async with redis.asyncio.Redis.from_url(redis_url) as connected:
        yield connected


@pytest.fixture
def counts():
    return UsageCounts()


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def writer(counts, client, metrics):
    return UsageWriter(counts, client, metrics)


async def test_counts_of_a_minute_come_back(counts, writer, client):
    counts.admitted(KEY, "8.8.8.8", NOON)
    counts.admitted(KEY, "8.8.8.8", NOON + 1)
    counts.refused(KEY, "ip_not_allowed", "9.9.9.9", NOON + 2)
    await writer.flush(NOON, everything=True)
    assert await usage_store.read_minutes(client, KEY, now_ms=NOON) == [UsagePeriod(NOON, 2, {"ip_not_allowed": 1})]
    assert await usage_store.read_minutes(client, OTHER, now_ms=NOON) == []


async def test_flushes_and_workers_add_up(counts, writer, client):
    other_counts = UsageCounts()
    for each, flusher in ((counts, writer), (other_counts, UsageWriter(other_counts, client, Metrics())), (counts, writer)):
        each.admitted(KEY, "8.8.8.8", NOON)
        await flusher.flush(NOON, everything=True)
    assert await usage_store.read_minutes(client, KEY, now_ms=NOON) == [UsagePeriod(NOON, 3, {})]


async def test_nothing_is_written_twice(counts, writer, client):
    counts.admitted(KEY, "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    await writer.flush(NOON, everything=True)
    assert (await usage_store.read_minutes(client, KEY, now_ms=NOON))[0].admitted == 1


async def test_the_latest_use_wins_whatever_order_flushes_arrive_in(client):
    late, early = UsageCounts(), UsageCounts()
    late.admitted(KEY, "8.8.8.8", NOON + 500)
    early.admitted(KEY, "8.8.8.8", NOON)
    early.admitted(OTHER, "2001:db8::1", NOON + 7)
    for each in (late, early):
        await UsageWriter(each, client, Metrics()).flush(NOON, everything=True)
    assert await usage_store.read_last_use(client, [KEY, OTHER, "gbk_" + "c" * 28]) == {
        KEY: LastUse(NOON + 500, "8.8.8.8"),
        OTHER: LastUse(NOON + 7, "2001:db8::1"),
    }


async def test_a_refusal_is_no_use(counts, writer, client):
    counts.refused(KEY, "invalid_credentials", "9.9.9.9", NOON)
    await writer.flush(NOON, everything=True)
    assert await usage_store.read_last_use(client, [KEY]) == {}


async def test_recent_refusals_come_latest_first_and_are_bounded(counts, writer, client):
    for number in range(60):
        counts.refused(KEY, "ip_not_allowed", "9.9.9.9", NOON + number)
    await writer.flush(NOON, everything=True)
    counts.refused(KEY, "rate_limited", "8.8.8.8", NOON + 100)
    await writer.flush(NOON, everything=True)
    refusals = await usage_store.read_refusals(client, KEY)
    assert len(refusals) == 50
    assert refusals[:2] == [Refused(NOON + 100, "rate_limited", "8.8.8.8"), Refused(NOON + 59, "ip_not_allowed", "9.9.9.9")]


async def test_what_the_key_did_not_sign_is_counted_and_pushes_nothing_out(counts, writer, client):
    """Whoever knows a key's id can make as many of these as they like, from any address."""
    counts.refused(KEY, "rate_limited", "8.8.8.8", NOON)
    for number in range(60):
        counts.refused(KEY, "invalid_credentials", "6.6.6.6", NOON + number, "GET /x", False)
    await writer.flush(NOON, everything=True)
    assert await usage_store.read_refusals(client, KEY) == [Refused(NOON, "rate_limited", "8.8.8.8")]
    (hour,) = [hour for hour in await usage_store.read_hours(client, KEY, now_ms=NOON) if hour.refused]
    assert hour.refused == {"rate_limited": 1, "invalid_credentials": 60}


async def test_hours_count_back_from_now_and_include_quiet_ones(counts, writer, client):
    for minutes_ago in (0, 59, 60, 23 * 60 + 59, 24 * 60 + 1):
        at_ms = NOON - minutes_ago * MINUTE_MS
        counts.admitted(KEY, "8.8.8.8", at_ms)
        await writer.flush(at_ms, everything=True)
    hours = await usage_store.read_hours(client, KEY, now_ms=NOON)
    assert len(hours) == 24
    assert hours[-1].start_ms + usage_store.HOUR_MS == NOON + MINUTE_MS
    assert [hour.admitted for hour in hours] == [1] + [0] * 21 + [1, 2]


async def test_everything_kept_expires(counts, writer, client):
    counts.admitted(KEY, "8.8.8.8", NOON)
    counts.refused(KEY, "rate_limited", "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    keys = await client.keys("*")
    assert len(keys) == 4
    assert all([await client.ttl(key) > 25 * 3600 for key in keys])


async def test_a_deleted_key_is_forgotten(counts, writer, client):
    counts.admitted(KEY, "8.8.8.8", NOON)
    counts.refused(KEY, "rate_limited", "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    await usage_store.forget(client, KEY, now_ms=NOON)
    assert await client.keys("*") == []


NO_REFUSAL = (
    b"", b"x", b"null", b"1", b"{}", b"[]", b"[1]", b"\xff", b"[" * 5_000, b'["1", "a", "b"]', b'[true, "a", "b"]', b'[1.5, "a", "b"]',
    b'[1e999, "a", "b"]', b'[-1, "a", "b"]', b'[99999999999999999, "a", "b"]', b"[" + b"9" * 5_000 + b', "a", "b"]', b'[NaN, "a", "b"]',
    b'[1, null, "b"]', b'[1, "a", 2]', b'[1, "a", "b", []]', b'[1, "\\ud800", "b"]', b'[1, "a", "\\u0000"]',
)  # fmt: skip


@pytest.mark.parametrize("garbage", NO_REFUSAL, ids=lambda garbage: ascii(garbage[:40]))
async def test_what_is_no_refusal_is_left_out(counts, writer, client, garbage):
    counts.refused(KEY, "rate_limited", "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    await client.lpush(f"gerbang:{{{KEY}}}:refusals", garbage)
    assert await usage_store.read_refusals(client, KEY) == [Refused(NOON, "rate_limited", "8.8.8.8")]


async def test_what_earlier_and_later_versions_write_of_a_refusal_is_read(client):
    """While gateways are upgraded one by one, or one is rolled back, admin services of either version read what both have written."""
    for written in ([1, "not_ready", "8.8.8.8"], [2, "not_ready", "8.8.8.8", "GET /v1", "something", {"else": 1}]):
        await client.lpush(f"gerbang:{{{KEY}}}:refusals", json.dumps(written))
    found = await usage_store.read_refusals(client, KEY)
    assert found == [Refused(2, "not_ready", "8.8.8.8", "GET /v1"), Refused(1, "not_ready", "8.8.8.8")]


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
    | st.binary()
)
def test_whatever_is_read_as_a_refusal_can_be_shown(garbage):
    found = usage_store._refused(garbage)  # noqa: SLF001  # through Redis each example would take a round trip
    if found is not None:
        assert json.dumps(found, ensure_ascii=False).encode()
        assert rfc3339(found.at_ms)


NO_COUNT = (
    (b"x", b"1"), (b"", b"1"), (b" ", b"1"), (b"x admitted", b"1"), (b"60 admitted", b"1"), (b"-1 admitted", b"1"),
    (b"\xff admitted", b"1"), (b"1 \xff", b"1"), (b"1 admitted", b"x"), (b"1 admitted", b""), (b"1 admitted", b"-1"),
    (b"1 admitted", b"1.5"), (b"1 admitted", b"inf"), (b"1 admitted", b"9" * 5_000), ("\u0661 admitted".encode(), b"1"),
    (b"1 admitted", b"1_0"),
)  # fmt: skip


@pytest.mark.parametrize(("field", "count"), NO_COUNT, ids=lambda part: ascii(part[:20]))
async def test_what_is_no_count_is_left_out(counts, writer, client, field, count):
    counts.admitted(KEY, "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    await client.hset(f"gerbang:{{{KEY}}}:usage:{NOON // usage_store.HOUR_MS}", field, count)
    assert await usage_store.read_minutes(client, KEY, now_ms=NOON + 120_000) == [UsagePeriod(NOON, 1, {})]


async def test_statistics_of_another_type_are_left_out(counts, writer, client):
    counts.admitted(OTHER, "8.8.8.8", NOON)
    counts.refused(OTHER, "rate_limited", "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    await client.set(f"gerbang:{{{KEY}}}:refusals", "x")
    await client.set(f"gerbang:{{{KEY}}}:usage:{NOON // usage_store.HOUR_MS}", "x")
    assert await usage_store.read_minutes(client, KEY, now_ms=NOON) == []
    assert await usage_store.read_refusals_of(client, [KEY, OTHER]) == {KEY: [], OTHER: [Refused(NOON, "rate_limited", "8.8.8.8")]}


@pytest.mark.parametrize("score", ["inf", "1e300", "-1", "-inf", "0.5"])
async def test_a_last_use_at_a_time_that_cannot_be_is_a_use_still(client, score):
    await client.execute_command("ZADD", f"gerbang:{{{KEY}}}:last", score, b"\xff")
    used = (await usage_store.read_last_use(client, [KEY]))[KEY]
    assert rfc3339(used.at_ms)
    await client.execute_command("ZADD", "gerbang:active", NOON, b"\xff", NOON, KEY)
    assert KEY in await usage_store.read_active(client, since_ms=NOON, now_ms=NOON)


async def test_without_redis_counts_are_given_up_and_readers_say_so(own_redis):
    metrics, counts = Metrics(), UsageCounts()
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        writer = UsageWriter(counts, client, metrics)
        own_redis.stop()
        counts.admitted(KEY, "8.8.8.8", NOON)
        await writer.flush(NOON, everything=True)
        assert metrics.usage_flushes == {"failed": 1}
        assert counts.take_all() == {}
        with pytest.raises(StoreUnavailable):
            await usage_store.read_last_use(client, [KEY])
        own_redis.start()
        counts.admitted(KEY, "8.8.8.8", NOON)
        await writer.flush(NOON, everything=True)
        assert (await usage_store.read_minutes(client, KEY, now_ms=NOON))[0].admitted == 1


async def test_a_command_that_redis_refuses_fails_the_flush(counts, writer, client, metrics):
    await client.set(usage_store.last_key(KEY), "of another type")
    counts.admitted(KEY, "8.8.8.8", NOON)
    await writer.flush(NOON, everything=True)
    assert metrics.usage_flushes == {"failed": 1}


async def test_a_silent_redis_does_not_hold_the_writer(own_redis, monkeypatch):
    monkeypatch.setattr(usage_store, "_WRITE_SECONDS", 0.05)
    metrics, counts = Metrics(), UsageCounts()
    client = redis_client.connect(own_redis.url, time_each_reply=False)
    counts.admitted(KEY, "8.8.8.8", NOON)
    own_redis.freeze()
    await UsageWriter(counts, client, metrics).flush(NOON, everything=True)
    own_redis.thaw()
    assert metrics.usage_flushes == {"failed": 1}
    await client.aclose()


async def test_of_many_keys_none_is_lost_and_a_few_are_written_in_each_turn_of_the_loop(counts, writer, client, metrics):
    keys = [new_key_id() for _ in range(45)]
    for key_id in keys:
        counts.admitted(key_id, "8.8.8.8", NOON)
    await writer.flush(NOON + 5_000)
    assert metrics.usage_flushes == {"ok": 3}
    assert set(await usage_store.read_last_use(client, keys)) == set(keys)
    for key_id in keys:
        counts.admitted(key_id, "9.9.9.9", NOON + 6_000)
    await writer.flush(NOON + 6_000, everything=True)
    assert metrics.usage_flushes == {"ok": 6}
    assert {used.client_ip for used in (await usage_store.read_last_use(client, keys)).values()} == {"9.9.9.9"}


async def test_of_many_keys_that_redis_does_not_take_the_first_few_are_given_up_and_the_others_kept(own_redis):
    metrics, counts = Metrics(), UsageCounts()
    keys = [new_key_id() for _ in range(45)]
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        own_redis.stop()
        for key_id in keys:
            counts.admitted(key_id, "8.8.8.8", NOON)
        with capture_logs() as logs:
            await UsageWriter(counts, client, metrics).flush(NOON + 5_000)
    assert metrics.usage_flushes == {"failed": 1}
    assert [(entry["event"], entry["keys"]) for entry in logs] == [("usage_not_written", 45)]
    assert sum(entry.admitted for entry in counts.take_all().values()) == 25


async def test_stopping_writes_what_is_left(counts, writer, client):
    writer.start()
    counts.admitted(KEY, "8.8.8.8", NOON)
    await writer.stop()
    assert set(await usage_store.read_last_use(client, [KEY])) == {KEY}


@pytest.mark.parametrize("ending", ["cancelled", "a defect"])
async def test_a_write_that_did_not_end_leaves_nothing_without_an_expiry(counts, writer, client, monkeypatch, ending):
    begun = asyncio.Event()

    async def ends_badly(*_):
        begun.set()
        if ending == "a defect":
            raise RuntimeError
        await asyncio.Event().wait()

    counts.admitted(KEY, "8.8.8.8", NOON)
    with monkeypatch.context() as patched:
        patched.setattr(usage_store, "ask_all", ends_badly)
        flush = spawn(writer.flush(NOON + 5_000), name="flush")
        await begun.wait()
        flush.cancel()
        with pytest.raises((asyncio.CancelledError, RuntimeError)):
            await flush
    counts.admitted(KEY, "8.8.8.8", NOON + 5_000)
    await writer.flush(NOON + 6_000, everything=True)
    found = [name async for name in client.scan_iter("gerbang:*")]
    assert len(found) == 3
    assert [name for name in found if await client.ttl(name) <= 0] == []


async def written(writer, counts, seconds: float) -> None:
    await writer.flush(NOON + int(seconds * 1_000))


async def test_news_is_written_soon_and_more_of_the_same_once_a_minute(counts, writer, client, metrics):
    commands = 0
    for second in range(600):
        counts.admitted(KEY, "8.8.8.8", NOON + second * 1_000)
        await written(writer, counts, second)
        commands = metrics.usage_flushes["ok"]
        if second == 5:
            assert (await usage_store.read_last_use(client, [KEY]))[KEY].client_ip == "8.8.8.8"
            assert commands == 1
    assert 10 <= commands <= 13
    await writer.flush(NOON + 600_000, everything=True)
    minutes = await usage_store.read_minutes(client, KEY, now_ms=NOON + 600_000)
    assert [minute.admitted for minute in minutes] == [60] * 10


async def test_a_steady_key_costs_few_commands(counts, writer, client):
    for second in range(0, 130, 1):
        counts.admitted(KEY, "8.8.8.8", NOON + second * 1_000)
        await written(writer, counts, second)
    before = sum(figures["calls"] for figures in (await client.info("commandstats")).values())
    for second in range(130, 190, 1):
        counts.admitted(KEY, "8.8.8.8", NOON + second * 1_000)
        await written(writer, counts, second)
    after = sum(figures["calls"] for figures in (await client.info("commandstats")).values())
    assert after - before <= 8  # two minutes' counts, the last use, which keys were active; one asked for these figures
