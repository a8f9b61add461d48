"""The feed of changes, on a real server: nothing that was committed is skipped, however late, and every gap is noticed."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from structlog.testing import capture_logs

from admin import feed
from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import postgres
from gateway.keys import sql as sql_of_keys
from gateway.keys.cache import ABSENT
from gateway.keys.ids import new_key_id
from gateway.keys.invalidation import read_feed
from gateway.keys.shared import record_key
from gateway.keys.trust import EVERY_KEY, KnownChanges, Now
from gateway.runtime.tasks import spawn
from tests.gateway.keys.conftest import SETTINGS
from tests.support.inside import is_in_doubt
from tests.support.keys import add_account
from tests.support.stack import fresh_database, sql

NOW = Now(0, 0)


@pytest.fixture
async def reader(world):
    """Reads the feed, each time from where it was; by the role of the gateway."""
    connection = await postgres.connect(world.database.gateway_dsn)
    before = await read_feed(connection, None, NOW)

    async def read() -> list[str]:
        nonlocal before
        before = await read_feed(connection, before, NOW)
        return sorted(key_id for page in before.pages for key_id, _ in page)

    yield read
    await connection.close()


@pytest.fixture
async def stores(world):
    pool = await postgres.create_pool(world.database.admin_dsn)
    yield Stores(pool, world.redis)
    pool.terminate()


@asynccontextmanager
async def beginning(dsn: str):
    """A transaction that is under way, of the admin's role."""
    connection = await postgres.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection, transaction
    finally:
        await connection.close()


async def change(connection, key_id: str) -> None:
    assert await connection.execute("DELETE FROM api_keys WHERE id = $1", key_id) == "DELETE 1"


async def test_everything_that_changes_what_a_gate_believes_is_told_once(world, reader):
    record, other = await world.key(), await world.key(account_id="bob")
    assert await reader() == sorted([record.key_id, other.key_id])
    for statement in (
        "UPDATE accounts SET frozen = true WHERE id = 'alice'",
        "UPDATE accounts SET kyc = 'revoked' WHERE id = 'alice'",
        "UPDATE accounts SET tier = 'pro' WHERE id = 'alice'",
        "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'x', sealed_secret = NULL WHERE account_id = 'alice'",
        "DELETE FROM api_keys WHERE account_id = 'alice'",
    ):
        await world.admin.execute(statement)
        assert await reader() == [record.key_id]
        assert await reader() == []


async def test_many_changes_come_in_pages(world):
    """Each is handled in a turn of the loop of its own: :meth:`InvalidationListener._read`."""
    owner = await postgres.connect(world.database.owner_dsn)
    await owner.execute("INSERT INTO key_changes (xid, key_id) SELECT pg_current_xact_id(), n::text FROM generate_series(1, 1200) AS n")
    pages = list(map(list, (await read_feed(owner, None, NOW)).pages))
    await owner.close()
    assert [len(page) for page in pages] == [500, 500, 200]
    assert {key_id for page in pages for key_id, _ in page} == {str(number) for number in range(1, 1_201)}


async def test_of_too_many_changes_none_is_read_and_nothing_from_before_is_believed(world, monkeypatch):
    """A start with a million retained changes took as many in memory at once, and longer than a read may take."""
    monkeypatch.setattr(sql_of_keys, "READ_FEED", sql_of_keys.READ_FEED.replace("LIMIT 200000", "LIMIT 1000"))
    monkeypatch.setattr(sql_of_keys, "MOST_CHANGES", 1_000)
    record, gate = await world.key(), await world.gate()
    await gate.lookup.fetch(record.key_id)
    await gate.settle()
    owner = await postgres.connect(world.database.owner_dsn)
    for changes, is_held in ((999, True), (1_001, False)):
        await owner.execute(
            f"INSERT INTO key_changes (xid, key_id) SELECT pg_current_xact_id(), n::text FROM generate_series(1, {changes}) AS n"
        )
        await gate.read()
        assert (gate.peek(record.key_id) is not None) is is_held
    await owner.close()
    assert await gate.lookup.fetch(record.key_id) == record
    assert gate.store.asked == [record.key_id] * 2, "the record in Redis may be from before one of those changes"
    cold = await world.gate()
    assert (await read_feed(cold.connection, None, NOW)).pages is None
    await gate.settle()
    assert await cold.lookup.fetch(record.key_id) == record
    await gate.read()
    assert gate.metrics.key_rereads == 0


