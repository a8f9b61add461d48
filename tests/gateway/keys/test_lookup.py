"""Looking a key up through the three layers, on real stores: what is believed, what a change does, attacks, bounds."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from admin import feed
from gateway.config.settings import Cache
from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys import codec, lookup, postgres, shared
from gateway.keys.cache import ABSENT
from gateway.keys.codec import DatedRecord, seal_record
from gateway.keys.ids import new_key_id
from gateway.keys.shared import record_key
from gateway.keys.snapshot import BEGINNING
from gateway.keys.trust import CLOCKS_DIFFER_MS, MAX_RECORD_TTL_MS
from gateway.runtime.tasks import in_steps, spawn
from tests.gateway.keys.conftest import SETTINGS, Clocks
from tests.support.inside import read_feed, sizes
from tests.support.keys import NOW_MS, a_vault, add_key

TTL = SETTINGS.local_ttl_ms


async def filled(world, record):
    """A gate that has the key in memory and has put it into Redis."""
    gate = await world.gate()
    assert await gate.lookup.fetch(record.key_id) == record
    await gate.settle()
    return gate


# -- the three layers --------------------------------------------------------------------------------------------------


async def test_a_key_is_a_miss_then_found_then_in_memory(world):
    record, gate = await world.key(), await world.gate()
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.peek(record.key_id) == record
    assert gate.store.asked == [record.key_id]


async def test_a_key_in_use_is_never_read_anew_while_the_feed_is_read(world):
    record = await world.key()
    gate = await filled(world, record)
    for _ in range(50):
        gate.clocks.advance(TTL - 1)
        assert gate.peek(record.key_id) is record or gate.peek(record.key_id) == record
        await gate.read()
    assert gate.store.asked == [record.key_id]
    assert gate.metrics.key_fetches["redis", "absent"] == 1


async def test_memory_is_not_believed_without_the_feed(world):
    record = await world.key()
    gate = await filled(world, record)
    gate.trust.redis_up_ms = None
    gate.clocks.advance(SETTINGS.stale_limit_ms)
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.store.asked == [record.key_id] * 2
    assert gate.peek(record.key_id) == record  # for a moment, so that who waited for it finds it
    gate.clocks.advance(1_000)
    assert gate.peek(record.key_id) is None


async def test_shorter_limits_hold_at_once(world):
    record = await world.key()
    gate = await filled(world, record)
    gate.trust.redis_up_ms = None
    gate.clocks.advance(1_000)
    assert gate.peek(record.key_id) == record
    gate.lookup.configure(Cache(local_ttl_ms=1_000, stale_limit_ms=1_000))
    assert gate.peek(record.key_id) is None


async def test_before_the_feed_was_read_keys_and_absences_hold_for_a_moment(world):
    record, gate, absent = await world.key(), await world.gate(feed=False), new_key_id()
    assert await gate.lookup.fetch(record.key_id) == record
    assert await gate.lookup.fetch(absent) is None
    assert (gate.peek(record.key_id), gate.peek(absent)) == (record, ABSENT)
    gate.clocks.advance(1_000)
    assert (gate.peek(record.key_id), gate.peek(absent)) == (None, None)
    assert await world.redis.keys("*") == []


async def test_an_unknown_id_is_remembered_as_absent_and_never_written_to_redis(world):
    gate, key_id = await world.gate(), new_key_id()
    assert await gate.lookup.fetch(key_id) is None
    assert gate.peek(key_id) is ABSENT
    await gate.settle()
    assert await world.redis.keys("*") == []


async def test_many_waiting_for_one_key_ask_the_stores_once(world):
    record, gate = await world.key(), await world.gate()
    found = await asyncio.gather(*(gate.lookup.fetch(record.key_id) for _ in range(100)))
    assert found == [record] * 100
    assert gate.store.asked == [record.key_id]


async def test_keys_that_are_asked_for_at_once_go_together(world, monkeypatch):
    records, gate = [await world.key() for _ in range(100)], await world.gate()
    found = await asyncio.gather(*(gate.lookup.fetch(record.key_id) for record in records))
    assert found == records
    assert len(gate.store.batches) <= 10
    await gate.settle()
    second = await world.gate()
    assert await asyncio.gather(*(second.lookup.fetch(record.key_id) for record in records)) == records
    assert second.store.asked == []


@pytest.mark.parametrize(("store", "batches"), [("redis", 4), ("postgresql", 2)])
async def test_of_keys_that_are_found_at_once_a_few_are_concluded_in_each_turn_of_the_loop(world, store, batches):
    records = [await world.key() for _ in range(6 * lookup.CONCLUDED_AT_ONCE)]
    gate = await world.gate()
    if store == "redis":
        await asyncio.gather(*(gate.lookup.fetch(record.key_id) for record in records))
        await gate.settle()
        gate = await world.gate()
    fetched = asyncio.gather(*(gate.lookup.fetch(record.key_id) for record in records))
    await asyncio.sleep(0)
    under_way, concluded = len(records), []
    while under_way:
        await asyncio.sleep(0)
        concluded.append(under_way - sizes(gate.lookup)["flights"])
        under_way -= concluded[-1]
    assert await fetched == records
    assert max(concluded) <= lookup.CONCLUDED_AT_ONCE * batches  # as many as may come in one turn, on a busy machine


async def test_one_who_gives_up_waiting_does_not_disturb_the_others(world):
    record, gate = await world.key(), await world.gate()
    gate.store.hold()
    first = spawn(gate.lookup.fetch(record.key_id), name="first")
    second = spawn(gate.lookup.fetch(record.key_id), name="second")
    await gate.store.holding.wait()
    first.cancel()
    gate.store.release()
    assert await second == record


async def test_the_value_stays_the_same_object_while_the_record_does_not_change(world):
    record, gate = await world.key(), await world.gate()
    value = await gate.lookup.fetch(record.key_id)
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    assert gate.peek(record.key_id) is value
    await gate.settle()
    assert gate.peek(record.key_id) is value
    assert gate.prepared == [record.key_id]


async def test_another_gate_takes_the_record_from_redis_for_its_whole_validity(world):
    record = await world.key()
    first = await filled(world, record)
    for late_ms, asked in ((SETTINGS.redis_ttl_ms - 1, []), (SETTINGS.redis_ttl_ms, [record.key_id])):
        second = await world.gate(Clocks(monotonic=5_000_000, wall=first.clocks.wall + late_ms))
        assert await second.lookup.fetch(record.key_id) == record
        assert second.store.asked == asked


async def test_redis_holds_a_valid_record_of_a_key_in_use_and_is_not_written_more_than_that_needs(world, monkeypatch):
    writes, write = 0, shared.SharedRecords.write

    async def counted(self, records, **when):
        nonlocal writes
        writes += len(records)
        await write(self, records, **when)

    monkeypatch.setattr(shared.SharedRecords, "write", counted)
    record, idle = await world.key(), await world.key()
    gate, reader = await filled(world, record), shared.SharedRecords(world.redis, world.vault)
    await gate.lookup.fetch(idle.key_id)
    await gate.settle()
    writes = 0
    for _ in range(200):
        gate.clocks.advance(1_000)
        assert gate.peek(record.key_id) == record
        await gate.read()
        held = (await reader.read([record.key_id]))[record.key_id]
        assert gate.clocks.wall < held.read_ms + held.ttl_ms
    assert writes == 200_000 // 45_000
    assert gate.store.asked == [record.key_id, idle.key_id]


async def test_a_key_in_doubt_that_changes_is_used_no_more(world):
    record, gate = await world.key(), await world.gate()
    await gate.lookup.fetch(record.key_id)
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    gate.lookup.invalidate(record.key_id)
    assert gate.peek(record.key_id) is None


async def test_what_redis_did_not_take_is_put_there_soon_after_it_answers(world, monkeypatch):
    record, gate, write = await world.key(), await world.gate(), shared.SharedRecords.write

    async def refused(*_record, **_when):
        raise StoreUnavailable("Redis did not answer")

    monkeypatch.setattr(shared.SharedRecords, "write", refused)
    assert await gate.lookup.fetch(record.key_id) == record
    await gate.settle()
    monkeypatch.setattr(shared.SharedRecords, "write", write)
    gate.clocks.advance(5_000)
    await gate.read()
    another = await world.gate(gate.clocks)
    assert await another.lookup.fetch(record.key_id) == record
    assert another.store.asked == []


async def test_what_redis_did_not_take_does_not_wait_for_records_that_are_due_later(world, monkeypatch):
    """Each of a gate's writes that was refused while it filled was repeated only when the first record of all was due: 45 s later."""
    earlier, later = await world.key(), await world.key()
    gate, write = await filled(world, earlier), shared.SharedRecords.write

    async def refused(*_record, **_when):
        raise StoreUnavailable("Redis did not answer")

    monkeypatch.setattr(shared.SharedRecords, "write", refused)
    await gate.lookup.fetch(later.key_id)
    await gate.settle()
    monkeypatch.setattr(shared.SharedRecords, "write", write)
    gate.clocks.advance(5_000)
    await gate.read()
    another = await world.gate(gate.clocks)
    assert await another.lookup.fetch(later.key_id) == later
    assert another.store.asked == []


