"""One gate's key room on real stores, with clocks that the test moves."""

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.config.settings import Cache
from gateway.keys import lookup, postgres, redis_client, store
from gateway.keys.invalidation import InvalidationListener, publish
from gateway.keys.lookup import KeyLookup
from gateway.keys.record import KeyRecord
from gateway.keys.redis_client import connect
from gateway.keys.shared import SharedRecords
from gateway.keys.store import KeyStore
from gateway.keys.trust import Now, Trust
from gateway.keys.vault import Vault
from gateway.telemetry.metrics import Metrics
from tests.support.inside import read_feed, receive
from tests.support.keys import NOW_MS, a_vault, add_key
from tests.support.stack import Database

SETTINGS = Cache(local_ttl_ms=5_000, redis_ttl_ms=60_000, stale_limit_ms=30_000, local_entries=100)


@dataclass
class Clocks:
    """Both clocks of a machine, standing still until moved."""

    monotonic: int = 1_000_000
    wall: int = NOW_MS

    def advance(self, milliseconds: int) -> None:
        self.monotonic += milliseconds
        self.wall += milliseconds

    def now(self) -> Now:
        return Now(self.monotonic, self.wall)


class HeldStore:
    """The real store behind a door: a test can hold a look-up after it has read its row, and can count."""

    def __init__(self, inner: KeyStore) -> None:
        self.inner = inner
        self.asked: list[str] = []
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.holding = asyncio.Event()

    async def find(self, key_ids):
        self.asked += key_ids
        self.batches.append(list(key_ids))
        found = await self.inner.find(key_ids)
        if not self.open.is_set():
            self.holding.set()
            await self.open.wait()
        return found

    def hold(self) -> None:
        self.open.clear()
        self.holding.clear()

    def release(self) -> None:
        self.open.set()


@dataclass
class GateRoom:
    """A worker's key room. It reads the feed when told to (:meth:`read`), once before a test begins unless that says otherwise."""

    lookup: KeyLookup[KeyRecord]
    store: HeldStore
    clocks: Clocks
    trust: Trust
    metrics: Metrics
    listener: InvalidationListener
    dsn: str
    connection: "postgres.Connection | None" = None
    prepared: list[str] = field(default_factory=list)

    def peek(self, key_id):
        return self.lookup.peek(key_id, self.clocks.monotonic)

    async def read(self, *, anew: bool = False) -> None:
        """Read the feed as the listener does."""
        if anew and self.connection is not None:
            self.connection.terminate()
            self.connection = None
        if self.connection is None:
            self.connection = await postgres.connect(self.dsn)
        await read_feed(self.listener, self.connection)
        await self.settle()

    def announce(self, *key_ids) -> None:
        """A message of Redis comes."""
        receive(self.listener, " ".join((str(self.clocks.wall), *key_ids)).encode())

    async def settle(self) -> None:
        """Let every look-up and every write to Redis that is under way come to its end."""
        while tasks := [task for task in asyncio.all_tasks() if task.get_name() in {"key-lookup", "key-renewal"}]:
            await asyncio.wait(tasks)


@dataclass
class World:
    """The stores, the admin's side, and as many gates as a test asks for."""

    database: Database
    redis_url: str
    vault: Vault = field(default_factory=a_vault)
    find_seconds: float = 1.0
    gates: list = field(default_factory=list)

    async def __aenter__(self):
        self.redis = connect(self.redis_url)
        self.pool = await postgres.create_pool(self.database.gateway_dsn, seconds=self.find_seconds)
        self.admin = await postgres.connect(self.database.admin_dsn)
        return self

    async def __aexit__(self, *_):
        for gate in self.gates:
            await gate.lookup.aclose()
            if gate.connection is not None:
                gate.connection.terminate()
        await self.redis.aclose()
        self.pool.terminate()
        self.admin.terminate()

    async def key(self, **changes) -> KeyRecord:
        return await add_key(self.admin, self.vault, **changes)

    async def delete(self, record: KeyRecord, *, tell: bool = False, now_ms: int = NOW_MS) -> None:
        assert await store.delete(self.admin, record.key_id, account_id=record.account_id)
        if tell:
            await publish(self.redis, [record.key_id], now_ms=now_ms)

    async def gate(
        self, clocks: Clocks | None = None, *, settings: Cache = SETTINGS, feed: bool = True, vault=None, prepare=None
    ) -> GateRoom:
        clocks = clocks or Clocks()
        trust, metrics = Trust(), Metrics()
        trust.redis_up_ms = 0
        keys = HeldStore(KeyStore(self.pool, vault or self.vault, seconds=self.find_seconds))
        prepared: list[str] = []

        def note(record):
            prepared.append(record.key_id)
            return record

        looking = KeyLookup(
            keys.find,
            SharedRecords(self.redis, vault or self.vault),
            trust,
            settings,
            prepare=prepare or note,
            metrics=metrics,
            now=clocks.now,
        )
        listener = InvalidationListener(self.redis, self.database.gateway_dsn, trust, looking, metrics=metrics)
        gate = GateRoom(looking, keys, clocks, trust, metrics, listener, self.database.gateway_dsn, prepared=prepared)
        self.gates.append(gate)
        if feed:
            await gate.read()
        return gate


@pytest.fixture
def patient(monkeypatch):
    """Wide limits on time, for tests whose servers are well: clocks stand still, so a store that rests once rests for ever."""
    monkeypatch.setattr(lookup, "REDIS_SECONDS", 20.0)
    monkeypatch.setattr(redis_client, "COMMAND_SECONDS", 20.0)
    monkeypatch.setattr(redis_client, "CONNECT_SECONDS", 20.0)


@pytest.fixture
async def world(database, redis_url, patient):
    async with World(database, redis_url, find_seconds=20.0) as world:
        yield world


@pytest.fixture
async def own_world(own_postgres, own_redis):
    """On servers of the test's own, to be stopped and frozen."""
    async with World(own_postgres, own_redis.url) as world:
        yield world