async def test_a_read_that_a_defect_interrupts_loses_no_change(world, monkeypatch):
    first, second, gate = await world.key(), await world.key(), await world.gate()
    for record in (first, second):
        await gate.lookup.fetch(record.key_id)
        await world.delete(record)
    add = KnownChanges.add

    def fails(*args):
        for number, change in enumerate(add(*args)):
            if number == 1:
                raise RuntimeError
            yield change

    with monkeypatch.context() as patch:
        patch.setattr(KnownChanges, "add", fails)
        with pytest.raises(RuntimeError):
            await gate.read()
    assert (gate.peek(first.key_id), gate.peek(second.key_id)) == (None, second)
    await gate.read()
    for record in (first, second):
        assert gate.peek(record.key_id) is None
        assert await gate.lookup.fetch(record.key_id) is None
        assert gate.peek(record.key_id) is ABSENT
    assert gate.metrics.key_rereads == 0


async def test_what_no_gate_has_to_hear_of_is_not_told(world, reader):
    await world.key()
    await reader()
    await world.admin.execute("UPDATE accounts SET email = 'a@example.com', frozen = false, tier = NULL")
    await world.admin.execute("UPDATE api_keys SET sealed_secret = sealed_secret || '\\x00'")
    assert await reader() == []


async def test_a_change_that_is_rolled_back_is_not_told(world, reader):
    record = await world.key()
    await reader()
    async with beginning(world.database.admin_dsn) as (connection, transaction):
        await change(connection, record.key_id)
        await transaction.rollback()
    assert await reader() == []


async def test_a_transaction_that_commits_late_is_not_skipped(world, reader):
    """The first to write is the last to commit: its number is the smallest, and is read after greater ones."""
    ids = [(await world.key()).key_id for _ in range(3)]
    await reader()
    async with (
        beginning(world.database.admin_dsn) as (late, commits_late),
        beginning(world.database.admin_dsn) as (middle, commits_middle),
    ):
        await change(late, ids[0])
        await change(middle, ids[1])
        await change(world.admin, ids[2])
        assert await reader() == [ids[2]]
        assert await reader() == []
        await commits_middle.commit()
        assert await reader() == [ids[1]]
        await commits_late.commit()
        assert await reader() == [ids[0]]
    assert await reader() == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_in_whatever_order_transactions_commit_each_is_told_once(world, reader, order):
    ids = [(await world.key()).key_id for _ in range(3)]
    await reader()
    told = []
    async with (
        beginning(world.database.admin_dsn) as one,
        beginning(world.database.admin_dsn) as two,
        beginning(world.database.admin_dsn) as three,
    ):
        under_way = [one, two, three]
        for (connection, _), key_id in zip(under_way, ids, strict=True):
            await change(connection, key_id)
            told += await reader()
        for number in order:
            await under_way[number][1].commit()
            told += await reader()
    assert told == [ids[number] for number in order]


async def test_a_change_within_a_savepoint_is_told_with_its_transaction(world, reader):
    record = await world.key()
    await reader()
    async with beginning(world.database.admin_dsn) as (connection, transaction):
        async with connection.transaction():
            await change(connection, record.key_id)
        assert await reader() == []
        await transaction.commit()
    assert await reader() == [record.key_id]


async def test_many_changes_of_one_transaction_are_one_notification(world, reader):
    records = [await world.key() for _ in range(50)]
    await reader()
    heard, come = [], asyncio.Event()
    listening = await postgres.connect(world.database.gateway_dsn)
    await listening.add_listener("gerbang_keys", lambda *notification: (heard.append(notification[-1]), come.set()))
    await world.admin.execute("DELETE FROM api_keys")
    async with asyncio.timeout(15):
        await come.wait()
    await listening.execute("SELECT 1")
    assert heard == ["*"]
    assert await reader() == sorted(record.key_id for record in records)
    await listening.close()


async def test_emptying_the_table_is_told_as_every_key(world, reader):
    await reader()
    sql(world.database.server, "TRUNCATE api_keys CASCADE", world.database.name)
    assert await reader() == [EVERY_KEY]


async def test_a_session_without_triggers_is_heard_all_the_same(world, reader):
    record = await world.key()
    await reader()
    sql(world.database.server, "SET session_replication_role = replica; DELETE FROM api_keys", world.database.name)
    assert await reader() == [record.key_id]


@pytest.mark.parametrize(
    "statement", ["DELETE FROM key_changes", "INSERT INTO key_changes (key_id) VALUES ('*')", "DELETE FROM key_feed_marks"]
)
async def test_the_gateways_role_may_only_read_the_feed(world, statement):
    gateway = await postgres.connect(world.database.gateway_dsn)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await gateway.execute(statement)
    await gateway.close()


