"""Records and tombstones in Redis."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreUnavailable
from gateway.keys.codec import DatedRecord
from gateway.keys.ids import new_key_id
from gateway.keys.redis_client import connect
from gateway.keys.shared import SharedRecords, entomb, record_key
from gateway.keys.trust import TOMBSTONE_TTL_MS, Shared
from tests.support.keys import NOW_MS, a_record, a_vault


@pytest.fixture
async def redis(redis_url):
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def records(redis):
    return SharedRecords(redis, a_vault())


KEY_ID = new_key_id()


def dated(**changes) -> DatedRecord:
    return DatedRecord(a_record(**changes), NOW_MS, 60_000)


async def test_what_is_written_where_nothing_was_is_read_back(records):
    written = dated()
    assert (await records.read(written.record.key_id)).kind == "none"
    await records.write(written, now_ms=NOW_MS)
    found = await records.read(written.record.key_id)
    assert found.dated == written
    assert found.kind == "found"


async def test_a_later_record_takes_the_place_of_an_earlier_one_and_of_garbage(redis, records):
    for label in ("first", "second"):
        written = DatedRecord(a_record(key_id=KEY_ID, label=label), NOW_MS, 60_000)
        await records.write(written, now_ms=NOW_MS)
        assert (await records.read(KEY_ID)).dated == written
        await redis.set(record_key(KEY_ID), b"garbage")


async def test_nothing_is_written_over_a_tombstone(redis, records):
    written = dated()
    key_id = written.record.key_id
    await records.write(written, now_ms=NOW_MS)
    await entomb(redis, [key_id], now_ms=NOW_MS)
    await records.write(written, now_ms=NOW_MS)
    found = await records.read(key_id)
    assert found.changed_ms == NOW_MS
    assert found.kind == "changed"


async def test_tombstones_among_many_keys_are_found_at_once(redis, records):
    written, changed, nothing = dated(), new_key_id(), new_key_id()
    await records.write(written, now_ms=NOW_MS)
    await entomb(redis, [changed], now_ms=NOW_MS)
    assert await records.changed([written.record.key_id, changed, nothing]) == {changed: NOW_MS}


async def test_a_record_leaves_redis_when_its_time_is_up(redis, records):
    written = dated()
    await records.write(written, now_ms=NOW_MS + 20_000)
    assert 39_000 < await redis.pttl(record_key(written.record.key_id)) <= 40_000
    late = dated()
    await records.write(late, now_ms=NOW_MS + 60_000)
    assert await records.read(late.record.key_id) == Shared()


async def test_a_tombstone_leaves_redis_after_its_time(redis):
    await entomb(redis, [key_id := new_key_id()], now_ms=NOW_MS)
    assert TOMBSTONE_TTL_MS - 10_000 < await redis.pttl(record_key(key_id)) <= TOMBSTONE_TTL_MS


def test_all_names_of_a_key_are_in_one_slot():
    key_id = new_key_id()
    assert record_key(key_id) == f"gerbang:{{{key_id}}}:record"


async def test_a_redis_that_is_away_is_unavailable(tmp_path):
    redis = connect(f"unix://:hunter2@{tmp_path}/nobody.sock")
    records = SharedRecords(redis, a_vault())
    for attempt in (
        records.read(new_key_id()),
        records.write(dated(), now_ms=NOW_MS),
        records.entomb(new_key_id(), now_ms=NOW_MS),
        records.changed([new_key_id()]),
    ):
        with pytest.raises(StoreUnavailable) as refusal:
            await attempt
        assert "hunter2" not in str(refusal.value)
    await redis.aclose()


class Holding:
    """Where a Redis would be, holding one value."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    async def get(self, _key: str) -> bytes:
        return self.value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.binary().map(lambda tail: b"changed " + tail))
async def test_any_bytes_are_nothing_believable(value):
    found = await SharedRecords(Holding(value), a_vault()).read(new_key_id())
    assert found.dated is None
    assert found.kind in ("unreadable", "changed")
