"""Clients for every kind of Redis, against real processes."""

import asyncio
from urllib.parse import quote

import pytest
import redis
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from gateway.errors import ConfigError, StoreUnavailable
from gateway.keys import store
from gateway.keys.ids import new_key_id
from gateway.keys.invalidation import REDIS_CHANNEL, publish
from gateway.keys.redis_client import RedisRefused, connect, translated
from gateway.keys.shared import SharedRecords, record_key
from tests.gateway.keys.conftest import Clocks, World
from tests.gateway.keys.test_invalidation import Listening
from tests.support.keys import NOW_MS
from tests.support.ports import free_port
from tests.support.redis_topologies import ClusterTopology, SentinelTopology, running, self_signed, tls_in_front_of


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "scheme is not known"),
        ("localhost:6379", "scheme is not known"),
        ("http://localhost", "scheme is not known"),
        ("redis://", "a host is missing"),
        ("redis://:hunter2@", "a host is missing"),
        ("redis://u:hun@ter2@h", "not percent-encoded"),
        ("redis://u:hunter2#@h", "not percent-encoded"),
        ("redis://h:port", "not a number from 1 to 65535"),
        ("redis://h:0", "not a number from 1 to 65535"),
        ("redis://a..b", "cannot be looked up"),
        ("redis://h/first", "the database is not a number"),
        ("redis://h1,h2", "several hosts need"),
        ("redis://h?nonsense", "not a URL"),
        ("redis://h?nonsense=hunter2", "options allowed here are"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("redis://[::1", "not a URL"),
        ("unix://", "names a path"),
        ("unix://host/path", "names a path"),
        ("unix:///path?db=x", "the database is not a number"),
        ("redis+sentinel://h", "names the service"),
        ("redis+sentinel://h,/service", "a host is missing"),
        ("redis+cluster://h/1", "no numbered databases"),
    ],
)
def test_a_malformed_url_says_what_is_wrong_and_never_shows_a_password(url, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        connect(url)
    assert "hunter2" not in str(refusal.value)


async def test_a_refusal_is_told_apart_from_silence(redis_url, tmp_path):
    for url, refused, text in (
        (redis_url.replace("://", "://nobody:hunter2@", 1), True, "Redis refused: "),
        (f"unix://{tmp_path}/redis.sock", False, "Redis did not answer: ConnectionError"),
    ):
        client = connect(url)
        with pytest.raises(StoreUnavailable, match=text) as told, translated():
            await client.ping()
        assert isinstance(told.value, RedisRefused) is refused
        assert "hunter2" not in str(told.value)
        await client.aclose()


async def test_what_is_no_failure_of_redis_passes_through():
    with pytest.raises(KeyError), translated():
        raise KeyError


@given(st.text() | st.text().map(lambda text: f"redis://u:hunter2hunter2@{text}"))
def test_any_text_is_a_url_or_a_config_error_without_the_password(url):
    told = ""
    try:
        connect(url)
    except ConfigError as error:
        told = str(error)
    assert "hunter2hunter2" not in told


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", {"host": "h", "port": 6379, "db": 0}),
        ("redis://u:p%40ss@[::1]:7000/3", {"host": "::1", "port": 7000, "db": 3, "username": "u", "password": "p@ss"}),
        ("rediss://:p@h?ssl_ca_certs=/ca.pem", {"host": "h", "password": "p", "ssl_ca_certs": "/ca.pem"}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        ("unix://:p@/run/redis.sock", {"path": "/run/redis.sock", "password": "p"}),
    ],
)
def test_a_url_is_taken_apart_as_written(url, expected):
    options = connect(url).connection_pool.connection_kwargs
    assert expected == {name: options[name] for name in expected}


def test_a_client_does_not_show_its_password():
    assert "hunter2" not in repr(connect("redis://u:hunter2@h"))
    assert "hunter2" not in repr(connect("unix://u:hunter2@/run/redis.sock"))


async def test_a_command_to_a_frozen_server_ends_within_the_bound(own_redis):
    client = connect(own_redis.url)
    await client.set("a", b"1")
    own_redis.freeze()
    with pytest.raises(RedisError):
        await client.get("a")
    own_redis.thaw()
    assert await client.get("a") == b"1"
    await client.aclose()


async def test_a_client_finds_its_server_again_after_a_restart(own_redis):
    client = connect(own_redis.url)
    await asyncio.gather(*(client.set(f"a{number}", b"1") for number in range(20)))
    await asyncio.to_thread(own_redis.stop)
    with pytest.raises(RedisError):
        await client.get("a1")
    await asyncio.to_thread(own_redis.start)
    assert await asyncio.gather(*(client.get(f"a{number}") for number in range(20))) == [None] * 20
    await client.aclose()


@pytest.mark.usefixtures("patient")
async def test_a_burst_larger_than_the_pool_waits_in_line(redis_url):
    client = connect(redis_url)
    await client.set("a", b"1")
    assert await asyncio.gather(*(client.get("a") for _ in range(500))) == [b"1"] * 500
    await client.aclose()


async def test_tls_verifies_the_server_and_carries_commands_and_messages(redis_server, redis_url, tmp_path):
    certificate, key = self_signed(tmp_path)
    async with tls_in_front_of(redis_server.socket, certificate, key) as port:
        trusting = connect(f"rediss://127.0.0.1:{port}?ssl_ca_certs={quote(str(certificate))}")
        await trusting.set("a", b"1")
        assert await trusting.get("a") == b"1"
        await trusting.aclose()
        wary = connect(f"rediss://127.0.0.1:{port}")
        with pytest.raises(RedisError):
            await wary.get("a")
        await wary.aclose()


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
async def test_a_server_that_is_not_there_is_a_redis_error_whatever_its_kind(scheme):
    client = connect(f"{scheme}://127.0.0.1:{free_port()}{'/service' if scheme.endswith('sentinel') else ''}")
    with pytest.raises(RedisError):
        await client.get("a")
    with pytest.raises(RedisError):
        await client.set("a", b"1")
    await client.aclose()


