"""Two channels from a change to every gate, on real servers: each alone is enough, and a gap is never silent."""

import asyncio

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import Cache
from gateway.errors import ConfigError, StoreUnavailable
from gateway.keys import invalidation, postgres
from gateway.keys.ids import is_key_id, new_key_id
from gateway.keys.invalidation import REDIS_CHANNEL, InvalidationListener, parse_message, publish
from gateway.keys.lookup import KeyLookup
from gateway.keys.redis_client import connect
from gateway.keys.shared import SharedRecords
from gateway.keys.trust import Trust
from gateway.telemetry.metrics import Metrics
from tests.support.keys import NOW_MS, add_key

SECONDS = 15


class Listening:
    """A listener, and what it told."""

    def __init__(self, world, gate=None, *, up: bool = True) -> None:
        self._await_up = up
        self.trust = Trust() if gate is None else gate.trust
        self.trust.redis_up_ms = None
        self.metrics = Metrics()
        self.memory = (
            KeyLookup(None, SharedRecords(world.redis, world.vault), self.trust, Cache(), prepare=None) if gate is None else gate.lookup
        )
        self.listener = InvalidationListener(world.redis, world.database.gateway_dsn, self.trust, self.memory, metrics=self.metrics)
        self.listener.on_invalidate.append(self._note)
        self.told: list[str | None] = []
        self._more = asyncio.Event()

    def _note(self, key_id):
        self.told.append(key_id)
        self._more.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(SECONDS):
            while not condition():
                self._more.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._more.wait()
                except TimeoutError:
                    continue

    def up(self) -> bool:
        return not self.listener.down()

    async def __aenter__(self):
        self.listener.start()
        if self._await_up:
            await self.until(self.up)
            self.told.clear()
        return self

    async def __aexit__(self, *_):
        await self.listener.aclose()


@pytest.fixture
async def listening(world):
    async with Listening(world) as listening:
        yield listening


@pytest.fixture
async def own_listening(own_world):
    async with Listening(own_world) as listening:
        yield listening


@pytest.fixture
async def owner(world):
    connection = await postgres.connect(world.database.owner_dsn)
    yield connection
    await connection.close()


async def test_a_message_of_redis_alone_is_enough(world, listening):
    await publish(world.redis, [key_id := new_key_id()], now_ms=NOW_MS)
    await listening.until(lambda: listening.told == [key_id])
    assert listening.metrics.invalidations == {"redis": 1}


async def test_with_every_notice_lost_the_feed_tells_within_its_period(world, monkeypatch):
    """No LISTEN, no message: the feed is read all the same."""

    async def swallowed(self, channel, callback):
        pass

    monkeypatch.setattr(asyncpg.Connection, "add_listener", swallowed)
    async with Listening(world) as listening:
        record = await world.key()
        await listening.until(lambda: record.key_id in listening.told)
        assert listening.metrics.invalidations == {}
        reads = listening.metrics.feed_reads
        await listening.until(lambda: listening.metrics.feed_reads > reads + 1)
        assert listening.told == [record.key_id]


async def test_a_notification_of_postgresql_alone_is_enough(world, listening, monkeypatch):
    monkeypatch.setattr(invalidation, "READ_MS", 3_600_000)
    listening.memory.configure(Cache(local_ttl_ms=14_400_000, stale_limit_ms=14_400_000))
    record = await world.key()
    await world.delete(record, tell=False)
    await listening.until(lambda: listening.told.count(record.key_id) >= 2)  # created, deleted


async def test_a_deletion_with_redis_stopped_reaches_the_gate(own_world, own_redis, own_listening):
    record = await own_world.key()
    await asyncio.to_thread(own_redis.stop)
    await own_listening.until(lambda: own_listening.trust.redis_up_ms is None)
    own_listening.told.clear()
    await own_world.delete(record)
    with pytest.raises(StoreUnavailable):
        await publish(own_world.redis, [record.key_id], now_ms=NOW_MS)
    await own_listening.until(lambda: record.key_id in own_listening.told)


