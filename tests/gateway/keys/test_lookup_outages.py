"""Looking a key up while stores are away, or when changes may have been missed."""

import asyncio

import pytest

from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys import lookup
from gateway.keys.cache import ABSENT
from gateway.keys.codec import DatedRecord, seal_record
from gateway.keys.ids import new_key_id
from gateway.keys.shared import REST_MS, Source, record_key
from gateway.keys.trust import KnownChanges
from gateway.runtime.tasks import spawn
from gateway.telemetry.metrics import Metrics
from tests.gateway.keys.conftest import SETTINGS, Clocks
from tests.support.inside import cache, is_in_doubt, sizes
from tests.support.keys import NOW_MS

TTL = SETTINGS.local_ttl_ms


@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_with_redis_away_keys_come_from_postgresql(own_world, own_redis, how):
    record, gate = await own_world.key(), await own_world.gate()
    await own_world.redis.ping()
    await asyncio.to_thread(getattr(own_redis, how))
    assert await gate.lookup.fetch(record.key_id) == record
    assert await gate.lookup.fetch(new_key_id()) is None  # Redis rests: not asked again at once
    assert gate.metrics.key_fetches["redis", "unavailable"] == 1


async def test_one_late_answer_of_redis_sends_no_other_key_to_postgresql(own_world, own_redis):
    """A gate that fills asks for thousands of keys a second: with Redis at rest they all went to PostgreSQL."""
    records, other, gate = [await own_world.key() for _ in range(3)], await own_world.gate(), await own_world.gate()
    for record in records:
        await other.lookup.fetch(record.key_id)
    await other.settle()
    assert await gate.lookup.fetch(records[0].key_id) == records[0]
    await asyncio.to_thread(own_redis.freeze)
    assert await gate.lookup.fetch(records[1].key_id) == records[1]
    await asyncio.to_thread(own_redis.thaw)
    assert await gate.lookup.fetch(records[2].key_id) == records[2]
    assert gate.store.asked == [records[1].key_id]


@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_with_postgresql_away_keys_in_memory_or_redis_go_on_and_unknown_ones_are_unavailable(own_world, own_postgres, how):
    mine, others, clocks = await own_world.key(), await own_world.key(), Clocks()
    gate, other = await own_world.gate(clocks), await own_world.gate(clocks)
    await gate.lookup.fetch(mine.key_id)
    await other.lookup.fetch(others.key_id)
    await other.settle()
    await asyncio.to_thread(getattr(own_postgres, how))
    assert (gate.peek(mine.key_id), gate.metrics.stale_served) == (mine, 0)
    clocks.advance(TTL)
    assert (gate.peek(mine.key_id), gate.metrics.stale_served) == (mine, 1)
    assert await gate.lookup.fetch(others.key_id) == others
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(new_key_id())
    clocks.advance(10 * SETTINGS.redis_ttl_ms)  # longer than any seal: memory goes on, since Redis tells of changes
    assert await gate.lookup.fetch(mine.key_id) == mine
    assert gate.metrics.stale_served > 0
    if how == "freeze":
        own_postgres.thaw()


async def test_with_postgresql_away_a_key_that_changed_does_not_go_on(own_world):
    record, gate = await own_world.key(), await own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    held = await own_world.redis.get(record_key(record.key_id))
    await asyncio.to_thread(own_world.database.stop)
    gate.announce(record.key_id)
    await gate.settle()
    await own_world.redis.set(record_key(record.key_id), held)
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)


async def test_what_another_server_has_told_of_does_not_go_on_before_all_of_its_changes_are_applied(world):
    """It may be away again by then."""
    (first, second), gate = [await world.key() for _ in range(2)], await world.gate()
    read = gate.trust.read
    gate.trust.read = read._replace(server=read.server + 1)
    records = {server: DatedRecord(first, gate.clocks.wall, 60_000, read.position, server) for server in (read.server, read.server + 1)}
    valid: list[list[bool]] = []
    gate.listener.on_invalidate.append(
        lambda _: valid.append(
            [gate.trust.fallback_valid_until_ms(one, gate.clocks.now()) > gate.clocks.monotonic for one in records.values()]
        )
    )
    await world.admin.execute("DELETE FROM api_keys WHERE id = $1", second.key_id)
    await world.admin.execute("DELETE FROM api_keys WHERE id = $1", first.key_id)
    await gate.read()
    assert valid[-1] == [False, False]
    assert {after for _, after in valid} == {False}