async def test_records_are_renewed_one_batch_after_the_other(world, monkeypatch):
    """However many are due, another read of the feed does not begin with them as well; what Redis refuses ends it until the next."""
    monkeypatch.setattr(lookup, "_REDIS_BATCH", 2)
    keys = [await world.key() for _ in range(5)]
    gate, write, writes, go = await world.gate(), shared.SharedRecords.write, [], asyncio.Event()
    for key in keys:
        await gate.lookup.fetch(key.key_id)
    await gate.settle()

    async def held_up(self, records, **when):
        writes.append(len(records))
        await go.wait()
        if len(writes) == 2:
            raise StoreUnavailable("Redis did not answer")
        await write(self, records, **when)

    monkeypatch.setattr(shared.SharedRecords, "write", held_up)
    for key in keys:
        gate.peek(key.key_id)
    gate.clocks.advance(50_000)
    for _ in range(2):
        await read_feed(gate.listener, gate.connection)
    await asyncio.sleep(0)
    assert writes == [2]
    go.set()
    await gate.settle()
    assert writes == [2, 2]
    gate.clocks.advance(5_000)
    await gate.read()
    assert writes == [2, 2, 2, 1]


async def test_however_long_redis_takes_each_record_is_renewed_once_and_with_others_that_are_due(world, monkeypatch):
    """With 100,000 keys in memory, and for each 100 of them a round trip for the few that were due, it took longer than until the next
    pass over memory. That wrote the same records again beside it, as did the third: records were renewed 87 s after they were written.
    """
    monkeypatch.setattr(lookup, "_REDIS_BATCH", 2)
    records = [await world.key() for _ in range(10)]
    gate, write, writes, go = await world.gate(), shared.SharedRecords.write, [], asyncio.Event()
    for record in records:
        await gate.lookup.fetch(record.key_id)
    await gate.settle()

    async def slow(self, dated, **when):
        writes.append([one.record.key_id for one in dated])
        await go.wait()
        await write(self, dated, **when)

    monkeypatch.setattr(shared.SharedRecords, "write", slow)
    used = [record.key_id for record in records[::3]]
    for key_id in used:
        gate.peek(key_id)
    for passed_ms in (45_000, 8_000, 8_000):
        gate.clocks.advance(passed_ms)
        await read_feed(gate.listener, gate.connection)
        await asyncio.sleep(0.01)
    assert writes == [used[:2]]
    go.set()
    await gate.settle()
    assert writes == [used[:2], used[2:]]


