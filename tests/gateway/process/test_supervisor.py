"""The parent and its workers, as processes: started, killed, drained."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import wheel
from tests.support.running import PATIENCE, RunningGateway, running
from tests.support.wire import RawClient

ROUTES = "GET /public/{name} public spot"
ASK = b"GET /public/x HTTP/1.1\r\nHost: gate\r\n\r\n"
TIME = b"GET /gateway/v1/time HTTP/1.1\r\nHost: gate\r\n\r\n"


@pytest.fixture
def write(write_configuration):
    """Writes the configuration and returns its path."""

    def written(routes=ROUTES, delay_ms=0, **changes):
        path = write_configuration(routes=routes, **changes)
        path.write_text(path.read_text().replace("[listen]\n", f"[listen]\nshutdown_delay_ms = {delay_ms}\n"))
        return path

    return written


async def connect(gateway: RunningGateway) -> RawClient:
    return RawClient(*await asyncio.open_connection(*gateway.public))


async def gone(pid: int) -> None:
    """Wait until a process has ended, whoever its parent is."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(watch, ended.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
    finally:
        asyncio.get_running_loop().remove_reader(watch)
        os.close(watch)


async def refused(gateway: RunningGateway) -> None:
    """Connect until nobody listens any more.

    :raises ConnectionError: so it is
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            await (await connect(gateway)).close()


# -- from start to end


async def test_it_serves_and_ends_with_nothing_left(write):
    async with running(write(workers=2)) as gateway:
        client = await connect(gateway)
        assert (await client.ask(ASK)).status == 200
        workers = await gateway.worker_pids()
        assert len(set(workers)) == 2
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        for pid in workers:
            await gone(pid)
        await client.close()


@pytest.mark.parametrize("program", [wheel.program("python"), Path(sys.executable)])
async def test_it_says_whether_its_workers_run_machine_code(write, program):
    async with running(write(), program=program) as gateway:
        said = await gateway.event("ready")
        (worker,) = await gateway.worker_pids()
        mapped = "/gateway/server/plane." in await asyncio.to_thread(Path(f"/proc/{worker}/maps").read_text)
        assert mapped is said["compiled"] is (wheel.is_current() and program == wheel.program("python"))
        assert (await gateway.ask("GET", "/config"))[1]["compiled"] is mapped
        assert await gateway.metric("gerbang_compiled") == mapped


async def test_ctrl_c_ends_it_too(write):
    async with running(write()) as gateway:
        gateway.signal(signal.SIGINT)
        assert await gateway.ended() == 0


async def test_a_request_in_flight_is_finished_before_it_ends(write, upstream):
    release = asyncio.Event()

    async def slowly(side, _request):
        await release.wait()
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    upstream.script = slowly
    async with running(write()) as gateway:
        client = await connect(gateway)
        client.send(ASK)
        await upstream.got(1)
        gateway.signal(signal.SIGTERM)
        await gateway.event("draining")
        _status, ready = await gateway.ask("GET", "/ready")
        assert ready["missing"][0] == "shutting down"
        release.set()
        assert (await client.response()).body == b"slow"
        assert await gateway.ended() == 0
        await client.close()


async def test_a_draining_gateway_takes_no_new_connection(write, upstream):
    release = asyncio.Event()

    async def slowly(side, _request):
        await release.wait()

    upstream.script = slowly
    async with running(write()) as gateway:
        client = await connect(gateway)
        client.send(ASK)
        await upstream.got(1)
        gateway.signal(signal.SIGTERM)
        await gateway.event("draining")
        with pytest.raises(ConnectionError):
            await refused(gateway)
        release.set()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        await client.close()


async def test_a_stopping_gateway_takes_connections_while_it_says_that_it_is_not_ready(write, upstream):
    async with running(write(delay_ms=600_000)) as gateway:
        gateway.signal(signal.SIGTERM)
        await gateway.event("leaving")
        status, told = await gateway.ask("GET", "/ready")
        assert (status, told["missing"]) == (503, ["shutting down"])
        client = await connect(gateway)
        client.send(ASK)
        assert (await client.response()).status == 200
        gateway.signal(signal.SIGTERM)
        await gateway.event("draining")
        assert await gateway.ended() == 0
        await client.close()


async def test_the_delay_of_a_stop_ends_by_itself(write):
    async with running(write(delay_ms=1)) as gateway:
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0


async def test_a_second_signal_ends_the_drain(write, upstream):
    async def never(_side, _request):
        await asyncio.Event().wait()

    upstream.script = never
    async with running(write()) as gateway:
        client = await connect(gateway)
        client.send(ASK)
        await upstream.got(1)
        gateway.signal(signal.SIGTERM)
        await gateway.event("draining")
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert await client.rest() == b""
        await client.close()


async def test_workers_do_not_outlive_a_killed_parent(write):
    async with running(write(workers=2)) as gateway:
        workers = await gateway.worker_pids()
        gateway.signal(signal.SIGKILL)
        await gateway.ended()
        for pid in workers:
            await gone(pid)


# -- what prevents a start


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"postgres": "postgresql://x@127.0.0.1:1/x"}, "stores.postgres: PostgreSQL did not answer"),
        ({"vault": "k1:short"}, "vault.keys: key 1"),
        ({"routes": "GET /a public futures"}, "routes[0].upstream: there is no [upstreams.futures]"),
        ({"more": "[assertion]\nkeys = 'gateway.toml'"}, "gateway.toml: File exists"),
    ],
)
async def test_what_prevents_a_start_is_one_line_and_status_1(write, changes, told):
    gateway = RunningGateway(write(**changes))
    await gateway.start()
    assert await gateway.ended() == 1
    lines = [line["text"] for line in gateway.log if "text" in line]
    assert len(lines) == 1
    assert lines[0].startswith("gerbang: ")
    assert told in lines[0]
    await gateway.close()


async def test_a_gateway_starts_while_redis_is_away_and_says_so(write, tmp_path):
    async with running(write(redis=f"unix://{tmp_path}/redis.sock")) as gateway:
        told = await gateway.event("starts_degraded")
        assert (told["away"], told["level"]) == ("redis", "warning")
        status, ready = await gateway.ask("GET", "/ready")
        assert (status, ready["status"]) == (200, "degraded")
        assert "redis" in ready["degraded"]
        client = await connect(gateway)
        client.send(ASK)
        assert (await client.response()).status == 200
        await client.close()


async def test_a_database_without_tables_says_what_to_run(write, postgres):
    gateway = RunningGateway(write(postgres=postgres.dsn("postgres", "gerbang_gateway")))
    await gateway.start()
    assert await gateway.ended() == 1
    assert "gerbang migrate" in gateway.told()
    await gateway.close()


async def test_a_busy_port_is_named(write):
    with socket.create_server(("127.0.0.1", 0)) as other:
        path = write()
        port = other.getsockname()[1]
        path.write_text(path.read_text().replace('public = "127.0.0.1:0"', f'public = "127.0.0.1:{port}"'))
        gateway = RunningGateway(path)
        await gateway.start()
        assert await gateway.ended() == 1
        assert gateway.log == [{"text": f"gerbang: listen.public: cannot listen on 127.0.0.1:{port}: Address already in use"}]
        await gateway.close()


# -- a worker dies


async def test_a_killed_worker_is_replaced_and_what_waited_in_its_queue_is_served(write):
    async with running(write()) as gateway:
        (before,) = await gateway.worker_pids()
        os.kill(before, signal.SIGSTOP)
        client = await connect(gateway)  # by the kernel: nobody accepts it
        client.send(ASK)
        os.kill(before, signal.SIGKILL)
        assert (await client.response()).status == 200
        await gateway.event("worker_restarted", worker=0)
        (after,) = await gateway.worker_pids()
        assert after != before
        await client.close()


async def test_other_workers_go_on_when_one_is_killed(write):
    async with running(write(workers=2)) as gateway:
        clients = [await connect(gateway) for _ in range(16)]
        for client in clients:
            assert (await client.ask(TIME)).status == 200
        victim, other = await gateway.worker_pids()
        os.kill(victim, signal.SIGKILL)
        survived = 0
        for client in clients:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                survived += (await client.ask(TIME)).status == 200
            await client.close()
        assert 0 < survived < 16
        await gateway.event("worker_restarted", worker=0)
        assert (await gateway.worker_pids())[1] == other


async def test_counters_do_not_fall_when_a_worker_dies(write):
    sample = 'gerbang_requests_admitted_total{route="GET /gateway/v1/time"}'
    async with running(write()) as gateway:
        client = await connect(gateway)
        for _ in range(3):
            await client.ask(TIME)
        await client.close()
        assert await gateway.metric(sample) == 3
        os.kill((await gateway.worker_pids())[0], signal.SIGKILL)
        await gateway.event("worker_restarted")
        assert await gateway.metric(sample) == 3
        assert await gateway.metric("gerbang_worker_restarts_total") == 1
        assert await gateway.metric("gerbang_connections") == 0


async def test_a_worker_comes_back_while_the_stores_are_away(write, own_redis):
    async with running(write(redis=own_redis.url)) as gateway:
        own_redis.stop()
        os.kill((await gateway.worker_pids())[0], signal.SIGKILL)
        await gateway.event("worker_restarted")
        client = await connect(gateway)
        assert (await client.ask(ASK)).status == 200
        status, ready = await gateway.ask("GET", "/ready")
        assert (status, ready["status"]) == (200, "degraded")
        assert "redis" in ready["degraded"]
        await client.close()
