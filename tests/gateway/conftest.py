"""A gateway's surroundings: an upstream that records, a key in the database, and the configuration that names both."""

import asyncpg
import pytest

from gateway.keys.vault import Vault, new_entry
from tests.support.keys import add_key
from tests.support.running import configuration
from tests.support.wire import recording_upstream

VAULT = new_entry("k1")


@pytest.fixture
async def upstream():
    async with recording_upstream() as recording:
        yield recording


@pytest.fixture
async def key(database):
    connection = await asyncpg.connect(database.owner_dsn)
    yield await add_key(connection, Vault.parse(VAULT))
    await connection.close()


@pytest.fixture
def write_configuration(tmp_path, database, redis_url, upstream):
    """Writes a configuration of these stores and this upstream, and returns its path.

    ``changes`` are arguments of :func:`tests.support.running.configuration`, ``tail`` is appended.
    """

    def written(*, tail="", **changes):
        values = {"postgres": database.gateway_dsn, "redis": redis_url, "vault": VAULT, "upstreams": {"spot": upstream.url}, **changes}
        path = tmp_path / "gateway.toml"
        path.write_text(configuration(**values) + tail)
        return path

    return written