async def test_a_key_in_doubt_is_not_renewed(world):
    """Its record would be dated with the position of the read that found the gap."""
    record, gate = await world.key(), await world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.redis.flushall()
    gate.clocks.advance(50_000)
    await gate.read()
    gate.peek(record.key_id)  # in use, and due
    gate.lookup.invalidate_all(gap_ms=gate.clocks.monotonic)
    gate.clocks.advance(10_000)
    await gate.read()
    assert await world.redis.keys("*") == []


async def test_what_memory_let_go_is_not_renewed_and_each_key_in_memory_is_renewed_once(world, monkeypatch):
    writes, write = [], shared.SharedRecords.write

    async def noted(self, records, **when):
        writes.extend(record.record.key_id for record in records)
        await write(self, records, **when)

    records = [await world.key() for _ in range(60)]
    gate = await world.gate(settings=SETTINGS.model_copy(update={"local_entries": 3}))
    for record in records:
        await gate.lookup.fetch(record.key_id)
    await gate.settle()
    monkeypatch.setattr(shared.SharedRecords, "write", noted)
    kept = [record.key_id for record in records[-3:]]
    for key_id in kept:  # it is read and written again
        gate.lookup.invalidate(key_id)
        await world.redis.unlink(shared.record_key(key_id))
        await gate.lookup.fetch(key_id)
        await gate.settle()
    writes.clear()
    for key_id in kept:
        gate.peek(key_id)
    gate.clocks.advance(50_000)
    await gate.read()
    assert sorted(writes) == sorted(kept)


