"""A gate that is attacked, its service, and the keys of honest and of greedy accounts."""

from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from deploy.signing import SigningKey
from gateway.keys.ids import new_key_id
from gateway.keys.vault import Vault
from tests.abuse.placing import others_together, place
from tests.abuse.service import trading_service
from tests.abuse.world import HONEST, VAULT, settings
from tests.support.keys import add_key
from tests.support.running import running


@pytest.fixture(autouse=True)
def processor():
    """The gate's own."""
    with others_together() as own:
        yield own


@pytest.fixture
async def service():
    async with trading_service() as running_service:
        yield running_service


@pytest.fixture
async def keys(own_postgres):
    """Keys of honest accounts, and thirty of one other account."""
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    vault = Vault.parse(VAULT)
    accounts = [*(f"honest {number}" for number in range(HONEST)), *["greedy"] * 30]
    made = [await add_key(connection, vault, key_id=new_key_id(), account_id=account) for account in accounts]
    await connection.close()
    return [SigningKey(record.key_id, record.secret.reveal().decode()) for record in made]


@pytest.fixture
async def start(tmp_path: Path, own_postgres, own_redis, service, processor):
    """Starts the gateway: ``start("further settings", descriptors=1_000)``."""

    @asynccontextmanager
    async def start(more: str = "", *, descriptors: int | None = None, **how: str):
        path = tmp_path / "gateway.toml"
        path.write_text(settings(own_postgres.gateway_dsn, own_redis.url, service.url, more, **how))
        async with running(path, descriptors=descriptors) as gateway:
            (worker,) = await gateway.worker_pids()
            place(worker, processor)
            yield gateway

    return start


@pytest.fixture
async def gateway(start):
    async with start() as gateway:
        yield gateway
