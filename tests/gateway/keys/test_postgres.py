"""DSNs, and what an unreachable or refusing PostgreSQL looks like."""

import asyncio

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError, StoreUnavailable
from gateway.keys.postgres import _hosts, check_dsn, connect, create_pool, translated
from tests.support.stack import TEMPLATE


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("", "does not start with postgresql://"),
        ("localhost/db", "does not start with postgresql://"),
        ("mysql://u:hunter2@h/db", "does not start with postgresql://"),
        ("postgresql://u:hunter2@h:port/db", "port that is not a number"),
        ("postgresql://u:hunter2@a..b/db", "cannot be looked up"),
        ("postgresql://u:hunter2@h:99999/db", "port that is not a number"),
        ("postgresql://u:hunter2@h1:5432,h2:x/db", "port that is not a number"),
        ("postgresql://u:hun@ter2@h/db", "not percent-encoded"),
        ("postgresql://u:hunter2#@h/db", "not percent-encoded"),
        ("postgresql://u:hunter2@[::1/db", "not a URL"),
        ("postgresql://u:hunter2@h/db?sslmode", "not a URL"),
    ],
)
async def test_a_malformed_dsn_says_what_is_wrong_and_never_shows_a_password(dsn, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        await create_pool(dsn)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("option", ["sslmode=hunter2", "target_session_attrs=hunter2"])
async def test_an_option_that_the_driver_refuses_is_a_config_error_without_its_value(option):
    with pytest.raises(ConfigError) as refusal:
        await connect(f"postgresql://u@localhost/db?{option}")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u@/db?host=/run/postgresql",
        "postgres://u:p%40ss@h1:5432,h2:5433/db?target_session_attrs=read-write",
        "postgresql://[::1]:5432/db",
    ],
)
def test_a_dsn_of_every_useful_form_passes(dsn):
    check_dsn(dsn)


@given(st.text() | st.text().map(lambda text: f"postgresql://u:hunter2hunter2@{text}"))
def test_any_text_is_a_dsn_or_a_config_error_without_the_password(dsn):
    told = ""
    try:
        check_dsn(dsn)
    except ConfigError as error:
        told = str(error)
    assert "hunter2hunter2" not in told


async def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailable, match="PostgreSQL did not answer") as refusal:
        await connect(f"postgresql://u:hunter2@/db?host={tmp_path}")
    assert "hunter2" not in str(refusal.value)


async def test_a_refused_login_is_unavailable_and_not_called_silence(database):
    with pytest.raises(StoreUnavailable, match=r"PostgreSQL refused the login \(user, password or pg_hba.conf\): .*SQLSTATE"):
        await connect(database.server.dsn(database.name, "nobody_known"))
    with pytest.raises(StoreUnavailable, match=r"PostgreSQL has no such database: .*SQLSTATE"):
        await connect(database.server.dsn("no_such_database"))


async def test_a_standby_is_not_taken_for_the_primary_unless_asked_for(own_postgres):
    await asyncio.to_thread(own_postgres.stop)
    (own_postgres.server.data / "standby.signal").touch()
    await asyncio.to_thread(own_postgres.start)
    with pytest.raises(StoreUnavailable):
        await connect(own_postgres.gateway_dsn)
    async with await create_pool(own_postgres.gateway_dsn) as pool:
        with pytest.raises(StoreUnavailable), translated():
            await pool.fetchval("SELECT 1")
    connection = await connect(own_postgres.gateway_dsn + "&target_session_attrs=any")
    assert await connection.fetchval("SELECT pg_is_in_recovery()")
    await connection.close()


async def test_several_hosts_are_tried_until_one_answers(database, tmp_path):
    connection = await connect(database.gateway_dsn.replace("host=", f"host={tmp_path},"))
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_a_frozen_host_does_not_hold_up_the_next_one(postgres, own_postgres):
    frozen, well = own_postgres.owner_dsn, postgres.dsn(TEMPLATE)
    both = frozen + "," + well.partition("host=")[2]
    own_postgres.freeze()
    connection = await connect(both, seconds=60)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    async with await create_pool(both, seconds=60) as pool:
        assert await pool.fetchval("SELECT 1") == 1
    own_postgres.thaw()


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@h/d", ["postgresql://u:p@h/d"]),
        ("postgresql://u:p@h1:1,h2/d?a=b", ["postgresql://u:p@h1:1/d?a=b", "postgresql://u:p@h2/d?a=b"]),
        ("postgresql://u@/d?host=/a,/b", ["postgresql://u@/d?host=%2Fa", "postgresql://u@/d?host=%2Fb"]),
        ("postgresql://u@/d?host=a,b&port=1,2", ["postgresql://u@/d?host=a&port=1", "postgresql://u@/d?host=b&port=2"]),
        ("postgresql://u@/d?host=a,b&port=1", ["postgresql://u@/d?host=a&port=1", "postgresql://u@/d?host=b&port=1"]),
    ],
)
def test_a_dsn_of_several_hosts_is_one_dsn_for_each(dsn, expected):
    assert _hosts(dsn) == expected


def test_ports_that_do_not_go_with_the_hosts_are_a_config_error():
    with pytest.raises(ConfigError, match="as many ports as hosts"):
        check_dsn("postgresql://u@/d?host=a,b,c&port=1,2")


async def test_a_pool_is_made_while_the_server_is_down(tmp_path):
    async with await create_pool(f"postgresql://u@/db?host={tmp_path}") as pool:
        with pytest.raises(StoreUnavailable), translated():
            await pool.fetchval("SELECT 1")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("SELECT * FROM nowhere",), asyncpg.UndefinedTableError),
        (("SELECT $1::text",), asyncpg.InterfaceError),
        (("SELECT 1", "too many"), asyncpg.InterfaceError),
        (("SELECT $1::int", "not a number"), asyncpg.DataError),
    ],
)
async def test_a_defect_is_not_called_an_outage(database, call, error):
    connection = await connect(database.owner_dsn)
    try:
        with pytest.raises(error), translated():
            await connection.fetchval(*call)
    finally:
        await connection.close()


async def test_a_connection_that_is_closed_is_an_outage(database):
    connection = await connect(database.owner_dsn)
    await connection.close()
    with pytest.raises(StoreUnavailable), translated():
        await connection.fetchval("SELECT 1")