async def test_a_key_that_was_idle_is_in_redis_again_when_it_is_used_again(world):
    """Its renewal was dropped once and for all, and each gate that started read it from PostgreSQL."""
    record = await world.key()
    gate, reader = await filled(world, record), shared.SharedRecords(world.redis, world.vault)
    for _ in range(200):
        gate.clocks.advance(1_000)
        await gate.read()
    await world.redis.flushall()
    gate.peek(record.key_id)
    for _ in range(10):
        gate.clocks.advance(1_000)
        await gate.read()
    held = (await reader.read([record.key_id]))[record.key_id]
    assert gate.clocks.wall < held.read_ms + held.ttl_ms
    assert gate.store.asked == [record.key_id]


async def test_memory_is_looked_through_a_few_times_while_a_record_is_valid(world, monkeypatch):
    """It may have many keys, and the feed is read up to 20 times a second."""
    record, examined = await world.key(), []

    def noted(key_ids, at_once):
        examined.append(key_ids)
        return in_steps(key_ids, at_once)

    gate = await filled(world, record)
    monkeypatch.setattr(lookup, "in_steps", noted)
    for _ in range(1_000):
        gate.clocks.advance(50)
        await gate.read()
    assert examined == [[record.key_id]] * (50_000 // 7_500)


async def test_of_a_key_that_has_just_changed_redis_gets_a_record_that_others_believe(world):
    """It is looked up before this gate has read of its change, as a message told of it: that record is of a position before the change."""
    record, gate = await world.key(), await world.gate()
    await world.admin.execute("UPDATE accounts SET tier = 'pro'")
    gate.announce(record.key_id)
    for _ in range(2):
        assert (await gate.lookup.fetch(record.key_id)).tier == "pro"
        await gate.read()
    other = await world.gate()
    assert (await other.lookup.fetch(record.key_id)).tier == "pro"
    assert (gate.store.asked, other.store.asked) == ([record.key_id] * 2, [])


async def test_a_renewed_record_is_believed_as_one_that_was_read(world):
    record = await world.key()
    gate = await filled(world, record)
    await world.key()  # somebody writes: the position moves on
    gate.clocks.advance(50_000)
    gate.peek(record.key_id)
    await gate.read()
    gate.peek(record.key_id)
    await gate.read()
    second = await world.gate(Clocks(monotonic=5_000_000, wall=gate.clocks.wall + 40_000))
    assert await second.lookup.fetch(record.key_id) == record
    assert second.store.asked == []


async def test_redis_holds_no_secret_in_the_clear(world):
    record = await world.key()
    await filled(world, record)
    held = await world.redis.get(record_key(record.key_id))
    assert held
    assert record.secret.reveal() not in held
    assert 0 < await world.redis.pttl(record_key(record.key_id)) <= SETTINGS.redis_ttl_ms


# -- changes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notice", ["feed", "message"])
async def test_a_deletion_takes_effect_once_it_is_heard_of(world, notice):
    record = await world.key()
    gate = await filled(world, record)
    await world.delete(record)
    assert gate.peek(record.key_id) == record
    await (gate.read() if notice == "feed" else asyncio.sleep(0, gate.announce(record.key_id)))
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) is None


async def test_a_look_up_that_read_the_old_row_before_the_deletion_does_not_bring_the_key_back(world):
    record, gate = await world.key(), await world.gate()
    gate.store.hold()
    looking = spawn(gate.lookup.fetch(record.key_id), name="looking")
    await gate.store.holding.wait()  # the old row is read; nothing is remembered or written yet
    await world.delete(record, tell=True, now_ms=gate.clocks.wall)
    gate.announce(record.key_id)
    gate.store.release()
    assert await looking is None
    await gate.settle()
    assert gate.peek(record.key_id) is ABSENT
    assert await world.redis.get(record_key(record.key_id)) is None