async def test_a_cold_gate_without_postgresql_takes_records_of_redis_to_the_end_of_their_seal_and_no_further(own_world):
    record, clocks = await own_world.key(), Clocks()
    gate = await own_world.gate(clocks)
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    cold = await own_world.gate(Clocks(monotonic=9_000_000, wall=clocks.wall + SETTINGS.redis_ttl_ms - 1_000), feed=False)
    assert await cold.lookup.fetch(record.key_id) == record
    cold.clocks.advance(999)
    assert cold.peek(record.key_id) == record
    cold.clocks.advance(1)
    assert cold.peek(record.key_id) is None
    with pytest.raises(KeyStoreUnavailable):
        await cold.lookup.fetch(record.key_id)


async def test_a_key_of_redis_is_asked_for_again_while_it_is_in_use_and_remembered_when_postgresql_is_back(own_world):
    record, clocks = await own_world.key(), Clocks()
    gate = await own_world.gate(clocks)
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    cold = await own_world.gate(Clocks(monotonic=9_000_000, wall=clocks.wall))
    await asyncio.to_thread(own_world.database.stop)
    cold.clocks.advance(TTL)  # its feed is old: a record of Redis is not believed as such
    for _ in range(5):
        assert await cold.lookup.fetch(record.key_id) == record
        cold.clocks.advance(999)
        assert cold.peek(record.key_id) == record
        cold.clocks.advance(1)
        assert cold.peek(record.key_id) is None
    await asyncio.to_thread(own_world.database.start)
    cold.connection = None
    await cold.read()
    assert await cold.lookup.fetch(record.key_id) == record
    assert cold.store.asked[-1] == record.key_id
    assert not is_in_doubt(cold.lookup, record.key_id)


async def test_while_the_feed_alone_cannot_be_read_a_key_that_is_looked_up_is_remembered_as_one_in_memory_is(world):
    """An overloaded server does not answer the feed in time. It was asked each second for every key that it had answered since."""
    record, gate, absent = await world.key(), await world.gate(), new_key_id()
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) == record
    assert await gate.lookup.fetch(absent) is None
    for _ in range(3):
        gate.clocks.advance(1_000)
        assert (gate.peek(record.key_id), gate.peek(absent)) == (record, ABSENT)
        await gate.settle()
    assert gate.store.asked == [record.key_id, absent]
    await world.delete(record)
    await gate.read()
    assert gate.peek(record.key_id) is None


async def test_what_another_server_s_feed_says_of_a_key_is_heeded_before_all_of_it_has_been_applied(world, monkeypatch):
    record = await world.key()
    gate, add = await world.gate(), KnownChanges.add
    read = gate.trust.read
    gate.trust.read, gate.trust.changes.server = read._replace(server=read.server + 1), read.server + 1
    sealed = seal_record(DatedRecord(record, NOW_MS, 60_000, read.position, read.server + 1), world.vault)
    await world.redis.set(record_key(record.key_id), sealed)
    await world.delete(record)

    def interrupted(*args):
        yield from add(*args)
        raise RuntimeError

    async def unavailable(_key_ids):
        raise StoreUnavailable("PostgreSQL did not answer")

    monkeypatch.setattr(KnownChanges, "add", interrupted)
    monkeypatch.setattr(gate.store.inner, "find", unavailable)
    gate.clocks.advance(1)
    assert await gate.lookup.fetch(record.key_id) == record
    with pytest.raises(RuntimeError):
        await gate.read()
    gate.clocks.advance(REST_MS)
    await world.redis.set(record_key(record.key_id), sealed)
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)


async def test_without_a_gap_in_the_messages_memory_goes_on_and_after_one_until_the_limit(own_world):
    record, gate = await own_world.key(), await own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    gate.clocks.advance(20_000)
    assert gate.peek(record.key_id) == record
    gate.trust.redis_up_ms = gate.clocks.monotonic  # it was away for a moment
    gate.clocks.advance(SETTINGS.stale_limit_ms - 20_000 - 1)
    assert gate.peek(record.key_id) == record
    gate.clocks.advance(1)
    assert gate.peek(record.key_id) is None


async def test_with_both_away_a_key_goes_on_not_a_moment_longer_than_the_limit(own_world, own_redis):
    record, gate, absent = await own_world.key(), await own_world.gate(), new_key_id()
    await gate.lookup.fetch(record.key_id)
    await gate.lookup.fetch(absent)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    await asyncio.to_thread(own_redis.stop)
    gate.trust.redis_up_ms = None
    gate.clocks.advance(SETTINGS.stale_limit_ms - 1)
    assert (gate.peek(record.key_id), gate.peek(absent)) == (record, ABSENT)
    gate.clocks.advance(1)
    assert gate.peek(record.key_id) is None
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)


async def test_an_outage_costs_one_wait_and_not_one_per_key(own_world):
    gate = await own_world.gate()
    await asyncio.to_thread(own_world.database.stop)
    for _ in range(50):
        with pytest.raises(KeyStoreUnavailable):
            await gate.lookup.fetch(new_key_id())
    assert len(gate.store.asked) == 1
    await asyncio.to_thread(own_world.database.start)
    gate.clocks.advance(250)
    assert await gate.lookup.fetch(new_key_id()) is None


