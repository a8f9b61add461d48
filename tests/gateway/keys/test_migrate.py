"""The schema: how it comes about, what it allows whom, what it notifies of."""

import asyncio
import socket
import uuid
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import pytest

from gateway.errors import ConfigError, StoreUnavailable
from gateway.keys import migrate
from gateway.keys.postgres import connect
from gateway.runtime import tasks
from tests.support.keys import NOW_MS, a_vault, add_account, add_key
from tests.support.notices import until
from tests.support.stack import Database, migrate_to, sql

ROW = {
    "id": "'gbk_0000000000000000000000000000'",
    "account_id": "'alice'",
    "label": "'bot'",
    "scopes": "'{read}'",
    "algorithm": "'hmac-sha256'",
    "sealed_secret": "'x'",
    "public_key": "NULL",
    "ip_allowlist": "NULL",
    "created_at": "now()",
    "expires_at": "NULL",
    "revoked_at": "NULL",
    "revoked_reason": "NULL",
}


@pytest.fixture
def empty(postgres):
    """A database without any schema."""
    name = f"empty_{uuid.uuid4().hex}"
    sql(postgres, f"CREATE DATABASE {name}")
    yield Database(postgres, name)
    sql(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def owner(database):
    connection = await connect(database.owner_dsn)
    await add_account(connection)
    yield connection
    await connection.close()


def revision(database: Database) -> str:
    return sql(database.server, "SELECT version_num FROM alembic_version", database.name).strip()


def test_an_empty_database_gets_the_present_schema_and_a_second_run_changes_nothing(empty):
    migrate.upgrade(empty.owner_dsn)
    assert revision(empty) == migrate.head()
    migrate.upgrade(empty.owner_dsn)
    assert revision(empty) == migrate.head()


def test_a_host_that_does_not_answer_keeps_no_migration_from_the_one_that_does(empty):
    """As after a failover, when the DSN names both."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = urlsplit(empty.owner_dsn)
        query = dict(parse_qsl(url.query))
        hosts = {"host": f"127.0.0.1,{query['host']}", "port": f"{silent.getsockname()[1]},{query.get('port', 5432)}"}
        migrate.upgrade(url._replace(query=urlencode(query | hosts, safe="/,")).geturl())
    assert revision(empty) == migrate.head()


async def test_two_migrations_at_once_both_succeed(empty):
    await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, empty.owner_dsn) for _ in range(3)))
    assert await asyncio.to_thread(revision, empty) == migrate.head()


def test_a_step_that_fails_leaves_nothing_behind(empty):
    sql(empty.server, "CREATE TABLE api_keys (id text)", empty.name)
    with pytest.raises(migrate.MigrationFailed, match="already exists"):
        migrate.upgrade(empty.owner_dsn)
    assert sql(empty.server, "SELECT to_regclass('accounts') IS NULL AND to_regclass('alembic_version') IS NULL", empty.name).strip() == "t"


def test_the_schema_of_a_later_version_is_left_alone_and_called_that(database):
    sql(database.server, "UPDATE alembic_version SET version_num = '9999'", database.name)
    with pytest.raises(migrate.MigrationFailed, match="the schema is at 9999, of a later version"):
        migrate.upgrade(database.owner_dsn)
    assert revision(database) == "9999"


@pytest.fixture
async def reader(database):
    """A transaction over the keys of a database that is not up to date, as of a dump that takes hours."""
    await asyncio.to_thread(migrate_to, database, "0008")
    connection = await connect(database.owner_dsn)
    await connection.execute("BEGIN; SELECT count(*) FROM api_keys")
    yield connection
    await connection.close()


async def test_nobody_waits_behind_a_migration_that_waits_for_a_dump(database, reader, monkeypatch):
    monkeypatch.setattr(migrate, "_PAUSE_S", 0.05)
    gateway = await connect(database.gateway_dsn, command_seconds=2)  # as long as a look-up may take
    migration = tasks.spawn(asyncio.to_thread(migrate.upgrade, database.owner_dsn), name="migration")
    try:
        await until(reader, "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'api_keys'::regclass)")
        for _ in range(3):
            await gateway.fetchval("SELECT count(*) FROM api_keys")
        assert not migration.done()
        await reader.execute("COMMIT")
        await migration
    finally:
        await gateway.close()
    assert await asyncio.to_thread(revision, database) == migrate.head()


async def test_a_migration_whose_tables_remain_locked_says_so_and_has_changed_nothing(database, reader, monkeypatch):
    monkeypatch.setattr(migrate, "_PAUSE_S", 0.05)
    monkeypatch.setattr(migrate, "_ATTEMPTS", 2)
    with pytest.raises(migrate.MigrationFailed, match="other transactions keep its tables locked"):
        await asyncio.to_thread(migrate.upgrade, database.owner_dsn)
    assert await asyncio.to_thread(revision, database) == "0008"


COLUMNS = """
    SELECT table_name || '.' || column_name, data_type, is_nullable = 'YES' OR column_default IS NOT NULL
      FROM information_schema.columns WHERE table_schema = 'public'
"""
GRANTS = """
    SELECT grantee || ' ' || privilege_type || ' ' || table_name || '.' || column_name
      FROM information_schema.column_privileges WHERE grantee LIKE 'gerbang%'
"""


def test_no_step_takes_away_what_the_version_before_it_works_with(database):
    """Services of both versions share the database during an upgrade, and after a service was rolled back."""
    before: tuple[dict[str, list[str]], set[str]] = {}, set()
    for number in range(1, int(migrate.head()) + 1):
        migrate_to(database, f"{number:04}")
        rows = [line.split("|") for line in sql(database.server, COLUMNS, database.name).splitlines()]
        columns = {name: [kind, optional] for name, kind, optional in rows}
        grants = set(sql(database.server, GRANTS, database.name).splitlines())
        assert columns.items() >= before[0].items(), number
        assert grants >= before[1], number
        tables = {name.partition(".")[0] for name in before[0]}
        added = [name for name in columns.keys() - before[0].keys() if name.partition(".")[0] in tables]
        assert [name for name in added if columns[name][1] != "t"] == [], f"{number}: an INSERT of the version before leaves it out"
        before = columns, grants


def test_a_role_without_the_privilege_is_told_so(empty):
    migrate.upgrade(empty.owner_dsn)  # makes the role
    sql(empty.server, "DROP SCHEMA public CASCADE; CREATE SCHEMA public", empty.name)
    with pytest.raises(migrate.MigrationFailed, match="no schema has been selected"):
        migrate.upgrade(empty.admin_dsn)


@pytest.mark.parametrize("dsn", ["nonsense hunter2", "postgresql://u:hunter2@h:port/d"])
def test_a_malformed_dsn_is_a_config_error_without_the_password(dsn):
    with pytest.raises(ConfigError) as refusal:
        migrate.upgrade(dsn)
    assert "hunter2" not in str(refusal.value)


def test_an_unreachable_server_is_unavailable_without_the_password(tmp_path):
    with pytest.raises(StoreUnavailable) as refusal:
        migrate.upgrade(f"postgresql://u:hunter2@/d?host={tmp_path}")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "'gbk_short'"},
        {"id": "'gbk_000000000000000000000000000-'"},
        {"account_id": "'nobody'"},
        {"label": "''"},
        {"label": f"'{'x' * 65}'"},
        {"label": "NULL"},
        {"scopes": "'{}'"},
        {"scopes": "'{read,read}'"},
        {"scopes": "'{trade,read}'"},
        {"scopes": "'{admin}'"},
        {"scopes": "'{NULL}'"},
        {"algorithm": "'none'"},
        {"sealed_secret": "NULL"},
        {"public_key": "'x'"},
        {"algorithm": "'ed25519'"},
        {"algorithm": "'rsa-sha256'", "sealed_secret": "NULL"},
        {"ip_allowlist": "'{}'"},
        {"ip_allowlist": "'{8.8.8.8,8.8.4.4,1.1.1.1,9.9.9.9}'"},
        {"ip_allowlist": "'{NULL}'"},
        {"ip_allowlist": "'{not-an-address}'"},
        {"expires_at": "now() - interval '1 day'"},
        {"revoked_at": "now()", "revoked_reason": "'stolen'"},
        {"revoked_at": "now()", "sealed_secret": "NULL"},
        {"revoked_reason": "'stolen'"},
    ],
    ids=str,
)
async def test_the_schema_refuses_a_key_that_could_not_have_been_issued(owner, change):
    row = ROW | change
    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)):
        await owner.execute(f"INSERT INTO api_keys ({', '.join(row)}) VALUES ({', '.join(row.values())})")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"label": f"'{'字' * 64}'", "scopes": "'{read,trade}'", "ip_allowlist": "'{8.8.8.8,2001:4860:4860::8888,1.1.1.1}'"},
        {"algorithm": "'ed25519'", "sealed_secret": "NULL", "public_key": "'x'", "expires_at": "now() + interval '1 day'"},
        {"revoked_at": "now()", "revoked_reason": "'stolen'", "sealed_secret": "NULL"},
    ],
    ids=str,
)
async def test_the_schema_takes_every_kind_of_key(owner, change):
    row = ROW | change
    await owner.execute(f"INSERT INTO api_keys ({', '.join(row)}) VALUES ({', '.join(row.values())})")


async def test_the_gateways_role_reads_what_it_needs_and_changes_nothing(database, owner):
    await add_key(owner, a_vault())
    gateway = await connect(database.gateway_dsn)
    try:
        assert await gateway.fetchval("SELECT count(*) FROM api_keys") == 1
        assert await gateway.fetchval("SELECT kyc FROM accounts WHERE NOT frozen") == "verified"
        for statement in (
            "SELECT email FROM accounts",
            "DELETE FROM api_keys",
            "UPDATE api_keys SET revoked_at = now()",
            "UPDATE accounts SET frozen = false",
            "INSERT INTO accounts (id) VALUES ('mallory')",
            "TRUNCATE api_keys",
            "CREATE TABLE mine (id int)",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await gateway.execute(statement)
    finally:
        await gateway.close()


async def test_the_admins_role_cannot_edit_what_a_customer_was_promised_is_fixed(database, owner):
    await add_key(owner, a_vault())
    admin = await connect(database.admin_dsn)
    try:
        for column in ("id", "account_id", "label", "scopes", "algorithm", "public_key", "ip_allowlist", "created_at", "expires_at"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute(f"UPDATE api_keys SET {column} = {column}")
        await admin.execute("UPDATE accounts SET frozen = true")
        await admin.execute("DELETE FROM api_keys")
    finally:
        await admin.close()


class Notifications:
    """What arrives on ``gerbang_keys`` until a marker that is sent last: notifications come in the order of commits."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.received: list[str] = []
        self.marker = asyncio.Event()

    def note(self, _connection, _pid, _channel, payload):
        if payload == "marker":
            self.marker.set()
        else:
            self.received.append(payload)

    async def of(self, statement: str) -> list[str]:
        await self.connection.add_listener("gerbang_keys", self.note)
        await self.connection.execute(statement)
        await self.connection.execute("NOTIFY gerbang_keys, 'marker'")
        async with asyncio.timeout(10):
            await self.marker.wait()
        return self.received


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM api_keys",
        "UPDATE accounts SET frozen = true",
        "UPDATE accounts SET kyc = 'revoked'",
        "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'stolen', sealed_secret = NULL",
        "UPDATE api_keys SET ip_allowlist = '{8.8.8.8}'",
    ],
)
async def test_every_change_that_a_gate_must_hear_of_notifies_once_for_its_transaction(owner, statement):
    vault = a_vault()
    for _ in range(2):
        await add_key(owner, vault)
    await add_account(owner, "bystander")
    assert await Notifications(owner).of(statement) == ["*"]


async def test_a_creation_notifies_because_a_gate_may_remember_the_key_as_absent(owner):
    row = ROW | {"id": "'gbk_00000000000000000000000000zz'"}
    insert = f"INSERT INTO api_keys ({', '.join(row)}) VALUES ({', '.join(row.values())})"
    assert await Notifications(owner).of(insert) == ["*"]


async def test_emptying_the_table_notifies_of_every_key(owner):
    assert await Notifications(owner).of("TRUNCATE api_keys CASCADE") == ["*"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_keys SET sealed_secret = 'resealed'",
        "UPDATE accounts SET email = 'a@example.com', frozen = false",
        "BEGIN; DELETE FROM api_keys; ROLLBACK",
    ],
)
async def test_what_changes_nothing_for_a_gate_does_not_notify(owner, statement):
    await add_key(owner, a_vault(), created_ms=NOW_MS)
    assert await Notifications(owner).of(statement) == []