async def test_a_batch_under_way_while_one_of_its_keys_is_deleted_keeps_the_others(world):
    deleted, kept, gate = await world.key(), await world.key(), await world.gate()
    gate.store.hold()
    looking = [spawn(gate.lookup.fetch(record.key_id), name="looking") for record in (deleted, kept)]
    await gate.store.holding.wait()
    await world.delete(deleted)
    heard = asyncio.Event()
    gate.listener.on_invalidate.append(lambda _key_id: heard.set())
    feed = spawn(gate.read(), name="reading")
    await heard.wait()
    gate.store.release()
    assert await asyncio.gather(*looking) == [None, kept]
    await feed


@pytest.mark.parametrize("reader", ["knows at its start", "hears later"])
async def test_an_old_record_that_comes_into_redis_after_the_deletion_is_believed_by_no_gate(world, reader, monkeypatch):
    record, gate = await world.key(), await world.gate()
    another = await world.gate() if reader == "hears later" else None
    write, go = shared.SharedRecords.write, asyncio.Event()

    async def held_up(self, records, **where):
        await go.wait()
        await write(self, records, **where)

    monkeypatch.setattr(shared.SharedRecords, "write", held_up)
    assert await gate.lookup.fetch(record.key_id) == record
    await world.delete(record)
    go.set()
    await gate.settle()
    assert await world.redis.get(record_key(record.key_id))
    if another is None:
        another = await world.gate()
    else:
        await another.read()
    assert await another.lookup.fetch(record.key_id) is None
    assert another.store.asked == [record.key_id]


async def test_a_record_in_redis_is_not_believed_between_a_message_and_the_next_read_of_the_feed(world):
    record, other = await world.key(), await world.key()
    gate = await filled(world, record)
    held = await world.redis.get(record_key(record.key_id))
    await world.delete(record)
    gate.announce(record.key_id)
    await world.redis.set(record_key(record.key_id), held)
    assert await gate.lookup.fetch(record.key_id) is None
    gate.announce(other.key_id)  # which has not changed: after the next read Redis is believed again
    await gate.lookup.fetch(other.key_id)
    await gate.read()
    assert await (await world.gate()).lookup.fetch(other.key_id) == other


async def test_a_creation_ends_a_known_absence(world):
    gate, key_id = await world.gate(), new_key_id()
    assert await gate.lookup.fetch(key_id) is None
    record = await world.key(key_id=key_id)
    assert gate.peek(key_id) is ABSENT
    await gate.read()
    assert await gate.lookup.fetch(key_id) == record


async def test_a_look_up_under_way_while_the_key_is_created_does_not_remember_it_as_absent(world):
    gate, key_id = await world.gate(), new_key_id()
    gate.store.hold()
    looking = spawn(gate.lookup.fetch(key_id), name="looking")
    await gate.store.holding.wait()
    record = await world.key(key_id=key_id)
    gate.announce(key_id)
    gate.store.release()
    assert await looking == record


async def test_a_freeze_a_tier_and_a_revocation_take_effect_as_a_deletion_does(world):
    record, other = await world.key(), await world.key(account_id="bob")
    gate = await filled(world, record)
    await gate.lookup.fetch(other.key_id)
    await world.admin.execute("UPDATE accounts SET frozen = true WHERE id = 'alice'")
    await gate.read()
    assert (await gate.lookup.fetch(record.key_id)).frozen
    await world.admin.execute("UPDATE accounts SET tier = 'pro' WHERE id = 'alice'")
    await gate.read()
    assert (await gate.lookup.fetch(record.key_id)).tier == "pro"
    await store_revoke(world, record)
    await gate.read()
    assert await gate.lookup.fetch(record.key_id) is None
    assert gate.store.asked.count(other.key_id) == 1


async def store_revoke(world, record):
    await world.admin.execute(
        "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'x', sealed_secret = NULL WHERE id = $1", record.key_id
    )


async def test_a_key_that_never_stops_changing_is_refused_rather_than_decided_on_the_past(world, monkeypatch):
    monkeypatch.setattr(lookup, "PATIENCE_MS", 100)
    record, gate = await world.key(), await world.gate()
    find = gate.store.inner.find

    async def changing(key_ids):
        found = await find(key_ids)
        gate.announce(*key_ids)
        return found

    gate.store.inner.find = changing
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)
    assert sizes(gate.lookup) == {"present": 0, "absent": 0, "flights": 1}
    gate.store.inner.find = find
    await gate.settle()
    assert gate.peek(record.key_id) == record
    assert sizes(gate.lookup)["flights"] == 0