@pytest.fixture
def sentinel(tmp_path):
    with running(SentinelTopology(tmp_path)) as topology:
        yield topology


@pytest.fixture
def cluster(tmp_path):
    with running(ClusterTopology(tmp_path)) as topology:
        yield topology


async def eventually(client: Redis, *command: object) -> object:
    """The answer to a command once the client has found the server that gives it."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await client.execute_command(*command)
            except RedisError:
                await asyncio.sleep(0.05)


@pytest.mark.usefixtures("patient")
async def test_a_burst_larger_than_the_pool_waits_in_line_behind_sentinel_too(sentinel):
    client = connect(sentinel.url)
    await eventually(client, "SET", "a", "1")
    assert await asyncio.gather(*(client.get("a") for _ in range(200))) == [b"1"] * 200
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.set("b", "2").get("b")  # type: ignore[union-attr,attr-defined]
        assert await pipeline.execute() == [True, b"2"]
    await client.aclose()


async def test_sentinel_leads_to_the_primary_and_after_a_failover_to_the_next(sentinel, database, patient):
    async with World(database, sentinel.url, find_seconds=20.0) as world:
        record, gate = await world.key(), await world.gate()
        async with Listening(world, gate) as listening:
            await gate.lookup.fetch(record.key_id)
            await gate.settle()
            assert await world.redis.get(record_key(record.key_id))

            await asyncio.to_thread(sentinel.primary.kill)
            await eventually(world.redis, "SET", "written", "after the failover")
            with redis.Redis(port=sentinel.replica.port) as promoted:
                assert promoted.get("written") == b"after the failover"

            await listening.until(listening.up)
            listening.told.clear()
            await store.delete(world.admin, record.key_id, account_id="alice")
            await publish(world.redis, [record.key_id], now_ms=NOW_MS)
            await listening.until(lambda: listening.told.count(record.key_id) == 2)  # by either channel
            assert listening.metrics.invalidations == {"postgres": 1, "redis": 1}
            assert await gate.lookup.fetch(record.key_id) is None
            await gate.settle()


async def test_a_cluster_takes_records_removals_and_messages_and_survives_a_lost_node(cluster, database, patient):
    async with World(database, cluster.url, find_seconds=20.0) as world, Listening(world) as listening:
        assert isinstance(world.redis, RedisCluster)
        records, clocks = [await world.key() for _ in range(9)], Clocks()
        ids = [record.key_id for record in records]
        await listening.until(lambda: len(listening.told) == 9)
        first, second = await world.gate(clocks), await world.gate(clocks)
        await listening.until(lambda: not any(task.get_name() == "key-lookup" for task in asyncio.all_tasks()))
        assert await asyncio.gather(*map(first.lookup.fetch, ids)) == records
        await first.settle()
        assert await asyncio.gather(*map(second.lookup.fetch, ids)) == records
        assert second.store.asked == []

        await publish(world.redis, ids, now_ms=NOW_MS)
        await listening.until(lambda: listening.metrics.invalidations["redis"] == 1)
        assert await SharedRecords(world.redis, world.vault).read(ids) == {}

        await asyncio.to_thread(cluster.owner_of(record_key(ids[0])).kill)
        await eventually(world.redis, "SET", record_key(ids[0]), "again")
        await listening.until(listening.up)
        await publish(world.redis, ids[:1], now_ms=NOW_MS)
        await listening.until(lambda: listening.metrics.invalidations["redis"] == 2)


async def test_in_a_cluster_the_subscription_moves_from_a_lost_node_though_no_command_is_sent(cluster, database, patient):
    """A command that fails would have the client read the slots again."""
    async with World(database, cluster.url, find_seconds=20.0) as world, Listening(world) as listening:
        await asyncio.to_thread(cluster.owner_of(REDIS_CHANNEL).kill)
        await listening.until(lambda: listening.trust.redis_up_ms is None)
        await listening.until(listening.up)
        other = connect(cluster.url)
        await eventually(other, "PUBLISH", REDIS_CHANNEL, f"{NOW_MS} {(key_id := new_key_id())}")
        await listening.until(lambda: listening.told == [key_id])
        await other.aclose()


def test_what_uvloop_says_of_a_closed_connection_is_no_answer_and_another_defect_stays_one():
    """It ended the tasks that settle limits and write usage, for ever."""
    with pytest.raises(StoreUnavailable), translated():
        raise RuntimeError("unable to perform operation on <UnixTransport closed=True reading=False 0x7f>; the handler is closed")
    with pytest.raises(RuntimeError), translated():
        raise RuntimeError("another")


def test_a_server_that_closes_each_connection_at_once_is_no_answer_whatever_the_loop_says_of_it():
    """uvloop raises a ``RuntimeError`` out of redis-py's greeting when several connect at once."""

    async def fail(client: Redis) -> None:
        subscription = client.pubsub()
        for attempt in (client.ping, lambda: subscription.subscribe("a")):
            with pytest.raises(StoreUnavailable), translated():
                await attempt()
        await subscription.aclose()

    async def ask() -> None:
        async with await asyncio.start_server(lambda _reader, writer: writer.transport.abort(), "127.0.0.1", 0) as server:
            client = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            for _ in range(20):
                await asyncio.gather(*(fail(client) for _ in range(9)))
            await client.aclose()

    uvloop.run(ask())
