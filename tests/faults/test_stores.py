"""Redis and PostgreSQL die, hang, come back empty: what architecture.md promises, request by request."""

import asyncio

import pytest

from gateway import clock
from tests.faults.load import Client, Load, late

pytestmark = pytest.mark.xdist_group("faults")

TRADES = ("trade 1", "trade 2")
NO_GUARD = "replay_guard_unavailable"


def judge(load: Load, *, trades: set[str], reads: frozenset[str] = frozenset({"200"})) -> None:
    """Nobody passed who should not, and whoever should was answered as promised."""
    assert set(load.outcomes("read")) <= reads, load.table()
    for kind in TRADES:
        assert set(load.outcomes(kind)) <= trades, load.table()
    assert set(load.outcomes("forged")) == {"invalid_credentials"}, load.table()


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_redis_is_away(start, load, own_redis, how, tell):
    async with start() as gateway, load(gateway) as running:
        own_redis.kill() if how == "killed" else own_redis.freeze()
        for kind in TRADES:
            await running.until(kind, NO_GUARD)
        await running.some("read", 50)
        await asyncio.to_thread(own_redis.start if how == "killed" else own_redis.thaw)
        back_ms = clock.monotonic_ms()
        first_ms = max([(await running.until(kind, "200")).answered_ms for kind in TRADES])
        await running.some("read", 50)
    judge(running, trades={"200", NO_GUARD})
    tell(f"Redis {how}", running, first_ms - back_ms)


def admitted_after(load: Load, deleted_ms: int) -> int:
    """For how many milliseconds after its deletion a key was let through."""
    return max((one.sent_ms - deleted_ms for one in load.seen if one.outcome == "200" and one.sent_ms > deleted_ms), default=0)


async def test_a_key_deleted_while_redis_is_away_stops_passing(start, load, own_redis, delete_key, tell):
    async with start() as gateway, load(gateway) as running:
        own_redis.kill()
        await running.until(TRADES[0], NO_GUARD)
        deleted_ms = await delete_key()
        await running.some("read", 20, "invalid_credentials")
    assert admitted_after(running, deleted_ms) < 1_000, running.table()
    tell("key deleted, Redis away", running)


async def test_a_deletion_whose_invalidation_was_never_published_reaches_the_gates(start, load, delete_key, tell):
    """The admin service was killed between commit and invalidation: the database's own notification is left."""
    async with start() as gateway, load(gateway) as running:
        deleted_ms = await delete_key()
        await running.some("read", 20, "invalid_credentials")
    assert admitted_after(running, deleted_ms) < 1_000, running.table()
    tell("deletion never published", running)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_postgresql_is_away(start, load, own_postgres, unknown, *, how, tell):
    async with start() as gateway, load(gateway) as running:
        own_postgres.kill() if how == "killed" else own_postgres.freeze()
        running.add(Client("unknown", "GET", "/wallets", unknown))
        await running.until("unknown", "key_store_unavailable")
        await running.some("read", 50)
        await asyncio.to_thread(own_postgres.start if how == "killed" else own_postgres.thaw)
        back_ms = clock.monotonic_ms()
        first_ms = (await running.until("unknown", "200")).answered_ms
    judge(running, trades={"200"})
    assert set(running.outcomes("unknown")) == {"200", "key_store_unavailable"}
    tell(f"PostgreSQL {how}", running, first_ms - back_ms)


@pytest.mark.parametrize(("seconds", "outcomes"), [(0.05, {"200"}), (2.0, {"200", NO_GUARD})], ids=["a little", "too much"])
async def test_redis_is_slow(start, load, own_redis, tell, *, seconds, outcomes):
    async with late(own_redis.socket) as between, start(redis=between.url) as gateway:
        async with load(gateway) as running:
            between.seconds = seconds
            for kind in TRADES:
                await running.until(kind, *(outcomes - {"200"} or outcomes))
            await running.some("read", 50)
            between.seconds = 0
            for kind in TRADES:
                await running.until(kind, "200")
        judge(running, trades=outcomes)
    tell(f"Redis slow by {seconds} s", running)


async def test_redis_comes_back_empty(start, load, own_redis, unknown, tell):
    async with start() as gateway, load(gateway) as running:
        own_redis.kill()
        await asyncio.to_thread(own_redis.start)
        running.add(Client("unknown", "GET", "/wallets", unknown))
        for kind in ("read", *TRADES, "unknown"):
            await running.some(kind, 20, "200")
    judge(running, trades={"200", NO_GUARD})
    assert set(running.outcomes("unknown")) == {"200"}
    tell("Redis restarted empty", running)


async def test_both_stores_are_away(start, load, own_postgres, own_redis, tell):
    async with start(more="[cache]\nlocal_ttl_ms = 500\nstale_limit_ms = 1500") as gateway, load(gateway) as running:
        own_redis.kill()
        own_postgres.kill()
        await running.until("read", "key_store_unavailable")
        assert (await gateway.ask("GET", "/ready"))[0] == 503
        await asyncio.gather(asyncio.to_thread(own_redis.start), asyncio.to_thread(own_postgres.start))
        back_ms = clock.monotonic_ms()
        first_ms = max([(await running.until(kind, "200")).answered_ms for kind in ("read", *TRADES)])
    reads = [one.outcome for one in running.seen if one.kind == "read"]
    assert set(reads) == {"200", "key_store_unavailable"}, running.table()
    for kind in TRADES:
        assert set(running.outcomes(kind)) <= {"200", NO_GUARD, "key_store_unavailable"}
    assert set(running.outcomes("forged")) <= {"invalid_credentials", "key_store_unavailable"}
    tell("both stores killed", running, first_ms - back_ms)