async def test_the_admins_role_cannot_write_changes_but_through_the_tables(world):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.admin.execute("INSERT INTO key_changes (key_id) VALUES ('*')")


# -- pruning -----------------------------------------------------------------------------------------------------------


async def count(world, table: str = "key_changes") -> int:
    return await world.admin.fetchval(f"SELECT count(*) FROM {table}")


async def prune_all(world, stores) -> None:
    """What is under way in any database of the server, such as an ANALYZE of its own, holds pruning back."""
    async with asyncio.timeout(30):
        while await count(world):
            await feed.mark_and_prune(stores, marked_s=0, kept_s=0)


async def test_what_is_old_goes_and_the_newest_mark_stays(world, stores):
    await world.key()
    await feed.mark_and_prune(stores, marked_s=0, kept_s=900)
    assert await count(world) == 1
    await world.key()
    await prune_all(world, stores)
    assert await count(world, "key_feed_marks") >= 1


async def test_records_of_keys_that_have_changed_of_late_are_removed(world, stores):
    """Also those that a failover of Redis brought back."""
    long_ago, changed, unchanged = [await world.key() for _ in range(3)]
    names = [record_key(record.key_id) for record in (long_ago, changed, unchanged)]
    await world.admin.execute("DELETE FROM key_changes WHERE key_id = $1", unchanged.key_id)
    await world.admin.execute("DELETE FROM key_feed_marks")
    await world.admin.execute(
        "INSERT INTO key_feed_marks (horizon, made_at) VALUES ($1, now() - make_interval(secs => $2))",
        await world.admin.fetchval("SELECT xid FROM key_changes WHERE key_id = $1", changed.key_id),
        feed.OUTDATED_SECONDS + 1,
    )
    for _ in range(2):
        for name in names:
            await world.redis.set(name, b"a record")
        await feed.remove_outdated(stores)
        assert [await world.redis.exists(name) for name in names] == [1, 0, 1]


async def test_without_an_old_mark_every_change_is_of_late(world, stores):
    record = await world.key()
    await world.redis.set(record_key(record.key_id), b"a record")
    await feed.remove_outdated(stores)
    assert not await world.redis.exists(record_key(record.key_id))


async def test_what_could_not_be_removed_is_removed_when_redis_is_back(own_world, own_redis, monkeypatch):
    monkeypatch.setattr(feed, "MARK_SECONDS", 0.0)
    record, pool = await own_world.key(), await postgres.create_pool(own_world.database.admin_dsn)
    await own_world.redis.set(record_key(record.key_id), b"a record")
    stores = Stores(pool, own_world.redis)
    await asyncio.to_thread(own_redis.freeze)
    with capture_logs() as log:
        await feed.maintain(stores)
    assert [entry["event"] for entry in log if entry["log_level"] == "warning"] == ["key_feed_not_tended"]
    await asyncio.to_thread(own_redis.thaw)
    await feed.maintain(stores)
    assert not await own_world.redis.exists(record_key(record.key_id))
    pool.terminate()


async def test_several_services_make_one_mark(world, stores):
    before = await count(world, "key_feed_marks")
    await feed.mark_and_prune(stores, marked_s=0)
    for _ in range(5):
        await feed.mark_and_prune(stores, marked_s=60)
    assert await count(world, "key_feed_marks") == before + 1


async def test_a_reader_that_reads_in_time_has_no_gap_however_long_transactions_take(world, stores):
    gate, record = await world.gate(), await world.key()
    async with beginning(world.database.admin_dsn) as (connection, transaction):
        await add_account(connection, "long")  # holds the horizon back
        await world.delete(record)
        await gate.read()
        for _ in range(3):
            await feed.mark_and_prune(stores, marked_s=0, kept_s=0)
        assert await count(world) == 1  # the deletion: a snapshot that was taken now need not see it
        await gate.read()
        await transaction.commit()
    await gate.read()
    async with asyncio.timeout(30):
        while await count(world):
            await feed.mark_and_prune(stores, marked_s=0, kept_s=0)
            await gate.read()
    assert gate.metrics.key_rereads == 0


async def gap_of(gate, world, record) -> bool:
    """Whether the gate puts what it remembers in doubt at its next read."""
    await gate.read(anew=True)
    return is_in_doubt(gate.lookup, record.key_id)


