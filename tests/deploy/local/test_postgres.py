"""deploy.local.postgres: the embedded server starts, survives what may happen to it, and says what is wrong."""

import stat
from pathlib import Path

import asyncpg
import pytest

from deploy.local.postgres import PostgresServer, binaries
from deploy.local.process import StartError
from tests.support.stack import Database, OwnPostgres, sql


def test_a_killed_server_starts_again_with_its_data(tmp_path: Path):
    server = PostgresServer(tmp_path / "data")
    server.start()
    sql(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    server.kill()
    assert not server.running()
    server.start()
    try:
        assert sql(server, "SELECT answer FROM kept").strip() == "42"
    finally:
        server.stop()


def failing(folder: Path, times: int, error: str) -> Path:
    """A folder of programs whose ``postgres`` fails so many times with this error and a hint, as the real one does."""
    real = binaries()
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "initdb").write_text(f'#!/bin/sh\nexec {real}/initdb "$@"\n')
    (folder / "postgres").write_text(
        f'#!/bin/sh\ncd {folder}\n[ $(ls -d failed* | wc -l) -ge {times} ] && exec {real}/postgres "$@"\ntouch failed$$\n'
        f"echo '1970-01-01 00:00:00.000 UTC [1] FATAL:  {error}' >&2\n"
        "echo '1970-01-01 00:00:00.000 UTC [1] HINT:  Terminate any old server processes.' >&2\nexit 1\n"
    )
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


def test_backends_of_a_killed_server_that_still_end_are_waited_for(tmp_path: Path, monkeypatch):
    programs = failing(tmp_path / "bin", 2, "pre-existing shared memory block (key 1, ID 2) is still in use")
    monkeypatch.setattr("deploy.local.postgres.binaries", lambda: programs)
    server = PostgresServer(tmp_path / "data", durable=False)
    server.start()
    server.stop()
    assert len(list(programs.glob("failed*"))) == 2


def test_a_start_that_fails_tells_the_error_before_its_hint(tmp_path: Path, monkeypatch):
    programs = failing(tmp_path / "bin", 1, "could not map anonymous shared memory")
    monkeypatch.setattr("deploy.local.postgres.binaries", lambda: programs)
    with pytest.raises(StartError, match=r"did not start: could not map anonymous shared memory; Terminate any old server processes\.$"):
        PostgresServer(tmp_path / "data", durable=False).start()


def test_an_initdb_that_fails_tells_why_not_that_it_cleans_up(tmp_path: Path, monkeypatch):
    programs = failing(tmp_path / "bin", 0, "")
    (programs / "initdb").write_text(
        "#!/bin/sh\necho '1970-01-01 00:00:00.000 UTC [1] FATAL:  could not extend file: No space left on device' >&2\n"
        "echo 'initdb: removing contents of data directory' >&2\nexit 1\n"
    )
    monkeypatch.setattr("deploy.local.postgres.binaries", lambda: programs)
    with pytest.raises(StartError, match=r"could not create its files in .*: could not extend file: No space left on device$"):
        PostgresServer(tmp_path / "data").start()


def test_an_interrupted_initdb_is_begun_anew(tmp_path: Path):
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18\n")
    server = PostgresServer(tmp_path / "data", durable=False)
    server.start()
    server.stop()
    assert not (tmp_path / "data.new").exists()


def test_what_is_not_a_cluster_is_left_alone(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    with pytest.raises(StartError, match="move them away"):
        PostgresServer(tmp_path / "data").start()
    assert (tmp_path / "data" / "thesis.txt").exists()


def test_a_path_too_long_for_a_socket_still_works(tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    server = PostgresServer(folder / "data", durable=False)
    server.start()
    try:
        assert sql(server, "SELECT 1").strip() == "1"
        assert server.dsn() == PostgresServer(folder / "data").dsn()
    finally:
        server.stop()


def test_no_network_port_is_opened_and_only_the_owner_may_enter(postgres: PostgresServer):
    assert sql(postgres, "SHOW listen_addresses").strip() == ""
    assert stat.S_IMODE(postgres.data.stat().st_mode) == 0o700


def test_a_folder_of_another_cluster_version_is_told_in_one_line(tmp_path: Path):
    server = PostgresServer(tmp_path / "data", durable=False)
    server.start()
    server.stop()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartError, match=r"PostgreSQL did not start: .*version") as raised:
        server.start()
    assert "\n" not in str(raised.value)


async def test_each_test_has_a_database_of_its_own(database: Database):
    connection = await asyncpg.connect(database.owner_dsn)
    assert await connection.fetchval("SELECT current_database()") == database.name
    await connection.close()


async def test_a_frozen_server_answers_nothing_until_it_is_thawed(own_postgres: OwnPostgres):
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    own_postgres.freeze()
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 1", timeout=0.1)
    own_postgres.thaw()
    await connection.close()
