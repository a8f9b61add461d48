"""What gates ask of PostgreSQL and Redis for their keys, with many keys in use and many gates: ``python -m tests.bench.scaling``.

Real stores on this machine, and the gates' own classes in a few processes (:mod:`tests.bench.fleet`). It prints, for each number of gates
and keys in use: queries and rows a second of PostgreSQL and commands a second of Redis while nothing changes, and where look-ups were
answered while the gates filled: the first one by PostgreSQL, the first of each further process by what that has put into Redis; the other
gates of a process are given what its first one has, since a million look-ups cost more than they show. Then a gate that starts cold beside
one that uses the keys; how long a gate needs when many keys are asked for at once and Redis is empty; and many keys revoked in one
transaction. ``--only`` runs some of these.

All of it takes a quarter of an hour. Processor time is that of the gates' processes: the figure to
go by on a machine that has.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import redis.asyncio

from deploy.local.redis import RedisServer
from gateway.keys.ids import new_key_id, new_secret
from gateway.keys.vault import Vault, new_entry
from gateway.runtime.tasks import spawn
from tests.support.stack import TEMPLATE, OwnPostgres, start_migrated, start_redis

ROOT = Path(__file__).parents[2]
PROCESSES = 4
USES_A_SECOND = 5_000
"""Of all gates together: with more keys each is used more seldom, and it is said how often."""
WINDOW_SECONDS = 60
"""What is written to Redis for a key is written each 45 s (its record), 30 s (its limit) and minute (its usage) at the least."""
PARTS = ("steady", "cold", "stampede", "revoked")
ROW = "{:>6} {:>8} {:>7} {:>7} | {:>8} {:>8} {:>9} {:>9} {:>9} | {:>8} {:>7} {:>11}"


class Ground(NamedTuple):
    """The stores."""

    postgres: OwnPostgres
    redis: RedisServer
    vault: str
    folder: Path


class Counts(NamedTuple):
    """What the stores have counted so far."""

    at: float
    transactions: int
    rows: int
    commands: int
    scripts: int


async def counted(ground: Ground) -> Counts:
    connection = await asyncpg.connect(ground.postgres.owner_dsn)
    await connection.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(1.1)")  # other backends report once a second
    row = await connection.fetchrow("SELECT xact_commit, tup_fetched FROM pg_stat_database WHERE datname = current_database()")
    await connection.close()
    async with redis.asyncio.Redis.from_url(ground.redis.url) as client:
        told = await client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): figures["calls"] for name, figures in told.items()}
    return Counts(time.monotonic(), row[0], row[1], sum(calls.values()), calls.get("evalsha", 0))


async def make_keys(ground: Ground, count: int) -> Path:
    """That many keys in the database; returns the file of their ids."""
    vault, ids = Vault.parse(ground.vault), [new_key_id() for _ in range(count)]
    connection = await asyncpg.connect(ground.postgres.owner_dsn)
    await connection.execute("TRUNCATE api_keys, accounts, key_changes CASCADE")
    await connection.execute("INSERT INTO accounts (id, kyc) SELECT 'a' || n, 'verified' FROM generate_series(0, 999) AS n")
    await connection.execute("ALTER TABLE api_keys DISABLE TRIGGER ALL")
    names = ("id", "account_id", "label", "scopes", "algorithm", "sealed_secret", "created_at")
    now = await connection.fetchval("SELECT now()")
    rows = (  # made one by one: a million of them would not fit
        (key_id, f"a{number % 1_000}", "bot", ["read", "trade"], "hmac-sha256", vault.seal(new_secret().reveal(), context=key_id), now)
        for number, key_id in enumerate(ids)
    )
    await connection.copy_records_to_table("api_keys", records=rows, columns=names)
    await connection.execute("ALTER TABLE api_keys ENABLE TRIGGER ALL")
    for trigger in ("api_keys_notify", "api_keys_notify_truncate"):
        await connection.execute(f"ALTER TABLE api_keys ENABLE ALWAYS TRIGGER {trigger}")
    await connection.execute("ANALYZE")
    await connection.close()
    async with redis.asyncio.Redis.from_url(ground.redis.url) as client:
        await client.flushall()
    path = ground.folder / f"{count}.ids"
    path.write_text("\n".join(ids))
    return path


class Fleet:
    """Gates in a few processes that do the same at once."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def do(self, step: str) -> list[dict[str, Any]]:
        return await _do(step, self._processes)

    async def fill(self, step: str) -> list[dict[str, Any]]:
        """The first process first: what it puts into Redis the others find there."""
        return await _do(step, self._processes[:1]) + await _do(step, self._processes[1:])


