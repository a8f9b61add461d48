"""Records in Redis."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreUnavailable
from gateway.keys import shared
from gateway.keys.codec import DatedRecord, open_record, seal_record
from gateway.keys.ids import new_key_id
from gateway.keys.redis_client import connect
from gateway.keys.shared import SharedRecords, forget, record_key
from gateway.keys.snapshot import BEGINNING
from gateway.runtime.tasks import spawn
from tests.support.keys import NOW_MS, a_record, a_vault


@pytest.fixture
async def redis(redis_url):
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def records(redis):
    return SharedRecords(redis, a_vault())


def dated(**changes) -> DatedRecord:
    return DatedRecord(a_record(**changes), NOW_MS, 60_000, BEGINNING, 1)


def ids(written: list[DatedRecord]) -> list[str]:
    return [one.record.key_id for one in written]


async def test_what_is_written_is_read_back_and_what_is_not_there_is_missing(records):
    written = [dated() for _ in range(3)]
    await records.write(written, now_ms=NOW_MS)
    assert await records.read([*ids(written), new_key_id()]) == {one.record.key_id: one for one in written}


async def test_of_many_records_a_few_are_sealed_or_opened_in_each_turn_of_the_loop(records, monkeypatch):
    written, worked = [dated() for _ in range(4 * shared.SEALED_AT_ONCE)], []
    monkeypatch.setattr(shared, "seal_record", lambda *of: worked.append(1) or seal_record(*of))
    monkeypatch.setattr(shared, "open_record", lambda *of, **key: worked.append(1) or open_record(*of, **key))
    for work in (records.write(written, now_ms=NOW_MS), records.read(ids(written))):
        doing, in_each_turn = spawn(work, name="work"), []
        while not doing.done():
            worked.clear()
            await asyncio.sleep(0)
            in_each_turn.append(len(worked))
        assert sum(in_each_turn) == len(written)
        assert max(in_each_turn) == shared.SEALED_AT_ONCE


async def test_a_later_record_takes_the_place_of_an_earlier_one_and_of_garbage(redis, records):
    for label in ("first", "second"):
        written = dated(key_id="gbk_1", label=label)
        await records.write([written], now_ms=NOW_MS)
        assert await records.read(["gbk_1"]) == {"gbk_1": written}
        await redis.set(record_key("gbk_1"), b"garbage")
        assert await records.read(["gbk_1"]) == {}


async def test_what_is_forgotten_is_gone(redis, records):
    written = [dated() for _ in range(3)]
    await records.write(written, now_ms=NOW_MS)
    await forget(redis, ids(written)[:2])
    assert list(await records.read(ids(written))) == ids(written)[2:]
    await forget(redis, [])


async def test_a_record_leaves_redis_when_its_time_is_up(redis, records):
    written, late = dated(), dated()
    await records.write([written], now_ms=NOW_MS + 20_000)
    assert 39_000 < await redis.pttl(record_key(written.record.key_id)) <= 40_000
    await records.write([late], now_ms=NOW_MS + 60_000)
    assert await records.read([late.record.key_id]) == {}


def test_all_names_of_a_key_are_in_one_slot():
    key_id = new_key_id()
    assert record_key(key_id) == f"gerbang:{{{key_id}}}:record"


async def test_a_redis_that_is_away_is_unavailable(tmp_path):
    redis = connect(f"unix://:hunter2@{tmp_path}/nobody.sock")
    records = SharedRecords(redis, a_vault())
    for attempt in (records.read([new_key_id()]), records.write([dated()], now_ms=NOW_MS), forget(redis, [new_key_id()])):
        with pytest.raises(StoreUnavailable) as refusal:
            await attempt
        assert "hunter2" not in str(refusal.value)
    await redis.aclose()


class Holding:
    """Where a Redis would be, holding one value."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    async def mget(self, _keys: list[str]) -> list[bytes]:
        return [self.value]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.binary().map(lambda tail: b"changed " + tail))
async def test_any_bytes_are_no_record(value):
    assert await SharedRecords(Holding(value), a_vault()).read([new_key_id()]) == {}