# -- redis is not trusted ----------------------------------------------------------------------------------------------


async def test_a_sealed_record_moved_to_another_key_is_refused_and_replaced(world):
    victim, mine = await world.key(), await world.key(account_id="mallory")
    gate = await filled(world, mine)
    await world.redis.set(record_key(victim.key_id), await world.redis.get(record_key(mine.key_id)))
    assert await gate.lookup.fetch(victim.key_id) == victim
    await gate.settle()
    second = await world.gate()
    assert await second.lookup.fetch(victim.key_id) == victim
    assert second.store.asked == []


@pytest.mark.parametrize("cold", [False, True], ids=["a gate that heard", "a cold gate"])
async def test_an_old_sealed_record_put_back_into_redis_does_not_revive_a_deleted_key(world, cold):
    record = await world.key()
    gate = await filled(world, record)
    old = await world.redis.get(record_key(record.key_id))
    await world.delete(record, tell=True)
    await gate.read()
    await world.redis.set(record_key(record.key_id), old)
    if cold:
        gate = await world.gate()
    assert await gate.lookup.fetch(record.key_id) is None


@pytest.mark.parametrize("change", [{"read_ms": NOW_MS + 60_000}, {"server": 1}, {"position": BEGINNING}], ids=str)
async def test_a_record_from_the_future_another_server_or_before_what_is_known_is_not_believed(world, change):
    await world.key()
    await world.admin.execute("DELETE FROM key_feed_marks")  # as if all changes before now had been pruned
    record, gate = await world.key(), await world.gate()
    read = gate.trust.read
    dated = DatedRecord(record, NOW_MS, 60_000, read.position, read.server)._replace(**change)
    await world.redis.set(record_key(record.key_id), seal_record(dated, world.vault))
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.store.asked == [record.key_id]


async def test_a_forged_message_neither_hides_a_change_nor_costs_more_than_a_look(world):
    record = await world.key()
    gate = await filled(world, record)
    gate.announce(record.key_id)
    assert await gate.lookup.fetch(record.key_id) == record
    await world.delete(record)
    await gate.read()
    assert await gate.lookup.fetch(record.key_id) is None
    assert gate.store.asked == [record.key_id] * 3


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\x01\x02k1" + bytes(60), b"changed 99999999999999999999"])
async def test_garbage_in_redis_costs_one_look_at_postgresql(world, garbage):
    record, gate = await world.key(), await world.gate()
    await world.redis.set(record_key(record.key_id), garbage)
    assert await gate.lookup.fetch(record.key_id) == record


async def test_a_record_of_a_vault_that_others_do_not_have_refuses_nobody(world):
    record, gate = await world.key(), await world.gate()
    read = gate.trust.read
    await world.redis.set(
        record_key(record.key_id), seal_record(DatedRecord(record, NOW_MS, 60_000, read.position, read.server), a_vault())
    )
    assert await gate.lookup.fetch(record.key_id) == record


# -- one bad record ----------------------------------------------------------------------------------------------------


async def test_a_row_that_cannot_be_read_refuses_its_own_key_only(world):
    broken, whole = await add_key(world.admin, a_vault()), await world.key()  # sealed by a vault that this gate does not have
    gate = await world.gate()
    assert await asyncio.gather(gate.lookup.fetch(broken.key_id), gate.lookup.fetch(whole.key_id)) == [None, whole]
    assert gate.peek(broken.key_id) is ABSENT


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError])
async def test_a_record_that_cannot_be_prepared_refuses_its_own_key_only(world, error):
    unusable, usable = await world.key(label="bad"), await world.key()

    def prepare(record):
        if record.label == "bad":
            raise error
        return record

    gate = await world.gate(prepare=prepare)
    bad: Any
    good: Any
    bad, good = await asyncio.gather(gate.lookup.fetch(unusable.key_id), gate.lookup.fetch(usable.key_id), return_exceptions=True)
    assert good == usable
    assert bad is None if error is ValueError else isinstance(bad, KeyStoreUnavailable)
    assert sizes(gate.lookup)["flights"] == 0


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_made_up_ids_neither_push_out_keys_nor_grow_without_bound(world):
    records = [await world.key() for _ in range(3)]
    gate = await world.gate(settings=Cache(local_entries=5))
    for record in records:
        await gate.lookup.fetch(record.key_id)
    for _ in range(50):
        await gate.lookup.fetch(new_key_id())
    assert all(gate.peek(record.key_id) == record for record in records)
    assert sizes(gate.lookup) == {"present": 3, "absent": 5, "flights": 0}
    await gate.settle()
    assert len(await world.redis.keys("*")) == 3


