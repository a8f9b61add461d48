"""The gate as it takes part: all checks and metrics on, on real PostgreSQL and Redis, one worker, one key of unlimited rate."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import asyncpg

from gateway.keys import ids, store
from gateway.keys.postgres import AnyConnection
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.bench import interpreter
from tests.bench.contestants import SLOW, Contestant, Ground, of_checkout
from tests.bench.load import BIG_PATH, MODES, PUBLIC_PATH, READ_PATH, TRADE_PATH, Key
from tests.support import wheel
from tests.support.stack import Database, fresh_database, start_migrated, start_redis

GATE, INTERPRETED = "gerbang", "gerbang, interpreted"
CONFIGURATION = """
[listen]
public = "127.0.0.1:{port}"
ops = "127.0.0.1:0"
workers = {workers}

[stores]
postgres = "{postgres}"
redis = "{redis}"

[vault]
keys = "file:{vault}"

[limits]
per_key = "999999999/minute"
per_ip_failures = "999999999/minute"
per_address = "999999999/minute"
max_connections = 20000
max_connections_per_address = 20000
max_tunnels = 20000
max_tunnels_per_key = 20000
max_tunnels_per_address = 20000

[upstreams.spot]
servers = ["http://127.0.0.1:{upstream}"]

[upstreams.service]
servers = ["http://127.0.0.1:{service}"]

[[routes]]
match = "GET /ws-api/v3"
scope = "public"
upstream = "service"
websocket = "binance"
methods = "binance"

[methods.binance]
"flood" = {{ scope = "public" }}
"account.status" = {{ scope = "read" }}
"order.place" = {{ scope = "trade" }}
"session.logon" = {{ scope = "any", replay = "off" }}

[[routes]]
match = "GET {public_path}"
scope = "public"
upstream = "spot"

[[routes]]
match = "GET {read_path}"
scope = "read"
upstream = "spot"

[[routes]]
match = "GET {big_path}"
scope = "read"
upstream = "spot"

[[routes]]
match = "POST {trade_path}"
scope = "trade"
upstream = "spot"
"""


class Built(NamedTuple):
    """One gate that takes part."""

    program: list[str]
    python: Path


def built_for(pythons: Sequence[Path], *, build: bool) -> dict[str, Built]:
    """The gate for each interpreter, by name; the first as it is and interpreted, too. Builds what is not there yet.

    :param build: otherwise an environment that is not of the present sources gives way to the checkout, interpreted
    """
    found: dict[str, Built] = {}
    for python in pythons:
        environment = wheel.environment(python)
        if build and not environment.is_current():
            print(f"building the wheel for {interpreter.described(python)}; this takes some minutes", file=sys.stderr)
            environment.make()
        own = Path(sys.executable)
        made = environment.program("python") if environment.is_current() else own
        built = Built([str(made.with_name("gerbang"))], made)
        found[GATE if not found else f"gerbang on {interpreter.described(python)}"] = built
        found.setdefault(INTERPRETED, Built(of_checkout(*built.program), made))
    return found


class Variant(NamedTuple):
    """How one of the gates is run."""

    program: Sequence[str]
    workers: int = 1
    more: str = ""
    """Further lines of the configuration."""


class Entered(NamedTuple):
    """The gate, as many times as it takes part, and what a baseline needs to do the same."""

    gates: list[Contestant]
    key: Key
    redis: Path
    """The socket of Redis."""
    crowd: list[Key]
    """Further keys."""


@contextlib.contextmanager
def gates_under_test(folder: Path, variants: Mapping[str, Variant], crowd: int = 0) -> Iterator[Entered]:
    """Start the stores and make one key, and a crowd of others; yields the gate as contestants, one for each of the ``variants``, which
    are named.
    """
    postgres = start_migrated(folder / "postgres")
    redis = start_redis(folder / "redis")
    entry = new_entry("bench")
    vault = folder / "vault"
    vault.write_text(entry)
    try:
        with fresh_database(postgres) as database:
            key, *others = asyncio.run(_make_keys(database, Vault.parse(entry), 1 + crowd))
            stores = {"postgres": database.gateway_dsn, "redis": redis.url, "vault": vault}

            def command(variant: Variant, ground: Ground, port: int) -> list[str]:
                file = ground.folder / "gateway.toml"
                paths = {"public_path": PUBLIC_PATH, "read_path": READ_PATH, "big_path": BIG_PATH, "trade_path": TRADE_PATH}
                ports = {"workers": variant.workers, "port": port, "upstream": ground.upstream, "service": ground.service}
                file.write_text(CONFIGURATION.format(**stores, **paths, **ports) + variant.more)
                return [*variant.program, "gateway", "--config", str(file)]

            gates = [
                Contestant(name, SLOW if name == INTERPRETED else MODES, lambda: "", partial(command, variant))
                for name, variant in variants.items()
            ]
            yield Entered(gates, key, redis.socket, others)
    finally:
        redis.stop()
        postgres.stop()


def is_compiled(log: Path) -> bool:
    """Whether the gate that wrote this log runs its data plane as machine code, by its own word.

    :raises StopIteration: it was not ready yet
    """
    lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{"))
    return bool(next(line for line in lines if line.get("event") == "ready")["compiled"])


async def _make_keys(database: Database, vault: Vault, count: int) -> list[Key]:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        await connection.execute("INSERT INTO accounts (id, email, kyc) VALUES ('bench', 'bench@example.com', 'verified')")
        async with connection.transaction():
            return [await _make_key(connection, vault) for _ in range(count)]
    finally:
        await connection.close()


async def _make_key(connection: AnyConnection, vault: Vault) -> Key:
    secret = ids.new_secret()
    record = KeyRecord(
        key_id=ids.new_key_id(),
        account_id="bench",
        label="bench",
        scopes=frozenset(Scope),
        algorithm=Algorithm.HMAC_SHA256,
        secret=secret,
        public_key=None,
        ip_allowlist=None,
        created_ms=clock.now_ms(),
        expires_ms=None,
        frozen=False,
    )
    await store.insert(connection, record, vault)
    return Key(record.key_id, secret.reveal().decode())