async def test_a_deletion_reaches_the_gate_while_its_notifications_are_lost(own_world, own_listening, monkeypatch):
    """The gate's own connection to PostgreSQL is gone; the admin service still commits and publishes."""
    record = await own_world.key()
    await own_listening.until(lambda: record.key_id in own_listening.told)
    monkeypatch.setattr(own_listening.listener, "_dsn", "postgresql://u@/d?host=/nowhere")  # it cannot come back
    owner = await postgres.connect(own_world.database.owner_dsn)
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%key_feed_marks%' AND pid <> pg_backend_pid()"
    )
    await owner.close()
    await own_listening.until(lambda: "postgres" in own_listening.listener.down())
    own_listening.told.clear()
    await own_world.delete(record, tell=True)
    await own_listening.until(lambda: own_listening.told == [record.key_id])


@pytest.mark.parametrize("how", ["restart", "freeze"])
async def test_a_gap_of_redis_is_noticed(own_redis, own_listening, how):
    up_ms = own_listening.trust.redis_up_ms
    await asyncio.to_thread(own_redis.freeze if how == "freeze" else own_redis.kill)
    await own_listening.until(lambda: own_listening.trust.redis_up_ms is None)
    assert own_listening.listener.down() == ["redis"]
    await asyncio.to_thread(own_redis.thaw if how == "freeze" else own_redis.start)
    await own_listening.until(own_listening.up)
    assert own_listening.trust.redis_up_ms > up_ms
    assert own_listening.told == []  # the feed has no gap


@pytest.mark.parametrize("how", ["restart", "freeze"])
async def test_after_an_outage_of_postgresql_the_feed_goes_on_where_it_was(own_world, own_postgres, own_listening, how):
    await asyncio.to_thread(own_postgres.freeze if how == "freeze" else own_postgres.kill)
    await own_listening.until(lambda: "postgres" in own_listening.listener.down())
    assert own_listening.metrics.listener_up["postgres"] == 0
    await asyncio.to_thread(own_postgres.thaw if how == "freeze" else own_postgres.start)
    await own_listening.until(own_listening.up)
    assert own_listening.told == ([None] if how == "restart" else [])
    own_listening.told.clear()
    admin = await postgres.connect(own_world.database.admin_dsn)
    record = await add_key(admin, own_world.vault)
    await own_listening.until(lambda: record.key_id in own_listening.told)
    await admin.close()


async def test_a_listener_starts_while_both_are_down_and_comes_up_with_them(own_world, own_redis, own_postgres):
    await asyncio.to_thread(own_redis.stop)
    await asyncio.to_thread(own_postgres.stop)
    async with Listening(own_world, up=False) as listening:
        await asyncio.to_thread(own_redis.start)
        await asyncio.to_thread(own_postgres.start)
        await listening.until(listening.up)
        assert listening.told == [None]


async def test_emptying_the_table_is_told_as_everything(world, listening, owner):
    await owner.execute("TRUNCATE api_keys CASCADE")
    await listening.until(lambda: set(listening.told) == {None})  # by the feed, and as its file is another


async def test_what_is_no_key_id_is_told_to_nobody(world, listening, owner):
    record = await world.key()
    await world.redis.publish(REDIS_CHANNEL, b"\xff\x00 nonsense")
    await world.redis.publish(REDIS_CHANNEL, f"{NOW_MS} nonsense {record.key_id}")
    await owner.execute("SELECT pg_notify('gerbang_keys', 'nonsense')")
    await world.delete(record, tell=False)
    await listening.until(lambda: listening.told.count(record.key_id) == 3)
    assert set(listening.told) == {record.key_id}


async def test_the_delay_of_a_message_is_measured(world, listening):
    await publish(world.redis, [new_key_id()], now_ms=NOW_MS)
    await listening.until(lambda: listening.told != [])
    assert sum(listening.metrics.revocation_delay["redis"].counts) == 1


async def test_closing_leaves_no_connection_behind(world, owner):
    async with Listening(world):
        pass
    left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%key_feed_marks%' AND pid <> pg_backend_pid()"
    async with asyncio.timeout(SECONDS):
        while await owner.fetchval(left):
            await owner.execute("SELECT pg_sleep(0.01)")
    assert await world.redis.pubsub_numsub(REDIS_CHANNEL) == [(REDIS_CHANNEL.encode(), 0)]


async def test_a_malformed_dsn_is_told_at_the_start(world):
    with pytest.raises(ConfigError):
        InvalidationListener(world.redis, "nonsense", Trust(), None).start()