async def test_made_up_ids_wait_in_a_line_of_their_own_that_is_bounded(world, monkeypatch):
    monkeypatch.setattr(lookup, "_UNKNOWN_QUEUED", 5)
    record = await world.key()
    await filled(world, record)
    gate = await world.gate()
    gate.lookup.invalidate_all()
    gate.store.hold()
    guesses = [spawn(gate.lookup.fetch(new_key_id()), name="guess") for _ in range(10)]
    await gate.store.holding.wait()
    gate.store.release()
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), KeyStoreUnavailable}
    assert any(isinstance(outcome, KeyStoreUnavailable) for outcome in outcomes)
    assert await gate.lookup.fetch(record.key_id) == record


async def test_who_has_waited_too_long_is_told_to_try_again_and_finds_the_key_then(world, monkeypatch):
    """With more than a gate has time for, a look-up that was given up with its request began anew each time, and hardly any ended."""
    record, gate = await world.key(), await world.gate()
    monkeypatch.setattr(lookup, "PATIENCE_MS", 10)
    gate.store.hold()
    for _ in range(2):
        with pytest.raises(KeyStoreUnavailable):
            await gate.lookup.fetch(record.key_id)
    gate.store.release()
    await gate.settle()
    assert gate.peek(record.key_id) == record
    assert gate.store.asked == [record.key_id]


async def test_look_ups_under_way_are_bounded(world, monkeypatch):
    record, gate = await world.key(), await world.gate()
    monkeypatch.setattr(lookup, "PLACES", 2)
    gate.store.hold()
    guesses = [spawn(gate.lookup.fetch(new_key_id()), name="guess") for _ in range(2)]
    await gate.store.holding.wait()
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)
    gate.store.release()
    assert await asyncio.gather(*guesses) == [None, None]
    assert await gate.lookup.fetch(record.key_id) == record


async def test_new_settings_hold_from_now_on(world):
    records = [await world.key() for _ in range(3)]
    gate = await world.gate()
    gate.trust.redis_up_ms = None
    for record in records:
        await gate.lookup.fetch(record.key_id)
    gate.lookup.configure(Cache(local_ttl_ms=10, stale_limit_ms=10, local_entries=1))
    await gate.lookup.fetch(records[0].key_id)
    gate.lookup.invalidate(records[2].key_id)
    assert await gate.lookup.fetch(records[2].key_id) == records[2]
    assert sizes(gate.lookup)["present"] == 1
    gate.clocks.advance(1_000)
    assert gate.peek(records[2].key_id) is None


def test_no_record_is_valid_for_longer_than_changes_are_kept_or_records_removed():
    assert MAX_RECORD_TTL_MS / 1_000 < feed.OUTDATED_SECONDS - CLOCKS_DIFFER_MS / 1_000
    Cache(redis_ttl_ms=MAX_RECORD_TTL_MS)
    with pytest.raises(ValidationError):
        Cache(redis_ttl_ms=MAX_RECORD_TTL_MS + 1)


async def test_a_thousand_cancelled_look_ups_give_no_reply_for_another_key(own_world, own_redis):
    """Commands are given up while their replies are under way; every later answer must be the asked key's own."""
    records = {(record := await own_world.key(label=f"bot {number}")).key_id: record for number in range(20)}
    gate = await own_world.gate()
    for key_id in records:
        await gate.lookup.fetch(key_id)
    await gate.settle()
    reader, cancelled = shared.SharedRecords(own_world.redis, own_world.vault), 0
    for turn in range(50):
        own_redis.freeze()
        reads = [spawn(reader.read([key_id]), name="read") for key_id in records]
        for _ in range(turn):
            await asyncio.sleep(0)
        if turn % 2:  # the replies arrive before the cancellations, or after
            own_redis.thaw()
            await asyncio.sleep(0)
        for read in reads:
            read.cancel()
        own_redis.thaw()
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        cancelled += sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        for key_id, record in records.items():
            raw = await own_world.redis.get(record_key(key_id))
            assert codec.open_record(raw, own_world.vault, expected_key_id=key_id).record == record
    assert cancelled > 500


