"""Redis fails over under load, while a key is deleted: by Sentinel and by Cluster, before two gateways of two workers each.

What a test cannot ask for (replay.py): that a claim which the lost primary had acknowledged reached its successor. So an order that was
admitted before the primary died and sent again afterwards is not judged; every other one is carried out once at most.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from admin import feed
from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import postgres
from gateway.keys.redis_client import connect
from gateway.keys.shared import record_key
from gateway.keys.trust import MAX_RECORD_TTL_MS
from gateway.keys.vault import Vault
from gateway.runtime import clock
from gateway.runtime.tasks import cancel, repeat
from tests.faults.conftest import VAULT
from tests.faults.load import Client, Load, ask_once, request_of
from tests.support import redis_topologies
from tests.support.keys import add_key
from tests.support.redis_topologies import ClusterTopology, SentinelTopology, wait_for
from tests.support.running import PATIENCE, running

pytestmark = pytest.mark.xdist_group("faults")

NO_GUARD, NO_STORE = "replay_guard_unavailable", "key_store_unavailable"
REFUSED = "invalid_credentials"
NAMES = ("one", "two")
RECOVERY_MS = 2_000
"""Within which trades pass again once another primary is announced."""
REVOKED_MS = 1_000
"""Within which a deletion takes effect while Redis is away."""
ONCE = {("200", "replayed_request"), ("200", NO_GUARD), (NO_GUARD, "200"), (NO_GUARD, NO_GUARD), (NO_GUARD, "replayed_request")}
"""How the two sendings of one order may end. A claim whose answer was lost may stand."""
READERS = 6
"""Of the key that is deleted, at each gateway: enough to be spread over its workers."""


@pytest.fixture
def topology(tmp_path, request):
    with redis_topologies.running(request.param(tmp_path / "redis")) as topology:
        yield topology


class Pair(NamedTuple):
    """One order, sent to one gateway and then again to the other."""

    body: bytes
    sent_ms: int
    answered_ms: int
    outcomes: tuple[str, str]


class Twice:
    """Sends every order twice."""

    def __init__(self, gateways, key) -> None:
        self.pairs: list[Pair] = []
        self.more = asyncio.Condition()
        self.stop = False
        self._gateways = gateways
        self._key = key

    async def run(self) -> None:
        number = 0
        while not self.stop:
            number += 1
            request = request_of(Client("twice", "POST", "/orders", self._key), number)
            sent_ms = clock.monotonic_ms()
            turn = self._gateways if number % 2 else self._gateways[::-1]
            first, second = [await ask_once(gateway.public, request) for gateway in turn]
            self.pairs.append(Pair(request.partition(b"\r\n\r\n")[2], sent_ms, clock.monotonic_ms(), (first, second)))
            async with self.more:
                self.more.notify_all()

    async def some(self, count: int, *outcomes: str) -> None:
        """Wait for that many more pairs with these outcomes."""
        earlier = len(self.pairs)
        async with asyncio.timeout(PATIENCE), self.more:
            await self.more.wait_for(lambda: sum(pair.outcomes == outcomes for pair in self.pairs[earlier:]) >= count)


@asynccontextmanager
async def sending_twice(gateways, key):
    twice = Twice(gateways, key)
    task = asyncio.get_running_loop().create_task(twice.run())
    try:
        await twice.some(3, "200", "replayed_request")
        yield twice
    finally:
        twice.stop = True
        await task


@asynccontextmanager
async def deleting(*arguments: str):
    """Gives a function that deletes a key at once and returns when it was (:mod:`tests.faults.delete_key`)."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.delete_key", *arguments),
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def delete() -> int:
        said, _ = await process.communicate(b"\n")
        return int(said)

    try:
        assert await process.stdout.readline() == b"ready\n"
        yield delete
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def tending_the_feed(dsn: str, redis_url: str):
    """As an admin service does, more often."""
    pool, redis = await postgres.create_pool(dsn), connect(redis_url)

    async def tend() -> None:
        with suppress(StoreUnavailable):
            await feed.remove_outdated(Stores(pool, redis))
        await asyncio.sleep(0.2)

    tending = repeat(tend, name="feed of changes")
    try:
        yield
    finally:
        await cancel(tending)
        pool.terminate()
        await redis.aclose()


def clients(name: str, key, doomed) -> list[Client]:
    """No two send the same order."""
    return [
        *[Client("read", "GET", "/wallets", key)] * 2,
        *(Client(trade, "POST", "/orders", key) for trade in trades(name)),
        Client("forged", "GET", "/wallets", key, forged=True),
        *[Client("doomed read", "GET", "/wallets", doomed)] * READERS,
        Client(f"doomed trade {name}", "POST", "/orders", doomed),
    ]


def trades(name: str) -> tuple[str, str]:
    return f"trade {name} 1", f"trade {name} 2"