async def _do(step: str, processes: list[asyncio.subprocess.Process]) -> list[dict[str, Any]]:
    for process in processes:
        process.stdin.write(f"{step}\n".encode())
    return [json.loads(await process.stdout.readline()) for process in processes]


@asynccontextmanager
async def fleet(ground: Ground, gates: int, period: float) -> AsyncIterator[Fleet]:
    share = [gates // PROCESSES + (number < gates % PROCESSES) for number in range(PROCESSES)]
    arguments = (str(period), ground.postgres.gateway_dsn, ground.redis.url, ground.vault)
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.fleet", str(some), *arguments),
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for some in share
        if some
    ]  # fmt: skip
    try:
        yield Fleet(processes)
    finally:
        for process in processes:
            process.stdin.close()
            await process.wait()


def summed(answers: list[dict[str, Any]]) -> Counter[str]:
    return sum((Counter(gate) for answer in answers for gate in answer["gates"]), Counter())


def shares(figures: Counter[str]) -> str:
    by_redis, by_postgres = figures["redis found"], figures["postgres found"]
    return f"{by_redis / (by_redis + by_postgres or 1):.1%}"


async def steady(ground: Ground, gates: int, path: Path, seconds: float, uses: int) -> None:
    """One line of the table. The keys are there; Redis is empty."""
    keys = int(path.stem)
    period = max(1.0, gates * keys / uses)
    async with fleet(ground, gates, period) as fleet_:
        filled = summed(await fleet_.fill(f"fill {path}"))
        await fleet_.do(f"use {seconds / 6}")  # what a first use writes is not what the others do
        before, used_before = await counted(ground), summed(await fleet_.do("use 0"))
        used = summed(await fleet_.do(f"use {seconds}"))
        after = await counted(ground)
    took = after.at - before.at
    lookups = used - used_before
    rows = lookups["postgres found"] + lookups["postgres absent"]
    print(ROW.format(
        gates, keys, f"{period:.0f} s", f"{lookups['memory'] / took:.0f}",
        f"{(after.transactions - before.transactions) / took:.1f}", f"{rows / took:.1f}",
        f"{(after.commands - before.commands) / took:.0f}", f"{(after.scripts - before.scripts) / took:.0f}",
        f"{(after.commands - before.commands) / took / gates / keys * 1e4:.0f}",
        filled["postgres found"], shares(filled), f"{lookups['memory'] / (lookups['memory'] + rows + lookups['redis found'] or 1):.1%}",
    ), flush=True)  # fmt: skip


async def _using(fleet_: Fleet, done: asyncio.Event) -> None:
    while not done.is_set():
        await fleet_.do("use 2")


async def beside(ground: Ground, keys: int) -> dict[str, Any]:
    """A gate that looks up all keys while another uses them."""
    path = await make_keys(ground, keys)
    async with fleet(ground, 1, max(1.0, keys / 2_000)) as first:
        await first.fill(f"fill {path}")
        await first.do("use 3")
        done = asyncio.Event()
        using = spawn(_using(first, done), name="using")
        async with fleet(ground, 1, 1.0) as second:
            (answer,) = await second.fill(f"fill {path}")
        done.set()
        await using
    return answer


async def cold(ground: Ground, keys: int) -> None:
    answer = await beside(ground, keys)
    figures = summed([answer])
    print(
        f"\na cold gate beside one that uses {keys} keys: {shares(figures)} answered by Redis, {answered_by_postgres(figures)} rows of"
        f" PostgreSQL; {answer['seconds']:.1f} s, {answer['processor']:.1f} s of processor time"
    )


def answered_by_postgres(figures: Counter[str]) -> int:
    return figures["postgres found"] + figures["postgres absent"]


async def stampede(ground: Ground, keys: int, at_once: int) -> None:
    """Many of them asked for at once; each again by whoever is told to try again."""
    path, at_once = await make_keys(ground, keys), min(keys, at_once)
    async with fleet(ground, 1, 1.0) as only:
        (answer,) = await only.fill(f"fill {path} {at_once}")
    figures = summed([answer])
    print(
        f"\nRedis empty, {keys} keys, {at_once} at once, asked for of one gate: all there after {answer['seconds']:.1f} s,"
        f" {answer['processor']:.1f} s of processor time; {answered_by_postgres(figures)} rows of PostgreSQL, at most {answer['busiest']} a"
        f" second; {figures['refused'] / keys:.1f} refusals for each key, 99 of 100 that were answered within {answer['fetch_ms']:.0f} ms"
    )