async def test_cancelled_waiters_leave_no_look_up_behind(world):
    gate, records = await world.gate(), [await world.key() for _ in range(10)]
    for number in range(200):
        waiting = spawn(gate.lookup.fetch(records[number % 10].key_id), name="waiting")
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        gate.lookup.invalidate_all()
    await gate.settle()
    assert sizes(gate.lookup)["flights"] == 0
    for record in records:
        assert await gate.lookup.fetch(record.key_id) == record


async def test_closing_gives_up_look_ups_under_way(world):
    gate = await world.gate()
    gate.store.hold()
    waiting = spawn(gate.lookup.fetch(new_key_id()), name="waiting")
    await gate.store.holding.wait()
    await gate.lookup.aclose()
    assert sizes(gate.lookup)["flights"] == 0
    with pytest.raises(KeyStoreUnavailable):
        await waiting


async def test_a_pool_that_cannot_be_used_makes_keys_unavailable(world, monkeypatch):
    gate = await world.gate()
    async with await postgres.create_pool("postgresql://u@h/d?sslmode=nonsense") as pool:
        monkeypatch.setattr(gate.store.inner, "_pool", pool)
        with pytest.raises(KeyStoreUnavailable):
            await gate.lookup.fetch(new_key_id())


async def test_what_is_sealed_for_redis_was_true_at_its_position(world, monkeypatch):
    """Memory has ended, and a key in it is read again; its first change, which memory has, outdates that look-up; its second follows."""
    record, sealed = await world.key(), []
    gate = await world.gate()
    owner = await postgres.connect(world.database.owner_dsn)
    await world.admin.execute("UPDATE accounts SET tier = 'pro'")
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await owner.execute("INSERT INTO key_changes (xid, key_id) SELECT pg_current_xact_id(), n::text FROM generate_series(1, 3000) AS n")
    await owner.close()
    await world.admin.execute("UPDATE accounts SET frozen = true")
    monkeypatch.setattr(shared, "seal_record", lambda *args: sealed.append(seal_record(*args)) or sealed[-1])
    gate.trust.redis_up_ms = None
    gate.clocks.advance(SETTINGS.stale_limit_ms)
    gate.store.hold()
    looking = spawn(gate.lookup.fetch(record.key_id), name="use")
    await gate.store.holding.wait()
    gate.listener.on_invalidate.append(lambda _: gate.store.release())
    await gate.read()
    assert (await looking).frozen
    assert sealed
    for written in sealed:  # whoever reads along may put them back
        await world.redis.set(record_key(record.key_id), written)
        cold = await world.gate(gate.clocks)
        assert (await cold.lookup.fetch(record.key_id)).frozen


async def test_what_a_server_has_is_used_for_a_moment_while_the_feed_of_another_one_is_read(world):
    """Also when memory is valid for longer, as has been found for another key."""
    (known, later), gate = [await world.key() for _ in range(2)], await world.gate()
    assert await gate.lookup.fetch(known.key_id) == known
    assert gate.peek(known.key_id) == known
    gate.trust.read = gate.trust.read._replace(server=gate.trust.read.server + 1)
    assert await gate.lookup.fetch(later.key_id) == later
    gate.clocks.advance(999)
    assert gate.peek(later.key_id) == later
    gate.clocks.advance(1)
    assert (gate.peek(known.key_id), gate.peek(later.key_id)) == (known, None)


async def test_that_a_server_lacks_a_key_is_not_remembered_while_the_feed_of_another_one_is_read(world):
    """It was refused for as long as the feed told of no change of it."""
    gate, key_id = await world.gate(), new_key_id()
    gate.trust.read = gate.trust.read._replace(server=gate.trust.read.server + 1)
    for _ in range(2):
        assert await gate.lookup.fetch(key_id) is None
        assert gate.peek(key_id) is ABSENT
        gate.clocks.advance(1_000)
        assert gate.peek(key_id) is None
    await gate.read()
    assert await gate.lookup.fetch(key_id) is None
    gate.clocks.advance(1_000)
    assert gate.peek(key_id) is ABSENT
