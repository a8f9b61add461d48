"""Round trips to real Redis without redis-py between commands and replies."""

import asyncio

import hiredis
import pytest

from gateway.keys import redis_client
from gateway.keys.redis_line import RedisLine, packed, packed_set
from gateway.runtime.tasks import spawn

CLIENT_ID = packed(("CLIENT", "ID"))


@pytest.fixture
async def client(own_redis):
    """redis-py's client for a Redis of its own."""
    made = redis_client.connect(own_redis.url, time_each_reply=False)
    yield made
    own_redis.thaw()
    await made.aclose()


@pytest.fixture
def line(client):
    return RedisLine.of(client)


async def test_replies_come_in_the_order_of_the_commands_and_errors_among_them(line):
    commands = [("SET", "a", b"1", "PX", 60_000, "NX"), ("SET", "a", b"2", "NX"), ("INCR", "a"), ("LPUSH", "a", "x"), ("GET", "a")]
    *replies, error, last = await line.ask(b"".join(map(packed, commands)), len(commands))
    assert replies == [b"OK", None, 2]
    assert isinstance(error, hiredis.ReplyError)
    assert last == b"2"


async def test_one_connection_serves_one_after_the_other_and_several_at_once_have_one_each(line):
    first, again = [(await line.ask(CLIENT_ID, 1))[0] for _ in range(2)]
    assert first == again
    assert len({reply for (reply,) in await asyncio.gather(*(line.ask(CLIENT_ID, 1) for _ in range(3)))}) == 3


async def test_the_late_reply_of_who_gave_up_is_nobodys(line, own_redis):
    await line.ask(CLIENT_ID, 1)
    own_redis.freeze()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await line.ask(packed(("SET", "late", "1")), 1)
    own_redis.thaw()
    for number in range(20):
        assert await line.ask(packed(("ECHO", str(number))), 1) == [b"%d" % number]


async def test_what_is_lost_fails_and_is_made_anew(line, own_redis):
    await line.ask(CLIENT_ID, 1)
    own_redis.freeze()
    asking = spawn(line.ask(CLIENT_ID, 1), name="ask")
    await asyncio.sleep(0)
    own_redis.kill()
    with pytest.raises(ConnectionError):
        await asking
    own_redis.start()
    assert len(await line.ask(CLIENT_ID, 1)) == 1


async def test_a_server_that_is_no_primary_any_more_is_left(line, client):
    (before,) = await line.ask(CLIENT_ID, 1)
    await client.replicaof("127.0.0.1", "1")
    (error,) = await line.ask(packed(("SET", "a", "1")), 1)
    assert str(error).startswith("READONLY")
    await client.replicaof("NO", "ONE")
    assert await line.ask(CLIENT_ID, 1) != [before]


async def test_a_connection_on_which_comes_what_nobody_asked_for_is_left(line, client):
    await line.ask(packed(("SUBSCRIBE", "news")), 1)
    assert await client.publish("news", "x") == 1
    async with asyncio.timeout(5):
        while await client.pubsub_numsub("news") != [(b"news", 0)]:
            await client.ping()
    assert len(await line.ask(CLIENT_ID, 1)) == 1


async def test_closing_the_client_closes_them_too(own_redis):
    watching = redis_client.connect(own_redis.url)
    client = redis_client.connect(own_redis.url, time_each_reply=False)
    line = RedisLine.of(client)
    await asyncio.gather(*(line.ask(CLIENT_ID, 1) for _ in range(3)))
    async with asyncio.timeout(5):
        await client.aclose()
        while len(await watching.client_list()) > 1:
            await watching.ping()
    await watching.aclose()


def test_a_cluster_has_none():
    assert RedisLine.of(redis_client.connect("redis+cluster://127.0.0.1:1")) is None


@pytest.mark.parametrize(
    ("name", "value", "ttl_ms"), [("gerbang:{gbk_a}:replay:00", b"trade", 1), ("n", b"read", 71_000), ("\u00e9", b"", 10**9)]
)
def test_a_claim_is_packed_as_any_other_command(name, value, ttl_ms):
    assert packed_set(name.encode(), value, ttl_ms) == packed(("SET", name, value, "PX", ttl_ms, "NX"))
