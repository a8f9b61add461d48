"""deploy.local.redis: the embedded server starts, survives what may happen to it, and says what is wrong."""

from pathlib import Path

import pytest
import redis

from deploy.local.process import StartError
from deploy.local.redis import RedisServer


def test_a_killed_server_starts_again_on_the_same_folder(own_redis: RedisServer):
    own_redis.kill()
    assert not own_redis.running()
    own_redis.start()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.ping()


def test_a_durable_server_remembers_across_a_stop(tmp_path: Path):
    server = RedisServer(tmp_path / "redis")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.set("seen", "1")
    server.stop()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("seen") == b"1"
    server.stop()


def test_a_test_finds_redis_empty(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_frozen_server_answers_nothing_until_it_is_thawed(own_redis: RedisServer):
    own_redis.freeze()
    with redis.Redis.from_url(own_redis.url, socket_timeout=0.1, retry=None) as client, pytest.raises(redis.TimeoutError):
        client.ping()
    own_redis.thaw()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.ping()


def test_a_broken_snapshot_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "dump.rdb").write_bytes(b"not a snapshot")
    with pytest.raises(StartError, match="Redis did not start: ") as raised:
        RedisServer(tmp_path / "redis").start()
    assert "\n" not in str(raised.value)
