"""Looking a key up through the three layers, on real stores: freshness, revocation, outages, attacks."""

import asyncio

import pytest
from pydantic import ValidationError

from gateway.config.settings import Cache
from gateway.errors import KeyStoreUnavailable
from gateway.keys import codec, postgres, shared
from gateway.keys.cache import ABSENT
from gateway.keys.codec import DatedRecord, seal_record
from gateway.keys.ids import new_key_id
from gateway.keys.invalidation import publish
from gateway.keys.shared import record_key
from gateway.keys.trust import MAX_RECORD_TTL_MS, TOMBSTONE_TTL_MS
from gateway.runtime.tasks import spawn
from tests.gateway.keys.conftest import SETTINGS, Clocks
from tests.support.keys import NOW_MS, a_vault, add_key

TTL = SETTINGS.local_ttl_ms


# -- the three layers --------------------------------------------------------------------------------------------------


async def test_a_key_is_a_miss_then_found_then_in_memory(world):
    record, gate = await world.key(), world.gate()
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.peek(record.key_id) == record
    assert gate.store.asked == [record.key_id]


async def test_an_unknown_id_is_remembered_as_absent_and_never_written_to_redis(world):
    gate, key_id = world.gate(), new_key_id()
    assert await gate.lookup.fetch(key_id) is None
    assert gate.peek(key_id) is ABSENT
    await gate.settle()
    assert await world.redis.keys("*") == []


async def test_an_absent_id_is_asked_for_again_after_its_freshness(world):
    gate, key_id = world.gate(), new_key_id()
    await gate.lookup.fetch(key_id)
    gate.clocks.advance(TTL)
    assert gate.peek(key_id) is None


async def test_many_waiting_for_one_key_ask_the_stores_once(world):
    record, gate = await world.key(), world.gate()
    found = await asyncio.gather(*(gate.lookup.fetch(record.key_id) for _ in range(100)))
    assert found == [record] * 100
    assert gate.store.asked == [record.key_id]


async def test_one_who_gives_up_waiting_does_not_disturb_the_others(world):
    record, gate = await world.key(), world.gate()
    gate.store.hold()
    first = spawn(gate.lookup.fetch(record.key_id), name="first")
    second = spawn(gate.lookup.fetch(record.key_id), name="second")
    await gate.store.holding.wait()
    first.cancel()
    gate.store.release()
    assert await second == record


async def test_the_value_stays_the_same_object_while_the_record_does_not_change(world):
    record, gate = await world.key(), world.gate()
    value = await gate.lookup.fetch(record.key_id)
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) is value
    assert gate.prepared == [record.key_id]


async def test_a_second_gate_takes_the_record_from_redis_while_it_is_young(world):
    record, first = await world.key(), world.gate()
    await first.lookup.fetch(record.key_id)
    await first.settle()
    second = world.gate(Clocks(monotonic=5_000_000, wall=first.clocks.wall + 100))
    assert await second.lookup.fetch(record.key_id) == record
    assert second.store.asked == []


async def test_a_record_of_redis_is_fresh_no_longer_than_since_it_was_read(world):
    record, first = await world.key(), world.gate()
    await first.lookup.fetch(record.key_id)
    await first.settle()
    second = world.gate(Clocks(monotonic=5_000_000, wall=first.clocks.wall + 2_000))
    await second.lookup.fetch(record.key_id)
    second.clocks.advance(TTL - 2_000)
    assert second.peek(record.key_id) is None


async def test_an_older_record_of_redis_is_replaced_by_what_postgresql_says_now(world):
    record, first = await world.key(), world.gate()
    await first.lookup.fetch(record.key_id)
    await first.settle()
    later = first.clocks.wall + TTL
    second = world.gate(Clocks(monotonic=5_000_000, wall=later))
    await second.lookup.fetch(record.key_id)
    await second.settle()
    assert second.store.asked == [record.key_id]
    third = world.gate(Clocks(monotonic=6_000_000, wall=later + 10))
    await third.lookup.fetch(record.key_id)
    assert third.store.asked == []


