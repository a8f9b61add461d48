"""Limits and the replay guard on a real Redis Cluster, where keys live on different nodes and a node can be lost."""

import asyncio

import pytest

from gateway.admission.limits import KeyLimiter
from gateway.admission.replay import ReplayGuard
from gateway.config.values import Rate
from gateway.errors import ReplayedRequest, ReplayGuardUnavailable
from gateway.keys import redis_client
from gateway.runtime import clock
from gateway.runtime.gcra import ShareNeeded
from gateway.telemetry.metrics import Metrics
from tests.support.claims import claim
from tests.support.inside import due, settle
from tests.support.redis_topologies import ClusterTopology, running

KEYS = [f"key-{number}" for number in range(30)]
PATIENCE = 30
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(ClusterTopology(tmp_path_factory.mktemp("cluster"))) as topology:
        yield topology


@pytest.fixture
async def clients(cluster):
    made = [redis_client.connect(cluster.url) for _ in range(2)]
    yield made
    for client in made:
        await client.aclose()


def guards(clients) -> list[ReplayGuard]:
    return [ReplayGuard(client, metrics=Metrics()) for client in clients]


async def outcomes(guard: ReplayGuard, keys: list[str], signature: bytes) -> list[type | None]:
    claims = [claim(guard, key, signature) for key in keys]
    return [None if error is None else type(error) for error in await asyncio.gather(*claims, return_exceptions=True)]


async def test_claims_of_keys_on_all_nodes_go_in_one_batch(clients):
    one, other = guards(clients)
    assert await outcomes(one, KEYS, b"signature") == [None] * len(KEYS)
    assert await outcomes(other, KEYS, b"signature") == [ReplayedRequest] * len(KEYS)


async def test_behind_a_plain_url_that_leads_to_shards_keys_are_settled_one_by_one(cluster):
    """As of a proxy, or of the only node of a Cluster: the script of several keys is refused."""
    node = cluster.processes[0]
    mine = [key for key in (f"plain-{number}" for number in range(300)) if cluster.owner_of(f"{{{key}}}") is node][:20]
    client = redis_client.connect(f"redis://127.0.0.1:{node.port}")
    limiter = KeyLimiter(client, metrics=Metrics())
    for key in mine:
        limiter.charge(key, 1, Rate(1_200, 60_000), clock.monotonic_ms())
    await settle(limiter, due(limiter))
    assert (limiter.degraded, len(due(limiter))) == (True, 20)
    await settle(limiter, due(limiter))
    assert (limiter.degraded, len(due(limiter))) == (False, 0)
    await client.aclose()


async def test_limits_of_keys_on_all_nodes_are_shared(clients):
    limiters = [KeyLimiter(client, metrics=Metrics()) for client in clients]
    rate = Rate(5, 3_600_000)

    async def admitted(limiter: KeyLimiter, key: str) -> bool:
        while True:
            try:
                return limiter.charge(key, 1, rate, clock.monotonic_ms()).allowed
            except ShareNeeded:
                await limiter.settled(key, 1, rate)

    for limiter in limiters:
        limiter.start()
    found = await asyncio.gather(*(admitted(limiter, key) for key in KEYS for limiter in limiters for _ in range(5)))
    assert not any(limiter.degraded for limiter in limiters)
    assert sum(found) == 5 * len(KEYS)
    for limiter in limiters:
        await limiter.stop()


async def test_while_a_node_is_lost_nothing_is_admitted_twice_and_its_successor_takes_over(cluster, clients):
    one, other = guards(clients)
    assert await outcomes(one, KEYS, b"before") == [None] * len(KEYS)
    await asyncio.to_thread(cluster.owner_of(f"gerbang:{{{KEYS[0]}}}:replay:x").kill)
    passed: list[str] = []
    async with asyncio.timeout(PATIENCE):
        number = 0
        while len(passed) < len(KEYS):  # each key once more, over whichever gate
            number += 1
            for key in [key for key in KEYS if key not in passed]:
                first, second = await asyncio.gather(*(outcomes(guard, [key], b"%d" % number) for guard in (one, other)))
                assert [*first, *second].count(None) <= 1
                assert set(first + second) <= {None, ReplayedRequest, ReplayGuardUnavailable}
                passed += [key] if None in first + second else []