async def test_publishing_to_a_redis_that_is_away_raises_and_says_so(tmp_path):
    redis = connect(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(StoreUnavailable, match="Redis did not answer"):
        await publish(redis, [new_key_id()], now_ms=NOW_MS)
    await redis.aclose()


async def test_a_deletion_and_a_creation_through_both_channels_reach_a_look_up(world):
    record, gate, other_id = await world.key(), await world.gate(), new_key_id()
    async with Listening(world, gate) as listening:
        await gate.lookup.fetch(record.key_id)
        await gate.lookup.fetch(other_id)
        await world.delete(record, tell=True)
        other = await world.key(key_id=other_id)
        await listening.until(lambda: {record.key_id, other_id} <= set(listening.told))
        assert await gate.lookup.fetch(record.key_id) is None
        assert await gate.lookup.fetch(other_id) == other


async def test_when_changes_were_missed_it_is_told_as_every_key(world, listening):
    listening.trust.read = listening.trust.read._replace(server=0)
    await listening.until(lambda: listening.told == [None])


async def test_ten_thousand_changes_at_once_let_others_have_their_turn(world, owner):
    """What is acted upon between two turns of the event loop is a slice."""
    await owner.execute("INSERT INTO accounts (id) VALUES ('alice')")
    await owner.execute("""
        INSERT INTO api_keys (id, account_id, label, scopes, algorithm, public_key, created_at)
        SELECT 'gbk_' || lpad(n::text, 28, '0'), 'alice', 'bot', '{read}', 'ed25519', 'x', now() FROM generate_series(1, 10000) AS n
    """)
    async with Listening(world) as listening:
        listening.told.clear()
        slices, before = [], 0
        await owner.execute("UPDATE api_keys SET revoked_at = now(), revoked_reason = 'leaked'")
        async with asyncio.timeout(SECONDS):
            while len(listening.told) < 10_000:
                await asyncio.sleep(0)
                slices.append(len(listening.told) - before)
                before = len(listening.told)
    assert max(slices) <= 1_000
    assert len(set(listening.told)) == 10_000


async def test_a_defect_on_the_way_does_not_end_the_listening(world, monkeypatch):
    hold, failures = InvalidationListener._follow_messages, 0  # noqa: SLF001  # what a defect there would break off

    async def fails_first(self, up):
        nonlocal failures
        failures += 1
        if failures == 1:
            raise KeyError("a defect")
        await hold(self, up)

    monkeypatch.setattr(InvalidationListener, "_follow_messages", fails_first)
    async with Listening(world):
        assert failures == 2


async def test_a_subscriber_that_raises_keeps_no_change_from_memory_and_is_told_of_every_key_later(world):
    """By the feed, the keys of later pages stayed in memory until the next read; by a message, the later keys of that message."""
    gate, told, failures = await world.gate(), [], iter([KeyError("a defect")])
    first, second = [await world.key() for _ in range(2)]
    await gate.read()

    def fails_once(key_id):
        told.append(key_id)
        for failure in failures:
            raise failure

    gate.listener.on_invalidate.append(fails_once)
    for tell in (gate.read, lambda: asyncio.sleep(0, gate.announce(first.key_id, second.key_id))):
        told.clear()
        failures = iter([KeyError("a defect")])
        for record in (first, second):
            await gate.lookup.fetch(record.key_id)
        await world.admin.execute("UPDATE accounts SET frozen = NOT frozen")
        await tell()
        assert [gate.peek(record.key_id) for record in (first, second)] == [None, None]
        await gate.read()
        assert {first.key_id, second.key_id, None} == set(told)
        assert gate.metrics.key_rereads == 0  # memory is in no doubt


@given(st.binary())
def test_any_bytes_are_a_message_of_key_ids_only(data):
    published_ms, key_ids = parse_message(data)
    assert published_ms >= 0
    assert all(map(is_key_id, key_ids))


@given(st.integers(0, 10**15 - 1), st.lists(st.builds(new_key_id), max_size=5))
def test_a_message_is_read_as_it_was_written(published_ms, key_ids):
    assert parse_message(" ".join((str(published_ms), *key_ids)).encode()) == (published_ms, key_ids)