@pytest.mark.parametrize(
    ("topology", "when"),
    [(SentinelTopology, "right before"), (SentinelTopology, "during"), (ClusterTopology, "right before"), (ClusterTopology, "during")],
    indirect=["topology"],
)
async def test_no_revocation_is_lost_and_nothing_is_admitted_twice(write, topology, own_postgres, upstream, *, key, when, tell):
    owner = topology.owner_of(record_key(key.key_id))
    successor = topology.successor_of(owner)
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    doomed = await add_key(connection, Vault.parse(VAULT))
    while topology.owner_of(record_key(doomed.key_id)) is not owner:
        doomed = await add_key(connection, Vault.parse(VAULT))
    await connection.execute("DELETE FROM key_changes")  # it is long ago
    await connection.close()
    async with AsyncExitStack() as outer:
        await outer.enter_async_context(tending_the_feed(own_postgres.admin_dsn, topology.url))
        paths = [write(name=name, redis=topology.url, more=f"[cache]\nredis_ttl_ms = {MAX_RECORD_TTL_MS}") for name in NAMES]
        gateways = [await outer.enter_async_context(running(path)) for path in paths]
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            loads = [await enter(Load(gateway, clients(name, key, doomed))) for name, gateway in zip(NAMES, gateways, strict=True)]
            trading = [(load, kind) for name, load in zip(NAMES, loads, strict=True) for kind in trades(name)]
            twice = await enter(sending_twice(gateways, key))
            delete = await enter(deleting(own_postgres.admin_dsn, topology.url, doomed.key_id, doomed.account_id))

            before_ms = clock.monotonic_ms()
            if when == "right before":
                deleted_ms = await delete()
            await asyncio.to_thread(owner.kill)
            dead_ms = clock.monotonic_ms()
            await asyncio.gather(*(load.until(kind, NO_GUARD) for load, kind in trading))  # the outage is short: all at once
            if when == "during":
                deleted_ms = await delete()
            await asyncio.to_thread(wait_for, lambda: topology.has_taken_over(successor), "nobody took over")
            announced_ms = clock.monotonic_ms()

            recovery_ms = max([(await load.until(kind, "200")).answered_ms for load, kind in trading]) - announced_ms
            await twice.some(10, "200", "replayed_request")
            for load in loads:
                await load.some("doomed read", 50, REFUSED)
                await load.until_counted('gerbang_listener_up{channel="redis"}')
        await asyncio.to_thread(wait_for, lambda: not successor.command("EXISTS", record_key(doomed.key_id)), "the record is still there")
        await nobody_believes_the_successor(gateways[0], own_postgres, key, doomed)

    assert recovery_ms < RECOVERY_MS
    for name, load in zip(NAMES, loads, strict=True):
        judge(load, name, deleted_ms)
        tell(f"{type(topology).__name__.removesuffix('Topology')}, key deleted {when}", load, recovery_ms)
    judge_twice(twice.pairs, upstream, before_ms, dead_ms)


def judge(load: Load, name: str, deleted_ms: int) -> None:
    """Reads went on, trades passed or were told that the guard is away, nobody passed with a wrong signature or a deleted key."""
    assert set(load.outcomes("read")) == {"200"}, load.table()
    assert set(load.outcomes("forged")) == {REFUSED}, load.table()
    for kind in trades(name):
        assert set(load.outcomes(kind)) == {"200", NO_GUARD}, load.table()
    assert set(load.outcomes("doomed read")) == {"200", REFUSED}, load.table()
    for kind in ("doomed read", f"doomed trade {name}"):
        assert load.admitted_after(kind, deleted_ms) < REVOKED_MS, load.table()


async def nobody_believes_the_successor(gateway, own_postgres, key, doomed) -> None:
    """Workers that have just started and have nobody but Redis to ask: it must know of the deletion, whatever the primary took with it."""
    own_postgres.kill()
    for pid in await gateway.worker_pids():
        os.kill(pid, signal.SIGKILL)
    for worker in (0, 1):
        await gateway.event("worker_restarted", worker=worker)
    for number in range(4):
        for method, path in (("GET", "/wallets"), ("POST", "/orders")):
            passing, refused = (Client("cold", method, path, which) for which in (key, doomed))
            assert await ask_once(gateway.public, request_of(refused, number)) in (REFUSED, NO_STORE)
            async with asyncio.timeout(PATIENCE):  # a Redis that is slow to answer is one that is away
                while (outcome := await ask_once(gateway.public, request_of(passing, number))) == NO_STORE:
                    pass
            assert outcome == "200"


def judge_twice(pairs: list[Pair], upstream, before_ms: int, dead_ms: int) -> None:
    """No order was carried out twice, but for those that were first sent to the old primary, and then to the new one."""
    judged = [pair for pair in pairs if pair.answered_ms < before_ms or pair.sent_ms > dead_ms]
    assert {pair.outcomes for pair in judged} <= ONCE, Counter(pair.outcomes for pair in judged)
    across = {pair.body for pair in pairs} - {pair.body for pair in judged}
    carried_out = Counter(request.body for request in upstream.requests if request.line.startswith(b"POST"))
    assert not [body for body, count in carried_out.items() if count > 1 and body not in across]
