"""deploy/README.md, "Restore yesterday": its lines bring a database back to a dump of any earlier version, which is how one rolls back."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from deploy.local.postgres import binaries
from gateway.keys import migrate
from tests.support.stack import Database, migrate_to, sql

OWNER = "postgresql://owner@db.internal/gerbang"
PART = (Path(__file__).parents[2] / "deploy/README.md").read_text().partition("\n### Restore yesterday\n")[2].partition("\n## ")[0]
LINES = [line for line in re.findall(r"^\$ (.+)$", PART, re.MULTILINE) if line.startswith(("pg_dump ", "psql ", "pg_restore "))]


@pytest.fixture
def shell(database: Database, tmp_path: Path):
    """Runs a line of the guide on the database, in a folder of its own."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        line = line.replace(OWNER, f"'{database.owner_dsn}'")
        environment = os.environ | {"PATH": f"{binaries()}:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-euc", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    return run


def schema(shell) -> list[str]:
    """Everything but the rows, privileges included. PostgreSQL drops parentheses of a CHECK that it reads again."""
    lines = shell(f"pg_dump --schema-only {OWNER}").stdout.splitlines()
    return sorted(re.sub(r"[()]", "", line) for line in lines if not re.match(r"\\(un)?restrict ", line))  # the token of each pg_dump


@pytest.mark.parametrize("revision", ["0006", "0010", "0011"])
def test_a_dump_comes_back_as_it_was_over_the_tables_of_a_later_version(database, shell, revision):
    migrate_to(database, revision)
    sql(database.server, "INSERT INTO accounts (id) VALUES ('siti')", database.name)
    before = schema(shell)
    assert shell(f"pg_dump --format=custom --file before.dump {OWNER}").returncode == 0
    migrate.upgrade(database.owner_dsn)
    sql(database.server, "INSERT INTO accounts (id) VALUES ('rudi')", database.name)
    later = schema(shell)

    for line in LINES:
        done = shell(line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert schema(shell) == before
    assert sql(database.server, "SELECT id FROM accounts", database.name) == "siti\n"

    migrate.upgrade(database.owner_dsn)  # and the next attempt to upgrade finds nothing in its way
    assert sql(database.server, "SELECT version_num FROM alembic_version", database.name).strip() == migrate.head()
    assert schema(shell) == later


def test_the_guide_keeps_what_a_restoration_replaces(shell, database):
    sql(database.server, "INSERT INTO accounts (id) VALUES ('rudi')", database.name)
    assert shell(f"pg_dump --format=custom --file before.dump {OWNER}").returncode == 0
    sql(database.server, "INSERT INTO accounts (id) VALUES ('siti')", database.name)
    for line in [*LINES, *(line.replace("before.dump", "replaced.dump") for line in LINES if not line.startswith("pg_dump"))]:
        assert shell(line).returncode == 0, line
    assert sql(database.server, "SELECT count(*) FROM accounts", database.name) == "2\n"
