"""Real PostgreSQL and Redis for tests: what the fixtures of ``conftest.py`` hand out."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from alembic import command

from deploy.local.postgres import PostgresServer, binaries
from deploy.local.redis import RedisServer
from gateway.keys.migrate import upgrade

TEMPLATE = "gerbang_template"
PATIENCE = 90
"""Seconds that a server may take to start on a busy machine."""


@dataclass(frozen=True)
class Database:
    """One migrated database; each test has its own."""

    server: PostgresServer
    name: str

    @property
    def owner_dsn(self) -> str:
        """Of the role that migrates."""
        return self.server.dsn(self.name)

    @property
    def admin_dsn(self) -> str:
        """Of the admin service's role."""
        return self.server.dsn(self.name, "gerbang_admin")

    @property
    def gateway_dsn(self) -> str:
        """Of the gateway's role, which can only SELECT."""
        return self.server.dsn(self.name, "gerbang_gateway")


class OwnPostgres(Database):
    """A server for one test, to stop, kill, freeze and start again, with a migrated database in it."""

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()


def sql(server: PostgresServer, statement: str, database: str = "postgres") -> str:
    """Run statements by psql, outside any event loop."""
    command = [str(binaries() / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, server.dsn(database)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def start_migrated(data: Path) -> PostgresServer:
    """A running server whose database :data:`TEMPLATE` has the present schema."""
    server = PostgresServer(data, durable=False)
    server.start(seconds=PATIENCE)
    sql(server, f"CREATE DATABASE {TEMPLATE}")
    upgrade(server.dsn(TEMPLATE))
    return server


def migrate_to(database: Database, revision: str) -> None:
    """An empty schema instead of the present one, as left by the version whose latest revision this is."""
    sql(database.server, "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC", database.name)
    upgrade_to_head = command.upgrade
    with patch.object(command, "upgrade", lambda config, _head: upgrade_to_head(config, revision)):
        upgrade(database.owner_dsn)


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[Database]:
    """A copy of the template, dropped afterwards whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    sql(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield Database(server, name)
    finally:
        sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def start_redis(data: Path) -> RedisServer:
    server = RedisServer(data, durable=False)
    server.start(seconds=PATIENCE)
    return server