async def test_a_reader_that_comes_after_its_changes_were_pruned_notices(world, stores):
    record = await world.key()
    gate = await world.gate()
    await gate.lookup.fetch(record.key_id)
    await world.key()
    await prune_all(world, stores)
    assert await gap_of(gate, world, record)
    assert not await gap_of(gate, world, record) or gate.peek(record.key_id) == record


@pytest.mark.parametrize(("horizon", "pruned"), [("'1000000000000'", False), (None, True)])
async def test_a_database_with_the_marks_of_another_has_pruned_nothing_and_one_without_marks_everything(world, horizon, pruned):
    """The former after a dump of another server, until an admin service runs: each transaction was a gap."""
    record = await world.key()
    for table in ("key_feed_marks", "key_changes"):
        await world.admin.execute(f"DELETE FROM {table}")
    if horizon is not None:
        await world.admin.execute(f"INSERT INTO key_feed_marks (horizon) VALUES ({horizon})")
    gate = await world.gate()
    await gate.lookup.fetch(record.key_id)
    await add_account(world.admin, "another")
    assert await gap_of(gate, world, record) is pruned


async def test_after_the_first_read_every_key_is_told(world):
    """A tunnel may have been opened by a record of Redis that neither its key's changes nor its server outlived."""
    gate, told = await world.gate(feed=False), []
    gate.listener.on_invalidate.append(told.append)
    for _ in range(2):
        await gate.read()
        assert told == [None]


async def test_after_a_gap_every_key_is_told_again_once_none_is_in_doubt(world, stores):
    """Tunnels look their keys up when told. In doubt, a deleted one was found; its tunnels, which ask nothing by themselves, went on."""
    record, gate, found = await world.key(), await world.gate(), []

    async def check() -> None:
        found.append(await gate.lookup.fetch(record.key_id))

    gate.listener.on_invalidate.append(lambda key_id: key_id is None and spawn(check(), name="key-lookup"))
    await gate.lookup.fetch(record.key_id)
    await world.delete(record)
    await prune_all(world, stores)
    await gate.read(anew=True)
    assert found == [record]
    gate.clocks.advance(SETTINGS.local_ttl_ms - 1)
    await gate.read()
    assert found == [record]
    for _ in range(2):
        gate.clocks.advance(1)
        await gate.read()
        assert found == [record, None]


async def test_a_reader_that_comes_back_in_time_goes_on(world, stores):
    record, deleted = await world.key(), await world.key()
    gate = await world.gate()
    for one in (record, deleted):
        await gate.lookup.fetch(one.key_id)
    for _ in range(3):
        await feed.mark_and_prune(stores, marked_s=0)
    await world.delete(deleted)
    assert not await gap_of(gate, world, record)
    assert gate.peek(record.key_id) == record
    assert await gate.lookup.fetch(deleted.key_id) is None


async def test_a_dump_that_is_restored_over_a_running_database_is_noticed(world):
    """It has the newest mark when no admin service has run since, and its rows come without triggers."""
    record = await world.key()
    gate = await world.gate()
    await gate.lookup.fetch(record.key_id)
    restored = """
        ALTER TABLE key_feed_marks RENAME TO before;
        CREATE TABLE key_feed_marks (LIKE before INCLUDING ALL);
        INSERT INTO key_feed_marks SELECT * FROM before;
        GRANT SELECT ON key_feed_marks TO gerbang_gateway;
    """
    await gate.settle()
    held = await world.redis.get(record_key(record.key_id))
    assert held
    sql(world.database.server, restored + "ALTER TABLE api_keys DISABLE TRIGGER ALL; DELETE FROM api_keys;", world.database.name)
    await gate.read(anew=True)
    assert await gate.lookup.fetch(record.key_id) is None  # what Redis holds is from before
    await world.redis.set(record_key(record.key_id), held)
    cold = await world.gate()  # which has seen nothing of it
    assert await cold.lookup.fetch(record.key_id) is None


@pytest.mark.parametrize("table", ["accounts", "api_keys", "key_changes", "key_feed_marks"])
async def test_a_table_that_was_made_anew_makes_it_another_server(world, table):
    """As a dump does that is restored for that table alone."""
    before = await world.gate()
    sql(world.database.server, f"VACUUM FULL {table}", world.database.name)
    after = await world.gate()
    assert before.trust.read.server != after.trust.read.server


