"""A Redis that evicts is told of; a full one admits nothing twice."""

import pytest

from gateway.keys import redis_client
from gateway.process.redis_policy import RedisPolicy
from gateway.telemetry.metrics import Metrics


@pytest.fixture
async def client(redis_url):
    client = redis_client.connect(redis_url)
    yield client
    await client.config_set("maxmemory-policy", "noeviction")
    await client.aclose()


@pytest.mark.parametrize("policy", ["volatile-lru", "allkeys-lru", "volatile-ttl"])
async def test_any_policy_that_evicts_is_told_of_until_it_is_mended(client, policy):
    metrics = Metrics()
    watch = RedisPolicy(client, metrics=metrics)
    await client.config_set("maxmemory-policy", policy)
    await watch.read()
    assert (watch.evicting, metrics.snapshot()["redis_evicts"][0][1]) == (policy, [1])
    await client.config_set("maxmemory-policy", "noeviction")
    await watch.read()
    assert (watch.evicting, metrics.snapshot()["redis_evicts"][0][1]) == ("", [0])


async def test_without_an_answer_what_was_known_stays():
    watch = RedisPolicy(redis_client.connect("redis://127.0.0.1:1"), metrics=Metrics())
    watch.evicting = "allkeys-lru"
    await watch.read()
    assert watch.evicting == "allkeys-lru"


async def test_of_a_cluster_every_node_counts():
    class Cluster:
        async def info(self, _section):
            return {"127.0.0.1:1": {"maxmemory_policy": "noeviction"}, "127.0.0.1:2": {"maxmemory_policy": "volatile-lru"}}

    watch = RedisPolicy(Cluster(), metrics=Metrics())
    await watch.read()
    assert watch.evicting == "volatile-lru"
