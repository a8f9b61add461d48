"""The audit: appended in order by many at once, changed by nobody, and every tampering found."""

import asyncio

import asyncpg
import pytest

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from tests.support.stack import Database

TAMPERING = "ALTER TABLE audit_events DISABLE TRIGGER audit_events_append_only;"


def entry(number: int = 0, account: str = "alice") -> Entry:
    return Entry(
        provenance=Provenance(1_000 + number, "8.8.8.8"),
        event=Event.KEY_CREATED,
        actor=Actor.ACCOUNT,
        account_id=account,
        detail={"label": f"bot {number}"},
    )


async def filled(database: Database, count: int = 5) -> asyncpg.Connection:
    connection = await asyncpg.connect(database.admin_dsn)
    for number in range(count):
        async with connection.transaction():
            await audit.append(connection, entry(number))
    return connection


async def tamper(database: Database, statement: str) -> None:
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute(TAMPERING + statement)
    await owner.close()


async def problems(connection: asyncpg.Connection) -> tuple[str, ...]:
    return (await audit.verify(connection)).problems


async def test_an_untouched_log_verifies(database: Database) -> None:
    connection = await filled(database)
    verdict = await audit.verify(connection)
    assert (verdict.events, verdict.seq, verdict.problems) == (5, 5, ())
    await connection.close()


async def test_an_empty_log_verifies(database: Database) -> None:
    connection = await filled(database, 0)
    assert await audit.verify(connection) == (0, 0, audit.GENESIS, ())
    await connection.close()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ('UPDATE audit_events SET detail = \'{"label":"innocent"}\' WHERE seq = 3', "event 3: was changed"),
        ("UPDATE audit_events SET account_id = 'bob' WHERE seq = 1", "event 1: was changed"),
        ("UPDATE audit_events SET at_ms = at_ms + 1 WHERE seq = 5", "event 5: was changed"),
        ("DELETE FROM audit_events WHERE seq = 3", "event 3: missing, up to 3"),
        ("DELETE FROM audit_events WHERE seq = 1", "event 1: missing, up to 1"),
        ("DELETE FROM audit_events WHERE seq = 3; UPDATE audit_events SET seq = seq - 1 WHERE seq > 3", "event 3: does not follow"),
    ],
)
async def test_a_changed_or_missing_event_is_found(database: Database, statement: str, told: str) -> None:
    connection = await filled(database)
    await tamper(database, statement)
    assert any(problem.startswith(told) for problem in await problems(connection))
    await connection.close()


async def test_a_log_cut_off_at_its_end_is_found_by_who_noted_the_end(database: Database) -> None:
    connection = await filled(database)
    noted = await audit.verify(connection)
    await tamper(database, "DELETE FROM audit_events WHERE seq > 3")
    assert await problems(connection) == ()
    assert (await audit.verify(connection, expected=(noted.seq, noted.hash))).problems == ("event 5: missing, the log ends at 3",)
    await connection.close()


async def test_a_log_written_anew_is_found_by_who_noted_the_end(database: Database) -> None:
    connection = await filled(database)
    noted = await audit.verify(connection)
    await tamper(database, "DELETE FROM audit_events")
    for number in range(5):
        async with connection.transaction():
            await audit.append(connection, entry(number + 100))
    assert (await audit.verify(connection, expected=(noted.seq, noted.hash))).problems == ("event 5: is not the one noted earlier",)
    await connection.close()


@pytest.mark.parametrize("statement", ["UPDATE audit_events SET detail = ''", "DELETE FROM audit_events", "TRUNCATE audit_events"])
async def test_neither_the_service_nor_the_owner_changes_it_by_accident(database: Database, statement: str) -> None:
    connection = await filled(database, 1)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    owner = await asyncpg.connect(database.owner_dsn)
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await owner.execute(statement)
    await owner.close()
    await connection.close()


async def test_many_at_once_make_one_chain(database: Database) -> None:
    pool = await asyncpg.create_pool(database.admin_dsn, min_size=5, max_size=5)

    async def work(number: int) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await audit.append(connection, entry(number))

    await asyncio.gather(*(work(number) for number in range(30)))
    async with pool.acquire() as connection:
        verdict = await audit.verify(connection)
    assert (verdict.events, verdict.problems) == (30, ())
    await pool.close()


async def test_an_entry_goes_with_its_transaction(database: Database) -> None:
    connection = await filled(database, 1)
    transaction = connection.transaction()
    await transaction.start()
    await audit.append(connection, entry(1))
    await transaction.rollback()
    async with connection.transaction():
        await audit.append(connection, entry(2))
    verdict = await audit.verify(connection)
    assert (verdict.events, verdict.problems) == (2, ())
    await connection.close()


async def test_an_account_sees_its_own_events_latest_first_and_page_by_page(database: Database) -> None:
    connection = await filled(database, 4)
    async with connection.transaction():
        await audit.append(connection, entry(9, account="bob"))
    first = await audit.list_for_account(connection, "alice", limit=3)
    assert [event.seq for event in first] == [4, 3, 2]
    assert [event.seq for event in await audit.list_for_account(connection, "alice", limit=3, before_seq=2)] == [1]
    await connection.close()
