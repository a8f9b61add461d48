"""Redis and PostgreSQL die, hang, come back empty: what architecture.md promises, request by request."""

import asyncio

import pytest

from gateway.runtime import clock
from tests.faults.between import between
from tests.faults.load import Client, Load
from tests.support.keys import a_record

pytestmark = pytest.mark.xdist_group("faults")

TRADES = ("trade 1", "trade 2")
NO_GUARD = "replay_guard_unavailable"
AWAY = "key_store_unavailable"
ANSWERED_MS = 6_000
"""An unknown key stands in line for two seconds at most, and waits for PostgreSQL for as long; the rest is for slow machines."""
RECOVERED_MS = 2_000


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


async def test_a_key_deleted_while_redis_is_away_stops_passing(start, load, own_redis, delete_key, tell):
    async with start() as gateway, load(gateway) as running:
        own_redis.kill()
        await running.until(TRADES[0], NO_GUARD)
        deleted_ms = await delete_key()
        await running.some("read", 20, "invalid_credentials")
    assert running.admitted_after("read", deleted_ms) < 1_000, running.table()
    tell("key deleted, Redis away", running)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_postgresql_is_away(start, load, own_postgres, unknown, *, how, tell):
    async with start() as gateway, load(gateway) as running:
        for kind in ("read", *TRADES):  # whichever worker each of them met has the key now
            await running.some(kind, 20, "200")
        await running.some("forged", 20, "invalid_credentials")
        own_postgres.kill() if how == "killed" else own_postgres.freeze()
        running.add(Client("unknown", "GET", "/wallets", unknown))
        await running.until("unknown", AWAY)
        await running.some("read", 50)
        await asyncio.to_thread(own_postgres.start if how == "killed" else own_postgres.thaw)
        back_ms = clock.monotonic_ms()
        first_ms = (await running.until("unknown", "200")).answered_ms
    judge(running, trades={"200"})
    assert set(running.outcomes("unknown")) == {"200", AWAY}
    assert running.slowest_ms("unknown") < ANSWERED_MS
    tell(f"PostgreSQL {how}", running, first_ms - back_ms)


@pytest.mark.parametrize(("seconds", "outcomes"), [(0.05, {"200"}), (2.0, {"200", NO_GUARD})], ids=["a little", "too much"])
async def test_redis_is_slow(start, load, own_redis, tell, *, seconds, outcomes):
    path = own_redis.socket.with_name("late.sock")
    async with between(own_redis.socket, path) as late, start(redis=f"unix://{path}") as gateway:
        async with load(gateway) as running:
            late.slow(seconds)
            for kind in TRADES:
                await running.until(kind, *(outcomes - {"200"} or outcomes))
            await running.some("read", 50)
            late.fast()
            for kind in TRADES:
                await running.until(kind, "200")
        judge(running, trades=outcomes)
    tell(f"Redis slow by {seconds} s", running)


@pytest.mark.parametrize("seconds", [0.05, 2.0], ids=["a little", "too much"])
async def test_postgresql_is_slow(start, load, late_postgres, new_key, *, delete_key, tell, seconds):
    late, dsn = late_postgres
    deleted, too_late = await new_key(), {AWAY} if seconds > 1 else set()
    async with start(postgres=dsn, more="[cache]\nlocal_ttl_ms = 1000") as gateway, load(gateway) as running:
        running.add(Client("deleted", "GET", "/wallets", deleted))
        await running.until("deleted", "200")
        late.slow(seconds)
        for _ in range(5):
            running.add(Client("unknown", "GET", "/wallets", await new_key()))
            running.add(Client("nobody's", "GET", "/wallets", a_record()))
            await running.until("unknown", *(too_late or {"200"}))
        deleted_ms = await delete_key(deleted, published=True)
        await running.some("deleted", 10, "invalid_credentials", *too_late)
        # The feed was read meanwhile, or keys in use went on without.
        if too_late:
            await running.until_counted("gerbang_key_stale_served_total")
        else:
            await running.until_counted("gerbang_key_feed_reads_total", more_than=await gateway.metric("gerbang_key_feed_reads_total"))
        late.fast()
        back_ms = clock.monotonic_ms()
        first_ms = max([(await running.until(kind, "200")).answered_ms for kind in ("unknown", "read", *TRADES)])
        await running.until("deleted", "invalid_credentials")
    judge(running, trades={"200"})
    assert set(running.outcomes("unknown")) == {"200", *too_late}, running.table()
    assert set(running.outcomes("nobody's")) <= {"invalid_credentials", *too_late}, running.table()
    assert running.admitted_after("deleted", deleted_ms) < 1_000, running.table()
    assert running.slowest_ms("unknown") < ANSWERED_MS
    assert first_ms - back_ms < RECOVERED_MS
    tell(f"PostgreSQL slow by {seconds} s", running, first_ms - back_ms)


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
        await running.until("read", AWAY)
        assert (await gateway.ask("GET", "/ready"))[0] == 503
        await asyncio.gather(asyncio.to_thread(own_redis.start), asyncio.to_thread(own_postgres.start))
        back_ms = clock.monotonic_ms()
        first_ms = max([(await running.until(kind, "200")).answered_ms for kind in ("read", *TRADES)])
    reads = [one.outcome for one in running.seen if one.kind == "read"]
    assert set(reads) == {"200", AWAY}, running.table()
    for kind in TRADES:
        assert set(running.outcomes(kind)) <= {"200", NO_GUARD, AWAY}
    assert set(running.outcomes("forged")) <= {"invalid_credentials", AWAY}
    tell("both stores killed", running, first_ms - back_ms)
