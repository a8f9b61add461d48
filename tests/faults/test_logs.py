"""The log cannot be written, its disk is full or fills up: every request is answered all the same, and each lost line is counted."""

import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pytest

from gateway.runtime import clock
from tests.support.ports import free_row
from tests.support.running import RunningGateway

pytestmark = pytest.mark.xdist_group("faults")

KINDS = ("read", "trade 1", "trade 2")
DROPPED = "gerbang_log_lines_dropped_total"
EVERY_REQUEST = "[telemetry]\naccess_log = 1.0"


@pytest.fixture
def log(tmp_path) -> Iterator[IO[bytes]]:
    with (tmp_path / "log").open("ab") as file:
        yield file


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    """Linux's own full disk (full(4))."""
    with Path("/dev/full").open("wb") as file:
        yield file


@pytest.fixture
def logging_to(write):
    """Starts a gateway that logs to a file, as one started with ``2>>log``: ``async with logging_to(file) as gateway``."""
    ports = dict(zip(("public", "ops"), range(free_row(), 1 << 16), strict=False))

    def configured(workers: int) -> Path:
        path = write(more=EVERY_REQUEST, workers=workers)
        text = path.read_text()
        for name, number in ports.items():
            text = text.replace(f'{name} = "127.0.0.1:0"', f'{name} = "127.0.0.1:{number}"')
        path.write_text(text)
        return path

    @asynccontextmanager
    async def started(file: IO[bytes], *, workers: int = 2) -> AsyncIterator[RunningGateway]:
        gateway = RunningGateway(configured(workers))
        await gateway.start(log=file)
        try:
            await gateway.serving(**ports)
            yield gateway
        finally:
            await gateway.close()

    return started


def limit(pids: list[int], size: int) -> None:
    """Let none of these processes make a file longer than that: the last line is cut, and those after it fail, as on a full disk."""
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def size(log: IO[bytes]) -> int:
    return os.fstat(log.fileno()).st_size


def lines_of(log: IO[bytes]) -> list[bytes]:
    return [line for line in Path(log.name).read_bytes().splitlines() if line]


def whole(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def milliseconds(line: dict[str, Any]) -> int:
    return int(datetime.fromisoformat(line["timestamp"]).timestamp() * 1_000)


async def test_the_log_cannot_be_written(start, load, tell):
    async with start(more=EVERY_REQUEST) as gateway, load(gateway) as running:
        gateway.leave_log()
        for kind in KINDS:
            await running.some(kind, 20, "200")
        assert await gateway.metric(DROPPED) > 0
    for kind in KINDS:
        assert set(running.outcomes(kind)) == {"200"}, running.table()
    tell("log not writable", running)


async def test_the_disk_of_the_log_fills_up_and_has_room_again(logging_to, load, log, tell):
    # One worker: what another process appends to the stump of the line that was cut is lost with it, and would be the one line to miss.
    async with logging_to(log, workers=1) as gateway:
        async with load(gateway) as running:
            pids = [gateway.pid, *await gateway.worker_pids()]
            full = size(log) + 5_000
            limit(pids, full)
            await running.until_counted(DROPPED, more_than=20)
            for kind in KINDS:
                await running.some(kind, 20, "200")
            assert size(log) == full
            limit(pids, resource.RLIM_INFINITY)
            room, room_ms = clock.monotonic_ms(), clock.now_ms()
            for kind in KINDS:
                await running.some(kind, 20, "200")
        dropped = await gateway.metric(DROPPED)
        brief = await gateway.metric("gerbang_refusals_brief_total")  # of forged requests: more than are explained and logged
    for kind in (*KINDS, "forged"):
        assert set(running.outcomes(kind)) == {"invalid_credentials" if kind == "forged" else "200"}, running.table()
    lines = [whole(line) for line in lines_of(log)]
    requests = [line for line in lines if line is not None and line["event"] == "request"]
    assert lines.count(None) <= 1, "the stump"
    assert len(requests) + dropped + brief >= len(running.seen)
    later = sum(milliseconds(line) >= room_ms and line["status"] < 400 for line in requests)
    assert later >= sum(one.sent_ms > room and one.outcome == "200" for one in running.seen) > 60
    tell("disk of the log full", running, note=f"lines logged {len(requests)}, dropped and counted {dropped:.0f}")


async def test_the_disk_of_the_log_is_full_from_the_start(logging_to, load, full, tell):
    async with logging_to(full) as gateway:
        async with load(gateway) as running:
            victim, _other = await gateway.worker_pids()
            os.kill(victim, signal.SIGKILL)
            await running.until_counted("gerbang_worker_restarts_total")
            assert (await gateway.ask("POST", "/reload"))[0] == 200
            for kind in KINDS:
                await running.some(kind, 20, "200")
            assert await gateway.metric(DROPPED) > 60
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    for kind in (*KINDS, "forged"):
        assert set(running.outcomes(kind)) <= {"invalid_credentials" if kind == "forged" else "200", "lost"}, running.table()
    # Of the worker that was killed: each client has one request in flight.
    assert sum(one.outcome == "lost" for one in running.seen) <= 5, running.table()
    tell("no room for the log at all", running)