async def test_redis_always_holds_a_valid_record_of_a_key_in_use_and_is_not_written_more_than_that_needs(world, monkeypatch):
    writes, write = 0, shared.SharedRecords.write

    async def counted(self, dated, **when):
        nonlocal writes
        writes += 1
        await write(self, dated, **when)

    monkeypatch.setattr(shared.SharedRecords, "write", counted)
    record, gate = await world.key(), world.gate()
    reader = shared.SharedRecords(world.redis, world.vault)
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    for _ in range(100):
        gate.clocks.advance(2_000)
        gate.peek(record.key_id) or await gate.lookup.fetch(record.key_id)
        await gate.settle()
        held = (await reader.read(record.key_id)).dated
        assert gate.clocks.wall < held.read_ms + held.ttl_ms
    assert 200_000 // 35_000 <= writes <= 200_000 // 25_000


async def test_redis_holds_no_secret_in_the_clear(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    held = await world.redis.get(record_key(record.key_id))
    assert held
    assert record.secret.reveal() not in held
    assert 0 < await world.redis.pttl(record_key(record.key_id)) <= SETTINGS.redis_ttl_ms


# -- refresh ahead -----------------------------------------------------------------------------------------------------


async def test_a_key_in_use_is_refreshed_in_the_background_and_never_waits(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    for _ in range(10):
        gate.clocks.advance(TTL * 9 // 10)
        assert gate.peek(record.key_id) == record
        await gate.settle()
    assert gate.metrics.key_refreshes == 10


async def test_keys_in_use_are_refreshed_together(world):
    records, gate = [await world.key() for _ in range(30)], world.gate()
    for record in records:
        await gate.lookup.fetch(record.key_id)
    gate.clocks.advance(TTL * 9 // 10)
    for record in records:
        assert gate.peek(record.key_id) == record
    await gate.settle()
    assert gate.store.batches == [[record.key_id for record in records]]
    gate.clocks.advance(TTL // 2)
    assert all(gate.peek(record.key_id) == record for record in records)


async def test_who_waits_for_a_known_key_does_not_wait_for_others_to_gather(world, monkeypatch):
    monkeypatch.setattr("gateway.keys.lookup._GATHER_SECONDS", 3_600)
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) == record


async def test_a_batch_under_way_while_one_of_its_keys_is_deleted_does_not_bring_that_key_back(world):
    deleted, kept, gate = await world.key(), await world.key(), world.gate()
    for record in (deleted, kept):
        await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.clocks.advance(TTL)
    gate.store.hold()
    looking = [spawn(gate.lookup.fetch(record.key_id), name="looking") for record in (deleted, kept)]
    await gate.store.holding.wait()
    await world.delete(deleted, tell=True, now_ms=gate.clocks.wall)
    gate.lookup.invalidate(deleted.key_id)
    gate.store.release()
    assert await asyncio.gather(*looking) == [None, kept]
    await gate.settle()
    assert (await world.redis.get(record_key(deleted.key_id))).startswith(b"changed ")


async def test_a_refresh_of_a_key_that_is_gone_buries_it(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.delete(record)
    gate.clocks.advance(TTL * 9 // 10)
    assert gate.peek(record.key_id) == record
    await gate.settle()
    assert gate.peek(record.key_id) is ABSENT
    assert (await world.redis.get(record_key(record.key_id))).startswith(b"changed ")


async def test_a_defect_in_preparing_one_key_strands_nobody(world):
    records = [await world.key(label=f"bot {number}") for number in range(3)]
    broken = False

    def prepare(record):
        if broken and record.label == "bot 1 again":
            raise ZeroDivisionError
        return record.label

    gate = world.gate(prepare=prepare)
    for record in records:
        await gate.lookup.fetch(record.key_id)
    owner = await postgres.connect(world.database.owner_dsn)
    await owner.execute("UPDATE api_keys SET label = label || ' again'")
    await owner.close()
    broken = True
    gate.clocks.advance(TTL)
    outcomes = await asyncio.gather(*(gate.lookup.fetch(record.key_id) for record in records), return_exceptions=True)
    assert outcomes[0] == "bot 0 again"
    assert isinstance(outcomes[1], KeyStoreUnavailable)
    assert outcomes[2] == "bot 2 again"
    assert gate.lookup.sizes()["flights"] == 0


async def test_a_refresh_is_started_once_and_the_key_is_used_until_it_is_due(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    gate.store.hold()
    gate.clocks.advance(TTL * 9 // 10)
    for _ in range(100):
        assert gate.peek(record.key_id) == record
    await gate.store.holding.wait()
    for _ in range(100):
        assert gate.peek(record.key_id) == record
    assert gate.store.batches == [[record.key_id]]
    gate.store.release()


async def test_a_key_that_nobody_uses_is_not_refreshed(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.clocks.advance(TTL * 9 // 10)
    await gate.settle()
    assert gate.store.asked == [record.key_id]


# -- revocation --------------------------------------------------------------------------------------------------------


async def test_a_deletion_that_is_noticed_takes_effect_at_the_next_look(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.delete(record, tell=True)
    gate.lookup.invalidate(record.key_id)
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) is None


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed here", "tombstone only"])
async def test_a_look_up_that_read_the_old_row_before_the_deletion_does_not_bring_the_key_back(world, noticed):
    record, gate = await world.key(), world.gate()
    gate.store.hold()
    looking = spawn(gate.lookup.fetch(record.key_id), name="looking")
    await gate.store.holding.wait()  # the old row is read; nothing is remembered or written yet

    await world.delete(record, tell=True, now_ms=gate.clocks.wall)
    if noticed:
        gate.lookup.invalidate(record.key_id)
    gate.store.release()
    found = await looking
    await gate.settle()

    if noticed:
        assert found is None
        assert gate.peek(record.key_id) is ABSENT
    assert (await world.redis.get(record_key(record.key_id))).startswith(b"changed ")
    another = world.gate(Clocks(monotonic=9_000_000, wall=gate.clocks.wall))
    assert await another.lookup.fetch(record.key_id) is None


async def test_a_look_up_that_read_the_old_row_does_not_bring_the_key_back_when_redis_missed_the_deletion(world):
    """The admin service died after its commit: PostgreSQL's notification alone."""
    record, gate = await world.key(), world.gate()
    gate.store.hold()
    looking = spawn(gate.lookup.fetch(record.key_id), name="looking")
    await gate.store.holding.wait()
    await world.delete(record, tell=False)
    gate.lookup.invalidate(record.key_id)
    gate.store.release()
    assert await looking is None
    await gate.settle()
    assert await world.redis.get(record_key(record.key_id)) is None


async def test_a_write_to_redis_held_up_until_after_the_deletion_finds_the_tombstone_in_its_way(world, monkeypatch):
    record, gate = await world.key(), world.gate()
    write, written, go = shared.SharedRecords.write, asyncio.Event(), asyncio.Event()

    async def held_up(self, dated, **where):
        await go.wait()
        await write(self, dated, **where)
        written.set()

    monkeypatch.setattr(shared.SharedRecords, "write", held_up)
    assert await gate.lookup.fetch(record.key_id) == record
    await world.delete(record, tell=True)
    gate.lookup.invalidate(record.key_id)
    go.set()
    await written.wait()
    assert (await world.redis.get(record_key(record.key_id))).startswith(b"changed ")
    assert await gate.lookup.fetch(record.key_id) is None


async def test_a_replacement_in_redis_held_up_until_after_the_deletion_finds_the_tombstone_in_its_way(world, monkeypatch):
    record, first = await world.key(), world.gate()
    await first.lookup.fetch(record.key_id)
    await first.settle()
    gate = world.gate(Clocks(monotonic=5_000_000, wall=first.clocks.wall + TTL))  # will replace the older record
    write, written, go = shared.SharedRecords.write, asyncio.Event(), asyncio.Event()

    async def held_up(self, dated, **where):
        await go.wait()
        await write(self, dated, **where)
        written.set()

    monkeypatch.setattr(shared.SharedRecords, "write", held_up)
    await gate.lookup.fetch(record.key_id)
    await world.delete(record, tell=True)
    go.set()
    await written.wait()
    assert (await world.redis.get(record_key(record.key_id))).startswith(b"changed ")


async def test_a_record_left_in_redis_is_not_believed_after_a_notice(world):
    """Redis missed the tombstone: PostgreSQL's notification is enough."""
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.delete(record, tell=False)
    gate.lookup.invalidate(record.key_id)
    assert await gate.lookup.fetch(record.key_id) is None
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) is None


async def test_with_every_notice_lost_a_deleted_key_dies_with_its_freshness_in_memory(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await world.delete(record)
    gate.clocks.advance(TTL)
    assert gate.peek(record.key_id) is None
    assert await gate.lookup.fetch(record.key_id) is None
    await gate.settle()
    assert (await world.redis.get(record_key(record.key_id))).startswith(b"changed ")


async def test_with_every_notice_lost_no_chain_of_gates_keeps_a_deleted_key_alive_beyond_its_freshness(world):
    record, clocks = await world.key(), Clocks()
    gates = [world.gate(clocks) for _ in range(5)]
    await gates[0].lookup.fetch(record.key_id)
    await gates[0].settle()
    await world.delete(record)
    alive_ms = 0
    for step in range(1, 100):
        clocks.advance(100)
        found = await gates[step % 5].lookup.fetch(record.key_id)
        await gates[step % 5].settle()
        alive_ms = step * 100 if found is not None else alive_ms
    assert alive_ms < TTL


async def test_a_creation_that_is_noticed_ends_a_known_absence(world):
    gate, key_id = world.gate(), new_key_id()
    assert await gate.lookup.fetch(key_id) is None
    record = await world.key(key_id=key_id)
    assert gate.peek(key_id) is ABSENT
    await publish(world.redis, [key_id], now_ms=NOW_MS)
    gate.lookup.invalidate(key_id)
    assert await gate.lookup.fetch(key_id) == record


async def test_a_look_up_under_way_while_the_key_is_created_does_not_remember_it_as_absent(world):
    gate, key_id = world.gate(), new_key_id()
    gate.store.hold()
    looking = spawn(gate.lookup.fetch(key_id), name="looking")
    await gate.store.holding.wait()
    record = await world.key(key_id=key_id)
    gate.lookup.invalidate(key_id)
    gate.store.release()
    assert await looking == record


async def test_a_freeze_and_a_revocation_take_effect_as_a_deletion_does(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await world.admin.execute("UPDATE accounts SET frozen = true")
    gate.lookup.invalidate(record.key_id)
    assert (await gate.lookup.fetch(record.key_id)).frozen
    await world.admin.execute("UPDATE api_keys SET revoked_at = now(), revoked_reason = 'x', sealed_secret = NULL")
    gate.lookup.invalidate(record.key_id)
    assert await gate.lookup.fetch(record.key_id) is None


async def test_a_key_that_never_stops_changing_is_refused_rather_than_decided_on_the_past(world):
    record, gate = await world.key(), world.gate()
    find = gate.store.inner.find

    async def changing(key_id, *, known):
        found = await find(key_id, known=known)
        gate.lookup.invalidate(key_id)
        return found

    gate.store.inner.find = changing
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)
    assert gate.lookup.sizes() == {"present": 0, "absent": 0, "flights": 0}


# -- what may have been missed -----------------------------------------------------------------------------------------


async def test_after_a_gap_in_a_channel_everything_in_memory_is_asked_for_anew(world):
    record, gate = await world.key(), world.gate()
    absent = new_key_id()
    await gate.lookup.fetch(record.key_id)
    await gate.lookup.fetch(absent)
    await gate.settle()
    gate.lookup.invalidate(None)
    assert gate.peek(record.key_id) is None
    assert gate.peek(absent) is None
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.store.asked == [record.key_id, absent, record.key_id]


async def test_a_record_of_redis_older_than_the_channel_is_not_believed(world):
    record, first = await world.key(), world.gate()
    await first.lookup.fetch(record.key_id)
    await first.settle()
    second = world.gate()
    second.channels.postgres_up_ms = second.clocks.monotonic  # it came up just now
    await second.lookup.fetch(record.key_id)
    assert second.store.asked == [record.key_id]


async def test_without_its_channel_a_gate_asks_postgresql(world):
    record, first = await world.key(), world.gate()
    await first.lookup.fetch(record.key_id)
    await first.settle()
    second = world.gate(heard=False)
    await second.lookup.fetch(record.key_id)
    assert second.store.asked == [record.key_id]


# -- redis is not trusted ----------------------------------------------------------------------------------------------


async def test_a_sealed_record_moved_to_another_key_is_refused_and_replaced(world):
    victim, mine, gate = await world.key(), await world.key(account_id="mallory"), world.gate()
    await gate.lookup.fetch(mine.key_id)
    await gate.settle()
    await world.redis.set(record_key(victim.key_id), await world.redis.get(record_key(mine.key_id)))
    assert await gate.lookup.fetch(victim.key_id) == victim
    await gate.settle()
    second = world.gate()
    assert await second.lookup.fetch(victim.key_id) == victim
    assert second.store.asked == []


async def test_an_old_sealed_record_put_back_into_redis_does_not_revive_a_deleted_key(world):
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    old = await world.redis.get(record_key(record.key_id))
    await world.delete(record, tell=True)
    await world.redis.set(record_key(record.key_id), old)
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) is None


async def test_an_old_sealed_record_is_not_used_beyond_its_seal_even_when_postgresql_is_down(own_world):
    record, gate = await own_world.key(), own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    old = await own_world.redis.get(record_key(record.key_id))
    await asyncio.to_thread(own_world.database.stop)
    await own_world.redis.set(record_key(record.key_id), old)
    late = own_world.gate(Clocks(monotonic=9_000_000, wall=gate.clocks.wall + SETTINGS.redis_ttl_ms - 1))
    assert await late.lookup.fetch(record.key_id) == record
    late.clocks.advance(1)
    assert late.peek(record.key_id) is None
    too_late = own_world.gate(Clocks(monotonic=9_000_000, wall=gate.clocks.wall + SETTINGS.redis_ttl_ms))
    with pytest.raises(KeyStoreUnavailable):
        await too_late.lookup.fetch(record.key_id)


async def test_a_record_from_the_future_is_not_believed(world):
    record, first = await world.key(), world.gate(Clocks(wall=NOW_MS + 60_000))
    await first.lookup.fetch(record.key_id)
    await first.settle()
    second = world.gate(Clocks(wall=NOW_MS))
    await second.lookup.fetch(record.key_id)
    assert second.store.asked == [record.key_id]


@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\x01\x02k1" + bytes(60), b"changed never", b"changed 99999999999999999999"])
async def test_garbage_in_redis_costs_one_look_at_postgresql(world, garbage):
    record, gate = await world.key(), world.gate()
    await world.redis.set(record_key(record.key_id), garbage)
    assert await gate.lookup.fetch(record.key_id) == record


async def test_a_record_of_a_vault_that_others_do_not_have_refuses_nobody(world):
    record, first = await world.key(), world.gate()
    await world.redis.set(record_key(record.key_id), seal_record(DatedRecord(record, NOW_MS, 60_000), a_vault()))
    assert await first.lookup.fetch(record.key_id) == record


# -- one bad record ----------------------------------------------------------------------------------------------------


async def test_a_row_that_cannot_be_read_refuses_its_own_key_only(world):
    broken, whole = await add_key(world.admin, a_vault()), await world.key()  # sealed by a vault that this gate does not have
    gate = world.gate()
    assert await gate.lookup.fetch(broken.key_id) is None
    assert gate.peek(broken.key_id) is ABSENT
    assert await gate.lookup.fetch(whole.key_id) == whole


async def test_a_record_that_cannot_be_prepared_refuses_its_own_key_only(world):
    unusable, usable = await world.key(label="bad"), await world.key()

    def prepare(record):
        if record.label == "bad":
            raise ValueError("not a public key")
        return record

    gate = world.gate(prepare=prepare)
    assert await gate.lookup.fetch(unusable.key_id) is None
    assert await gate.lookup.fetch(usable.key_id) == usable


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_with_redis_away_keys_come_from_postgresql(own_world, own_redis, how):
    record, gate = await own_world.key(), own_world.gate()
    await own_world.redis.ping()
    await asyncio.to_thread(getattr(own_redis, how))
    assert await gate.lookup.fetch(record.key_id) == record
    assert await gate.lookup.fetch(new_key_id()) is None  # Redis rests: not asked again at once
    assert gate.metrics.key_fetches["redis", "unavailable"] == 1


@pytest.mark.parametrize("how", ["stop", "freeze"])
async def test_with_postgresql_away_keys_in_memory_or_redis_go_on_and_unknown_ones_are_unavailable(own_world, own_postgres, how):
    mine, others, clocks = await own_world.key(), await own_world.key(), Clocks()
    gate, other = own_world.gate(clocks), own_world.gate(clocks)
    await gate.lookup.fetch(mine.key_id)
    await other.lookup.fetch(others.key_id)
    await other.settle()
    await gate.settle()
    await asyncio.to_thread(getattr(own_postgres, how))
    clocks.advance(TTL)
    assert await gate.lookup.fetch(mine.key_id) == mine
    assert gate.peek(mine.key_id) == mine
    clocks.advance(1_000)
    assert await gate.lookup.fetch(others.key_id) == others
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(new_key_id())
    clocks.advance(10 * SETTINGS.redis_ttl_ms)  # longer than any seal: memory goes on, since Redis tells of changes
    assert await gate.lookup.fetch(mine.key_id) == mine
    if how == "freeze":
        own_postgres.thaw()


async def test_with_postgresql_away_a_key_that_changed_does_not_go_on(own_world):
    noticed, unnoticed, gate = await own_world.key(), await own_world.key(), own_world.gate()
    for record in (noticed, unnoticed):
        await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.clocks.advance(TTL)
    await asyncio.to_thread(own_world.database.stop)
    await publish(own_world.redis, [noticed.key_id, unnoticed.key_id], now_ms=gate.clocks.wall)
    gate.lookup.invalidate(noticed.key_id)
    for record in (noticed, unnoticed):
        with pytest.raises(KeyStoreUnavailable):
            await gate.lookup.fetch(record.key_id)


async def test_with_postgresql_away_a_key_read_after_its_change_goes_on(own_world):
    record, gate = await own_world.key(), own_world.gate()
    await publish(own_world.redis, [record.key_id], now_ms=gate.clocks.wall)
    gate.clocks.advance(10_000)
    await gate.lookup.fetch(record.key_id)
    await asyncio.to_thread(own_world.database.stop)
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) == record


async def test_with_both_away_a_key_in_memory_goes_on_until_the_limit(own_world, own_redis):
    record, gate = await own_world.key(), own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    await asyncio.to_thread(own_redis.stop)
    gate.channels.redis_up_ms = gate.channels.postgres_up_ms = None
    gate.clocks.advance(SETTINGS.stale_limit_ms - 1)
    assert await gate.lookup.fetch(record.key_id) == record
    gate.clocks.advance(1_000)
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)


async def test_a_key_in_use_does_not_wait_during_an_outage_and_is_fresh_again_after_it(own_world, own_redis):
    record, gate = await own_world.key(), own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    await asyncio.to_thread(own_redis.stop)
    for _ in range(40):
        gate.clocks.advance(400)
        assert gate.peek(record.key_id) == record
        await gate.settle()
    await asyncio.to_thread(own_world.database.start)
    await asyncio.to_thread(own_redis.start)
    before = len(gate.store.asked)
    for _ in range(4):
        gate.clocks.advance(400)
        assert gate.peek(record.key_id) == record
        await gate.settle()
    assert len(gate.store.asked) > before
    assert gate.lookup._present[record.key_id].read_ms >= gate.clocks.monotonic - 1_600


async def test_a_look_up_that_fails_after_it_was_overtaken_by_a_change_does_not_remember_the_past(world):
    record, gate = await world.key(), world.gate()
    find, asked = gate.store.inner.find, 0

    async def overtaken_then_broken(key_id, *, known):
        nonlocal asked
        asked += 1
        if asked == 2:
            raise ZeroDivisionError
        found = await find(key_id, known=known)
        gate.lookup.invalidate(key_id)
        return found

    gate.store.inner.find = overtaken_then_broken
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)
    assert gate.lookup.sizes() == {"present": 0, "absent": 0, "flights": 0}


async def test_during_an_outage_keys_in_use_go_on_together_and_not_one_by_one(own_world):
    records, gate = [await own_world.key() for _ in range(20)], own_world.gate()
    for record in records:
        await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    reads = sum(count for (store, _), count in gate.metrics.key_fetches.items() if store == "redis")
    for _ in range(10):
        gate.clocks.advance(2_900)
        assert [gate.peek(record.key_id) or await gate.lookup.fetch(record.key_id) for record in records] == records
        await gate.settle()
    assert sum(count for (store, _), count in gate.metrics.key_fetches.items() if store == "redis") == reads


async def test_a_key_goes_on_not_a_moment_longer_than_its_limit(own_world, own_redis):
    record, gate = await own_world.key(), own_world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    await asyncio.to_thread(own_world.database.stop)
    await asyncio.to_thread(own_redis.stop)
    gate.channels.redis_up_ms = gate.channels.postgres_up_ms = None
    gate.clocks.advance(SETTINGS.stale_limit_ms - 1)
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.peek(record.key_id) == record
    gate.clocks.advance(1)
    assert gate.peek(record.key_id) is None
    with pytest.raises(KeyStoreUnavailable):
        await gate.lookup.fetch(record.key_id)


async def test_an_outage_costs_one_wait_and_not_one_per_key(own_world):
    gate = own_world.gate()
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
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.clocks.wall += step
    assert gate.peek(record.key_id) == record
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) == record
    await world.delete(record)
    gate.clocks.advance(TTL)
    assert await gate.lookup.fetch(record.key_id) is None


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_made_up_ids_neither_push_out_keys_nor_grow_without_bound(world):
    records = [await world.key() for _ in range(3)]
    gate = world.gate(settings=Cache(local_entries=5))
    for record in records:
        await gate.lookup.fetch(record.key_id)
    for _ in range(50):
        await gate.lookup.fetch(new_key_id())
    assert all(gate.peek(record.key_id) == record for record in records)
    assert gate.lookup.sizes() == {"present": 3, "absent": 5, "flights": 0}
    await gate.settle()
    assert len(await world.redis.keys("*")) == 3


async def test_the_key_that_was_loaded_longest_ago_goes_first(world):
    records = [await world.key() for _ in range(4)]
    gate = world.gate(settings=Cache(local_entries=3))
    for record in records[:3]:
        await gate.lookup.fetch(record.key_id)
    gate.clocks.advance(TTL)
    await gate.lookup.fetch(records[0].key_id)  # in use
    await gate.lookup.fetch(records[3].key_id)
    assert gate.peek(records[0].key_id) is not None
    assert gate.peek(records[3].key_id) is not None
    assert gate.lookup.sizes()["present"] == 3
    assert records[1].key_id not in gate.lookup._present


async def test_new_settings_hold_for_what_is_looked_up_from_now_on(world):
    records = [await world.key() for _ in range(3)]
    gate = world.gate()
    for record in records:
        await gate.lookup.fetch(record.key_id)
    gate.lookup.configure(Cache(local_ttl_ms=10, stale_limit_ms=10, local_entries=1))
    assert gate.lookup.sizes()["present"] == 1
    assert gate.peek(records[2].key_id) == records[2]
    await gate.lookup.fetch(records[0].key_id)
    gate.clocks.advance(10)
    assert gate.peek(records[0].key_id) is None


async def test_the_memory_of_changed_keys_is_bounded_and_errs_towards_postgresql(world, monkeypatch):
    monkeypatch.setattr("gateway.keys.trust._MOST_CHANGED", 10)
    record, gate = await world.key(), world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    gate.lookup.invalidate(record.key_id)
    for _ in range(20):
        gate.lookup.invalidate(new_key_id())
    await gate.lookup.fetch(record.key_id)
    assert gate.store.asked == [record.key_id] * 2
    assert len(gate.lookup._trust._changed) <= 10


async def test_a_changed_key_is_shared_through_redis_again_when_no_old_record_can_be_left(world):
    record, gate = await world.key(), world.gate()
    gate.lookup.invalidate(record.key_id)
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    assert await world.redis.keys("*") == []
    gate.clocks.advance(TOMBSTONE_TTL_MS)
    gate.lookup.invalidate(new_key_id())
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    assert await world.redis.keys("*") == [record_key(record.key_id).encode()]


async def test_a_tombstone_outlives_every_record_that_was_read_before_it(world):
    await publish(world.redis, [key_id := new_key_id()], now_ms=NOW_MS)
    Cache(redis_ttl_ms=MAX_RECORD_TTL_MS)
    with pytest.raises(ValidationError):
        Cache(redis_ttl_ms=MAX_RECORD_TTL_MS + 1)
    assert await world.redis.pttl(record_key(key_id)) > MAX_RECORD_TTL_MS


async def test_a_thousand_cancelled_look_ups_give_no_reply_for_another_key(own_world, own_redis):
    """Commands are given up while their replies are under way; every later answer must be the asked key's own."""
    records = {(record := await own_world.key(label=f"bot {number}")).key_id: record for number in range(20)}
    gate = own_world.gate()
    for key_id in records:
        await gate.lookup.fetch(key_id)
    await gate.settle()
    reader, cancelled = shared.SharedRecords(own_world.redis, own_world.vault), 0
    for turn in range(50):
        own_redis.freeze()
        reads = [spawn(reader.read(key_id), name="read") for key_id in records]
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
    gate, records = world.gate(), [await world.key() for _ in range(10)]
    for number in range(200):
        waiting = spawn(gate.lookup.fetch(records[number % 10].key_id), name="waiting")
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        gate.clocks.advance(TTL)
    await gate.settle()
    assert gate.lookup.sizes()["flights"] == 0
    for record in records:
        assert await gate.lookup.fetch(record.key_id) == record


async def test_closing_gives_up_look_ups_under_way(world):
    gate = world.gate()
    gate.store.hold()
    waiting = spawn(gate.lookup.fetch(new_key_id()), name="waiting")
    await gate.store.holding.wait()
    await gate.lookup.aclose()
    assert gate.lookup.sizes()["flights"] == 0
    with pytest.raises(KeyStoreUnavailable):
        await waiting


async def test_a_pool_that_cannot_be_used_makes_keys_unavailable(world):
    gate = world.gate()
    async with await postgres.create_pool("postgresql://u@h/d?sslmode=nonsense") as pool:
        gate.store.inner._pool = pool
        with pytest.raises(KeyStoreUnavailable):
            await gate.lookup.fetch(new_key_id())