@pytest.mark.parametrize("step", [-3_600_000, 3_600_000])
async def test_a_step_of_the_wall_clock_neither_refuses_nor_revives_a_key(world, step):
    record, gate = await world.key(), await world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.clocks.wall += step
    assert gate.peek(record.key_id) == record
    await world.delete(record)
    await gate.read()
    assert await gate.lookup.fetch(record.key_id) is None


async def test_a_postgresql_that_has_started_is_asked_at_once_for_keys_in_use(own_world, own_postgres):
    """Its feed names those that have changed lately. While it rested, those who used them were refused."""
    record, gate = await own_world.key(), await own_world.gate()
    assert await gate.lookup.fetch(record.key_id) == record
    await asyncio.to_thread(own_postgres.kill)
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(new_key_id())  # it rests now: the clock stands still
    await asyncio.to_thread(own_postgres.start)
    await gate.read(anew=True)
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) == record


async def test_a_query_that_fails_after_another_was_answered_does_not_make_the_store_rest():
    clocks, fails = Clocks(), asyncio.Event()
    source = Source("postgres", Metrics(), lambda: clocks.monotonic)

    async def failing():
        await fails.wait()
        raise StoreUnavailable("the server was stopped")

    async def answering():
        return "an answer"

    query = spawn(source.ask(failing), name="a query")
    await asyncio.sleep(0)
    clocks.advance(1)
    assert await source.ask(answering) == "an answer"
    fails.set()
    with pytest.raises(StoreUnavailable):
        await query
    assert await source.ask(answering) == "an answer"
    with pytest.raises(StoreUnavailable):
        await source.ask(failing)
    with pytest.raises(StoreUnavailable, match="not retried yet"):
        await source.ask(answering)


# -- what may have been missed -----------------------------------------------------------------------------------------


async def test_when_changes_may_have_been_missed_keys_are_used_for_a_while_and_read_anew(world):
    deleted, kept, gate = await world.key(), await world.key(), await world.gate()
    for record in (deleted, kept):
        await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.delete(deleted, tell=True)
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    assert (gate.peek(deleted.key_id), gate.peek(kept.key_id)) == (deleted, kept)
    await gate.settle()
    assert (gate.peek(deleted.key_id), gate.peek(kept.key_id)) == (ABSENT, kept)
    assert gate.metrics.key_rereads == 2
    assert sizes(gate.lookup)["present"] == 1


async def test_a_key_in_doubt_is_looked_up_once_at_a_time_however_long_that_takes(world):
    """Of two look-ups of a key, the one that began before a change would be taken for unchanged when the other begins."""
    record, gate = await world.key(), await world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.redis.flushall()
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    gate.store.hold()
    assert gate.peek(record.key_id) == record
    await gate.store.holding.wait()
    gate.clocks.advance(2_000)
    assert gate.peek(record.key_id) == record
    gate.store.release()
    await gate.settle()
    assert gate.store.asked == [record.key_id] * 2


async def test_a_key_that_cannot_be_read_anew_is_used_no_longer_than_its_time_in_doubt(own_world, own_redis):
    record, gate = await own_world.key(), await own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    await asyncio.to_thread(own_world.database.stop)
    await asyncio.to_thread(own_redis.stop)
    for _ in range(TTL // 500):
        assert gate.peek(record.key_id) == record
        await gate.settle()
        gate.clocks.advance(500)
    assert gate.peek(record.key_id) is None
    assert gate.metrics.key_rereads == TTL // 500


async def test_the_time_in_doubt_is_counted_from_when_the_gap_was_found_out(world):
    gate, began_ms = await world.gate(), Clocks().monotonic
    gate.clocks.advance(1_000)
    gate.lookup.invalidate_all(gap_ms=began_ms)
    assert cache(gate.lookup).doubt_ends_ms == began_ms + TTL


async def test_the_more_keys_have_to_be_read_again_the_longer_they_are_in_doubt(world, monkeypatch):
    """After a restart of PostgreSQL with 100,000 keys in use, those that could not be read within ``local_ttl`` were refused."""
    monkeypatch.setattr(lookup, "ROWS_PER_SECOND", 2)
    gate = await world.gate()
    for _ in range(3):
        await gate.lookup.fetch((await world.key()).key_id)
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    assert cache(gate.lookup).doubt_ends_ms == gate.clocks.monotonic + TTL + 3_000


async def test_what_was_not_believed_is_not_used_in_doubt_either(world):
    record, gate = await world.key(), await world.gate()
    await gate.lookup.fetch(record.key_id)
    gate.trust.redis_up_ms = None
    gate.clocks.advance(SETTINGS.stale_limit_ms)
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) == record
