"""A gateway of two workers on stores of its own, with an upstream, and keys to ask with."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from gateway import clock
from gateway.keys.vault import Vault, new_entry
from tests.faults.load import Client, Load
from tests.support import wire
from tests.support.keys import add_key
from tests.support.running import PATIENCE, RunningGateway, configuration, running
from tests.support.wire import RecordingUpstream, recording_upstream

VAULT = new_entry("k1")
ROUTES = "GET /wallets read spot\nPOST /orders trade spot"


@pytest.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    async with recording_upstream() as recording:
        yield recording


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A client here waits for its answer as long as a test waits for anything: none is lost by impatience."""
    monkeypatch.setattr(wire, "TIMEOUT", PATIENCE)


async def new_key(own_postgres):
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    record = await add_key(connection, Vault.parse(VAULT))
    await connection.close()
    return record


@pytest.fixture
async def key(own_postgres):
    """The key of the clients that should pass."""
    return await new_key(own_postgres)


@pytest.fixture
async def unknown(own_postgres):
    """A key that no gate has seen."""
    return await new_key(own_postgres)


@pytest.fixture
def delete_key(own_postgres, key):
    """Deletes the clients' key in the database and publishes nothing; returns when that was, monotonic."""

    async def delete() -> int:
        connection = await asyncpg.connect(own_postgres.owner_dsn)
        await connection.execute("DELETE FROM api_keys WHERE id = $1", key.key_id)
        deleted_ms = clock.monotonic_ms()
        await connection.close()
        return deleted_ms

    return delete


@pytest.fixture
def write(tmp_path, own_postgres, own_redis, upstream, key):
    """Writes a gateway's configuration and returns its path. ``redis``, ``postgres`` and ``upstream`` may be put behind something."""

    def written(*, name: str = "gateway", more: str = "", of_upstreams: str = "", pool: str = "spot", vault: str = VAULT, **stores: str):
        path = tmp_path / f"{name}.toml"
        path.write_text(
            configuration(
                postgres=stores.get("postgres", own_postgres.gateway_dsn),
                redis=stores.get("redis", own_redis.url),
                vault=vault,
                upstreams={"spot": stores.get("upstream", upstream.url)},
                routes=ROUTES.replace(" spot", f" {pool}"),
                of_upstreams=of_upstreams,
                workers=2,
                more='[limits]\nper_key = "100000000/minute"\nper_ip_failures = "100000000/minute"\n' + more,
            )
        )
        return path

    return written


@pytest.fixture
def start(write):
    """Starts a gateway: ``async with start() as gateway``; takes what ``write`` takes."""
    return lambda **options: running(write(**options))


@pytest.fixture
def tell(record_property) -> Callable[..., None]:
    """Put what happened into the table at the end: ``tell("Redis killed", load, recovery_ms)``."""

    def row(what: str, load: Load, recovery_ms: int | None = None) -> None:
        record_property("measured", load.row(what, recovery_ms))

    return row


@pytest.fixture
def load(key) -> Callable[[RunningGateway], Load]:
    """Two readers, two traders, and one whose signatures are wrong."""

    def of(gateway: RunningGateway) -> Load:
        readers = [Client("read", "GET", "/wallets", key)] * 2
        traders = [Client(f"trade {number}", "POST", "/orders", key) for number in (1, 2)]
        return Load(gateway, [*readers, *traders, Client("forged", "GET", "/wallets", key, forged=True)])

    return of
