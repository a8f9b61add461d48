"""A gateway that is asked for decisions, the service behind it, and a key."""

import asyncpg
import pytest

from gateway.keys.vault import Vault
from tests.support.decisions import ROUTES, SESSION, STREAM, TRUSTED, VAULT
from tests.support.keys import add_key
from tests.support.running import configuration, running
from tests.support.wire import recording_upstream


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
def write(tmp_path, database, redis_url, upstream):
    """Writes the configuration and returns its path."""

    def written(more=TRUSTED):
        path = tmp_path / "gateway.toml"
        values = {"postgres": database.gateway_dsn, "redis": redis_url, "vault": VAULT, "upstreams": {"spot": upstream.url}}
        path.write_text(configuration(**values, routes=ROUTES, more=more) + STREAM + SESSION)
        return path

    return written


@pytest.fixture
async def gate(write):
    async with running(write()) as gateway:
        yield gateway
