"""Fixtures for every test: real PostgreSQL and Redis on Unix sockets, one of each per pytest process."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from deploy.local.postgres import PostgresServer
from deploy.local.redis import RedisServer
from gateway.keys import redis_client
from tests.support import wheel
from tests.support.stack import TEMPLATE, Database, OwnPostgres, fresh_database, start_migrated, start_redis

# The same examples each time, so that a test that passes here passes elsewhere; how long one takes says nothing on a busy machine.
hypothesis.settings.register_profile("gerbang", deadline=None, derandomize=True)
hypothesis.settings.register_profile("random", deadline=None, max_examples=1_000)
hypothesis.settings.load_profile("gerbang")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server shared by every test of this process; take ``database`` to write to it."""
    server = start_migrated(tmp_path_factory.mktemp("postgres") / "data")
    yield server
    server.stop()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """A migrated database of this test's own."""
    with fresh_database(postgres) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server shared by every test of this process; take ``redis_url`` to have it empty."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def patient_with_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine is no outage: clients of this process that are made from now on wait for Redis as long as it takes."""
    monkeypatch.setattr(redis_client, "COMMAND_SECONDS", 20.0)
    monkeypatch.setattr(redis_client, "CONNECT_SECONDS", 20.0)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    """A PostgreSQL server for this test alone, to stop, kill, freeze and start again."""
    server = start_migrated(tmp_path / "postgres")
    yield OwnPostgres(server, TEMPLATE)
    server.thaw()
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server for this test alone, to stop, kill, freeze and start again."""
    server = start_redis(tmp_path / "redis")
    yield server
    server.thaw()
    server.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured: ``record_property("measured", "…")``; it survives parallel runs."""
    if not wheel.is_current():
        terminalreporter.write_line("whole processes ran interpreted: `python -m tests.support.wheel` builds the wheel of these sources")
    reports = [report for group in terminalreporter.stats.values() for report in group if getattr(report, "when", "") == "call"]
    measured = [value for report in reports for name, value in report.user_properties if name == "measured"]
    if measured:
        terminalreporter.section("measured")
        for line in measured:
            terminalreporter.write_line(str(line))
