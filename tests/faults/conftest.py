"""A gateway of two workers on stores of its own, with an upstream, and keys to ask with."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from deploy.local.sockets import socket_folder
from gateway.keys import invalidation, redis_client
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.faults.between import Between, between
from tests.faults.load import Client, Load
from tests.support import wire
from tests.support.keys import add_key
from tests.support.running import PATIENCE, RunningGateway, configuration, running
from tests.support.wire import RecordingUpstream, recording_upstream

VAULT = new_entry("k1")
ROUTES = "GET /wallets read spot\nPOST /orders trade spot"
UNLIMITED = "100000000/minute"
WINDOW = "[auth]\nclock_window_ms = 60000\n"
"""A request may wait in a socket's queue until a worker has been started again, which takes long on a busy machine."""
POSTGRES_SOCKET = ".s.PGSQL.5432"


@pytest.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    async with recording_upstream() as recording:
        yield recording


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A client here waits for its answer as long as a test waits for anything: none is lost by impatience."""
    monkeypatch.setattr(wire, "TIMEOUT", PATIENCE)


@pytest.fixture
def new_key(own_postgres):
    """Makes a key in the database: ``await new_key(expires_ms=…)``."""

    async def made(**changes: object):
        connection = await asyncpg.connect(own_postgres.owner_dsn)
        record = await add_key(connection, Vault.parse(VAULT), **changes)
        await connection.close()
        return record

    return made


@pytest.fixture
async def key(new_key):
    """The key of the clients that should pass."""
    return await new_key()


@pytest.fixture
async def unknown(new_key):
    """A key that no gate has seen."""
    return await new_key()


@pytest.fixture
def delete_key(own_postgres, own_redis, key):
    """Deletes a key in the database, the clients' one unless another is given; returns when that was, monotonic.

    Nothing is published, unless it is asked for.
    """

    async def delete(record=key, *, published: bool = False) -> int:
        connection = await asyncpg.connect(own_postgres.owner_dsn)
        await connection.execute("DELETE FROM api_keys WHERE id = $1", record.key_id)
        deleted_ms = clock.monotonic_ms()
        await connection.close()
        if published:
            async with redis_client.connect(own_redis.url) as redis:
                await invalidation.publish(redis, [record.key_id], now_ms=clock.now_ms())
        return deleted_ms

    return delete


@pytest.fixture
async def late_postgres(own_postgres, tmp_path) -> AsyncIterator[tuple[Between, str]]:
    """What makes PostgreSQL slow, and the gateway's DSN that leads through it."""
    dsn = own_postgres.gateway_dsn
    (ours,) = parse_qs(urlsplit(dsn).query)["host"]
    folder = tmp_path / "late"
    folder.mkdir()
    folder = socket_folder(folder, POSTGRES_SOCKET)
    async with between(Path(ours) / POSTGRES_SOCKET, folder / POSTGRES_SOCKET) as late:
        yield late, urlsplit(dsn)._replace(query=f"host={folder}").geturl()


@pytest.fixture
def write(tmp_path, own_postgres, own_redis, upstream, key):
    """Writes a gateway's configuration and returns its path. ``redis``, ``postgres`` and ``upstream`` may be put behind something."""

    def written(
        *,
        name: str = "gateway",
        more: str = "",
        of_upstreams: str = "",
        pool: str = "spot",
        vault: str = VAULT,
        per_key: str = UNLIMITED,
        workers: int = 2,
        **stores: str,
    ):
        path = tmp_path / f"{name}.toml"
        window = "" if "[auth]" in more else WINDOW
        path.write_text(
            configuration(
                postgres=stores.get("postgres", own_postgres.gateway_dsn),
                redis=stores.get("redis", own_redis.url),
                vault=vault,
                upstreams={"spot": stores.get("upstream", upstream.url)},
                routes=ROUTES.replace(" spot", f" {pool}"),
                of_upstreams=of_upstreams,
                workers=workers,
                more=f'[limits]\nper_key = "{per_key}"\nper_ip_failures = "{UNLIMITED}"\n{window}{more}',
            )
        )
        return path

    return written


@pytest.fixture
def start(write):
    """Starts a gateway: ``async with start() as gateway``; takes what ``write`` takes, and the ``environment`` of its processes."""
    return lambda *, environment=None, **options: running(write(**options), environment=environment)


@pytest.fixture
def tell(record_property) -> Callable[..., None]:
    """Put what happened into the table at the end: ``tell("Redis killed", load, recovery_ms)``, or another figure as a ``note``."""

    def row(what: str, load: Load, recovery_ms: int | None = None, *, note: str = "") -> None:
        record_property("measured", load.row(what, note if recovery_ms is None else f"recovered in {recovery_ms} ms"))

    return row


@pytest.fixture
def load(key) -> Callable[[RunningGateway], Load]:
    """Two readers, two traders, and one whose signatures are wrong."""

    def of(gateway: RunningGateway) -> Load:
        readers = [Client("read", "GET", "/wallets", key)] * 2
        traders = [Client(f"trade {number}", "POST", "/orders", key) for number in (1, 2)]
        return Load(gateway, [*readers, *traders, Client("forged", "GET", "/wallets", key, forged=True)])

    return of
