"""The admin service is killed between a deletion's commit and its publication: PostgreSQL's own notification is left."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

import aiohttp
import asyncpg
import pytest

from gateway.keys import redis_client
from gateway.keys.shared import record_key
from gateway.runtime import clock
from tests.faults.between import between
from tests.faults.conftest import VAULT
from tests.faults.load import Load
from tests.support.admin import INTERNAL_TOKEN, Service
from tests.support.issuer import AUDIENCE, running_issuer
from tests.support.running import PATIENCE

pytestmark = pytest.mark.xdist_group("faults")

KINDS = ("read", "trade 1", "trade 2")
REFUSED = "invalid_credentials"
_RUN = "import pathlib, sys; from admin.app import run; sys.exit(run(pathlib.Path(sys.argv[1])))"


class Admin:
    """The admin service as a process, whose way to Redis can be cut."""

    def __init__(self, process: asyncio.subprocess.Process, service: Service, redis) -> None:
        self.process = process
        self.service = service
        self.redis = redis


class SharedRecord:
    """What Redis holds of a key."""

    def __init__(self, redis, name: str) -> None:
        self._redis = redis
        self._name = name

    async def held(self) -> bytes:
        return await self._redis.get(self._name) or b""

    async def put(self, sealed: bytes) -> None:
        await self._redis.set(self._name, sealed)

    async def until(self, running: Load, true: Callable[[bytes], bool]) -> bytes:
        """Wait, while clients go on, until it is so."""
        async with asyncio.timeout(PATIENCE):
            while not true(held := await self.held()):
                await running.some("read", 1)
        return held


@pytest.fixture
async def admin(tmp_path, own_postgres, own_redis) -> AsyncIterator[Admin]:
    path = own_redis.socket.with_name("admin.sock")
    async with running_issuer() as issuer, between(own_redis.socket, path) as redis, aiohttp.ClientSession() as http:
        file = tmp_path / "admin.toml"
        file.write_text(f"""
            public_url = "http://127.0.0.1:8090"
            listen = {{ public = "127.0.0.1:0", internal = "127.0.0.1:0" }}
            stores = {{ postgres = "{own_postgres.admin_dsn}", redis = "unix://{path}" }}
            vault = {{ keys = "{VAULT}" }}
            oidc = {{ issuer = "{issuer.url}", audience = "{AUDIENCE}" }}
            internal = {{ token = "{INTERNAL_TOKEN}" }}
        """)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _RUN, str(file), stderr=asyncio.subprocess.PIPE)
        try:
            told = await _ready(process)
            public, internal = (f"http://{told[name]}" for name in ("public", "internal"))
            yield Admin(process, Service(public, internal, issuer, http, settings=None), redis)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def _ready(process: asyncio.subprocess.Process) -> dict[str, str]:
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        async for line in process.stderr:
            told = json.loads(line)
            if told["event"] == "ready":
                return told
    raise AssertionError("it ended before it was ready")


@pytest.fixture
async def connection(own_postgres) -> AsyncIterator[asyncpg.Connection]:
    """The test's own eye on the database."""
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def shared(own_redis, key) -> AsyncIterator[SharedRecord]:
    async with redis_client.connect(own_redis.url) as redis:
        yield SharedRecord(redis, record_key(key.key_id))


async def test_the_admin_service_is_killed_between_commit_and_publication(start, load, admin, connection, key, *, shared, tell):
    alice = admin.service.customer("alice")
    await alice.enrol()
    proof = await alice.proof("delete_key", key_id=key.key_id)
    async with start() as gateway, load(gateway) as running:
        sealed = await shared.until(running, bool)
        commits: list[int] = []
        await connection.add_listener("gerbang_keys", lambda *_: commits.append(clock.monotonic_ms()))
        admin.redis.keep()
        deleting = asyncio.get_running_loop().create_task(alice.call("DELETE", f"keys/{key.key_id}", {"step_up": proof}))
        async with asyncio.timeout(PATIENCE):
            await admin.redis.kept.wait()
        admin.process.kill()
        await asyncio.gather(deleting, return_exceptions=True)
        assert await connection.fetchval("SELECT count(*) FROM api_keys WHERE id = $1", key.key_id) == 0
        refused_ms = min([(await running.until(kind, REFUSED)).answered_ms for kind in KINDS])
        assert await gateway.metric('gerbang_key_invalidations_total{channel="redis"}') == 0
        # The gates remove the record that the admin service could not. Somebody puts it back.
        await shared.until(running, lambda held: not held)
        await shared.put(sealed)
        for kind in KINDS:
            await running.some(kind, 20)
        # Workers that were not there do not believe it either: the feed tells them of the deletion at their start.
        assert await shared.held() == sealed
        for pid in await gateway.worker_pids():
            os.kill(pid, signal.SIGKILL)
        await running.until_counted("gerbang_worker_restarts_total", more_than=1)
        for kind in KINDS:
            await running.some(kind, 20, REFUSED)
    for kind in KINDS:
        assert set(running.outcomes(kind)) <= {"200", REFUSED, "lost"}, running.table()
        assert running.admitted_after(kind, commits[0]) < 1_000, running.table()
    tell("admin killed before publishing", running, note=f"refused {refused_ms - commits[0]} ms after the commit")