async def test_a_copy_of_the_database_that_takes_its_name_is_another_server(world):
    """Its tables are numbered as in the one it was copied from, and so are its transactions; it may have no mark that tells them apart."""
    with fresh_database(world.database.server) as copy:
        created = await world.key()  # after the copy was made
        gate = await world.gate()
        await gate.lookup.fetch(created.key_id)
        await gate.settle()
        gate.dsn = copy.gateway_dsn
        assert await gap_of(gate, world, created)


async def test_a_position_that_goes_back_is_noticed(world):
    record = await world.key()
    gate = await world.gate()
    await gate.lookup.fetch(record.key_id)
    read = gate.trust.read
    ahead = read.position._replace(xmax=read.position.xmax + 1_000)
    gate.trust.read = read._replace(position=ahead)
    assert await gap_of(gate, world, record)


async def test_after_a_restart_of_the_server_keys_go_on_while_they_are_read_again_and_no_change_is_lost(own_world, own_postgres):
    record, deleted = await own_world.key(), await own_world.key()
    await own_world.admin.execute("DELETE FROM key_changes")  # it is long ago
    gate = await own_world.gate()
    for one in (record, deleted):
        await gate.lookup.fetch(one.key_id)
    await own_world.delete(deleted)
    await asyncio.to_thread(own_postgres.kill)
    await asyncio.to_thread(own_postgres.start)
    assert await gap_of(gate, own_world, record)
    assert gate.peek(record.key_id) == record
    assert gate.peek(deleted.key_id) is None
    await gate.settle()
    assert not is_in_doubt(gate.lookup, record.key_id)
    assert await gate.lookup.fetch(deleted.key_id) is None
    assert gate.metrics.key_rereads == 1


async def test_no_change_is_lost_when_a_server_recovers_from_the_crash_of_one_backend(own_world, own_postgres):
    """It has the start time of before, and uses the numbers of transactions again that were rolled back, which the last read has seen."""
    record, gate = await own_world.key(), await own_world.gate()
    owner = await postgres.connect(own_postgres.owner_dsn)
    await own_world.admin.execute("DELETE FROM key_changes")  # it is long ago
    for _ in range(5):
        with suppress(asyncpg.RaiseError):
            await owner.execute("DO $$ BEGIN UPDATE accounts SET email = 'x'; RAISE EXCEPTION 'rolled back'; END $$")
    await gate.read()
    assert await gate.lookup.fetch(record.key_id) == record
    await gate.settle()
    os.kill(await owner.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    async with asyncio.timeout(15):
        while not (owner.is_closed() and gate.connection.is_closed()):  # noqa: ASYNC110  # all are
            await asyncio.sleep(0.01)
        while True:
            with suppress(StoreUnavailable):
                again = await postgres.connect(own_postgres.owner_dsn)
                break
    await again.execute("DELETE FROM api_keys")
    for _ in range(5):
        await again.execute("UPDATE accounts SET email = 'y'")
    await again.close()
    await gate.read(anew=True)
    assert gate.peek(record.key_id) is None
    cold = await own_world.gate()  # a record of the server before would say that it knows of the change
    for one in (gate, cold):
        assert await one.lookup.fetch(record.key_id) is None


async def test_a_gate_shares_what_it_reads_again_after_a_restart(own_world, own_postgres):
    record = await own_world.key()
    await own_world.admin.execute("DELETE FROM key_changes")  # it is long ago
    gate, another = await own_world.gate(), await own_world.gate()
    for one in (gate, another):
        await one.lookup.fetch(record.key_id)
        await one.settle()
    await asyncio.to_thread(own_postgres.kill)
    await asyncio.to_thread(own_postgres.start)
    for one in (gate, another):
        await one.read(anew=True)
        assert one.peek(record.key_id) == record
        await one.settle()
    assert (gate.store.asked, another.store.asked) == ([record.key_id] * 2, [])


async def test_entries_that_a_dump_brought_from_another_server_go(world, stores):
    owner = await postgres.connect(world.database.owner_dsn)
    far = "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)::text::xid8"
    await owner.execute(f"INSERT INTO key_changes (xid, key_id) VALUES ({far}, '{new_key_id()}')")
    await owner.execute(f"INSERT INTO key_feed_marks (horizon) VALUES ({far})")
    await owner.close()
    gate, record = await world.gate(), await world.key()
    await gate.read()
    await gate.lookup.fetch(record.key_id)
    for _ in range(2):
        await gate.read()
        assert gate.peek(record.key_id) == record
    await feed.mark_and_prune(stores, marked_s=60)
    assert await count(world) == 1
    assert not await gap_of(gate, world, record)