class Revoked(NamedTuple):
    """How long after the commit the last gate refused the last key: of that, until PostgreSQL's notification had come to all, and until the
    feed was read; the longest that a gate's loop did not turn meanwhile, and what one process of gates spent on it. All in ms.
    """

    late_ms: float
    notified_ms: float
    read_ms: float
    lag_ms: float
    spent_ms: float


async def revoke_all(ground: Ground, gates: int, keys: int) -> Revoked:
    """All keys in one transaction, with nothing published: the feed alone tells of them."""
    path = await make_keys(ground, keys)
    connection = await asyncpg.connect(ground.postgres.owner_dsn)
    async with fleet(ground, gates, 1.0) as fleet_:
        await fleet_.fill(f"fill {path}")
        async with connection.transaction():
            await connection.execute("UPDATE api_keys SET revoked_at = now(), revoked_reason = 'leaked', sealed_secret = NULL")
            waiting = spawn(fleet_.do("revoked"), name="revoked")
        committed = time.monotonic()
        answers = await waiting
    await connection.close()
    late_ms, notified_ms, read_ms = ((max(each[name] for each in answers) - committed) * 1_000 for name in ("at", "notified", "heard"))
    lag_ms, spent_s = (max(each[name] for each in answers) for name in ("lag_ms", "processor"))
    return Revoked(late_ms, notified_ms, read_ms, lag_ms, spent_s * 1_000)


async def revoked(ground: Ground, gates: int, keys: int) -> None:
    found = await revoke_all(ground, gates, keys)
    print(f"{keys} keys revoked in one transaction, {gates} gates, nothing published: refused by all {found.late_ms:.0f} ms after it,")
    print(f"  all were notified after {found.notified_ms:.0f} ms and had read the feed after {found.read_ms:.0f} ms,")
    print(
        f"  worst turn of a loop meanwhile {found.lag_ms} ms, {found.spent_ms:.0f} ms of processor time"
        f" ({-(-gates // PROCESSES)} gates share one loop here)"
    )


def main(gates: Sequence[int], keys: Sequence[int], **how: Any) -> None:
    """The stores, and everything on them."""
    with tempfile.TemporaryDirectory(prefix="gerbang-scaling-") as folder:
        server, cache = start_migrated(Path(folder) / "postgres"), start_redis(Path(folder) / "redis")
        try:
            ground = Ground(OwnPostgres(server, TEMPLATE), cache, new_entry("k1"), Path(folder))
            asyncio.run(everything(ground, gates, keys, **how))
        finally:
            cache.stop()
            server.stop()


async def everything(
    ground: Ground, gates: Sequence[int], keys: Sequence[int], *, seconds: float, uses: int, at_once: int, only: Sequence[str]
) -> None:
    print(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if "steady" in only:
        await table(ground, gates, keys, seconds, uses)
    if "cold" in only:
        await cold(ground, min(20_000, max(keys)))
    if "stampede" in only:
        await stampede(ground, max(keys), at_once)
    if "revoked" in only:
        for some in sorted({1, min(4, max(gates))}):
            await revoked(ground, some, min(10_000, max(keys)))
    print(f"load average after: {os.getloadavg()[0]:.1f}")


async def table(ground: Ground, gates: Sequence[int], keys: Sequence[int], seconds: float, uses: int) -> None:
    print("Each gate uses each key once a period; per second, of all gates together, while nothing changes.")
    print(ROW.format("gates", "keys", "period", "uses", "queries", "rows", "commands", "scripts", "per 10k*", "PG rows", "Redis", "memory"))
    for many in keys:
        path = await make_keys(ground, many)
        for some in gates:
            async with redis.asyncio.Redis.from_url(ground.redis.url) as client:
                await client.flushall()
            await steady(ground, some, path, seconds, uses)
    print("* commands of Redis a second, those inside scripts counted too, for 10 000 keys in use on one gate.")
    print("PG rows, Redis: rows read from PostgreSQL while the gates filled, and the share that Redis answered. memory: of the uses.")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=_numbers, default=[1, 4, 16])
    parser.add_argument("--keys", type=_numbers, default=[1_000, 10_000, 100_000])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=WINDOW_SECONDS, help="for how long each line of the table is measured")
    parser.add_argument("--uses", type=int, default=USES_A_SECOND, help="of keys, a second, of all gates together, at the most")
    parser.add_argument("--at-once", type=int, default=2_000, help="requests that want a key at the same time, in the stampede")
    main(**vars(parser.parse_args()))
