"""Two hundred reloads, half of them invalid, while requests come by schedule: nothing is lost, and every request is decided by one version.

Two versions differ in everything that decides a request: routes, the limit that an answer tells, and the server behind one name. A
mixture would show as an answer of one version's server with the other's limit, or from a route that this server's version does not have.
The version must be one that was in force between the request's sending and its answer: all workers have swapped when a reload is answered.
"""

import asyncio
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from tests.faults.conftest import VAULT
from tests.faults.paced import HUNDRED, Answered, now_us
from tests.support.running import PATIENCE, configuration, running

pytestmark = pytest.mark.xdist_group("faults")

RATE = 2_000
CONNECTIONS = 64
RELOADS = 200
LIMITS = {"a": 100_000_000, "b": 200_000_000}
PATHS = ("/both", "/only-a", "/both", "/only-b")


class Named(asyncio.Protocol):
    """An upstream that answers every request with its name."""

    open: ClassVar[list[asyncio.Transport]] = []

    def __init__(self, name: str) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name.encode()

    def connection_made(self, transport):
        self._transport = transport
        self.open.append(transport)

    def data_received(self, data):
        self._transport.write(self._answer * data.count(b"\r\n\r\n"))


@pytest.fixture
async def servers():
    """URL by version."""
    loop = asyncio.get_running_loop()
    listening = {name: await loop.create_server(lambda name=name: Named(name), "127.0.0.1", 0) for name in LIMITS}  # type: ignore[misc]
    yield {name: f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for name, server in listening.items()}
    for server in listening.values():
        server.close()
    for transport in Named.open:
        transport.abort()
    Named.open.clear()
    await asyncio.sleep(0)  # the loop closes what was aborted in its next turn


class Change(NamedTuple):
    """An applied reload: the version that it brought, when it was asked for and when it was answered (monotonic µs)."""

    version: str
    asked_us: int
    answered_us: int


def version_of(one: Answered) -> str:
    """Which version decided a request; a mixture of two, or an answer that neither gives, is told as it is."""
    if one.path != "/both" and one.status == 404:
        return "b" if one.path == "/only-a" else "a"
    whole = one.status == 200 and one.content in LIMITS and one.limit == LIMITS[one.content]
    return one.content if whole and one.path in ("/both", f"/only-{one.content}") else f"mixture: {one}"


def in_force(changes: list[Change], one: Answered) -> set[str]:
    """Versions that may decide a request: the last one that was in force when it was sent, and those asked for before its answer."""
    last = max(number for number, change in enumerate(changes) if change.answered_us < one.sent_us)
    return {change.version for change in changes[last:] if change.asked_us < one.answered_us}


class Sending:
    """The process that sends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hundred(self) -> None:
        """Wait until it has sent a hundred more."""
        assert await self._line() == HUNDRED

    async def end(self) -> tuple[list[Answered], int]:
        """Everything that was due by now, once it is answered, and how many milliseconds late the latest was sent."""
        self._process.stdin.close()
        lines = []
        while (line := await self._line()) != "":
            lines.append(line)
        assert await self._process.wait() == 0
        seen = [line.split(" ") for line in lines if line != HUNDRED]
        types = Answered.__annotations__.values()
        return [Answered(*(made(text) for made, text in zip(types, one, strict=True))) for one in seen[:-1]], int(seen[-1][0])

    async def _line(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return (await self._process.stdout.readline()).decode().rstrip("\n")


@asynccontextmanager
async def sending(address: tuple[str, int], key):
    arguments = RATE, CONNECTIONS, *address, key.key_id, key.secret.reveal().decode(), *PATHS
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.paced", *map(str, arguments)),
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Sending(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def write(tmp_path, own_postgres, own_redis, servers):
    """Writes a version, whole or with a mistake, and returns its path."""

    def written(version: str, *, valid: bool = True) -> Path:
        path = tmp_path / "gateway.toml"
        path.write_text(
            configuration(
                postgres=own_postgres.gateway_dsn,
                redis=own_redis.url,
                vault=VAULT,
                upstreams={"spot": servers[version]},
                routes=f"GET /both {'read' if valid else 'write'} spot\nGET /only-{version} read spot",
                workers=2,
                more=f'[limits]\nper_key = "{LIMITS[version]}/minute"',
            )
        )
        return path

    return written


async def test_requests_by_schedule_are_neither_lost_nor_decided_by_a_mixture(write, key, record_property):
    changes = [Change("a", 0, 0)]
    outcomes: Counter[str] = Counter()
    async with running(write("a")) as gateway, sending(gateway.public, key) as sender:
        for number in range(RELOADS):
            await sender.hundred()
            version, valid = "ba"[number // 2 % 2], number % 2 == 0
            write(version, valid=valid)
            asked_us = now_us()
            _status, report = await gateway.ask("POST", "/reload")
            outcomes[report["outcome"]] += 1
            if valid:
                changes.append(Change(version, asked_us, now_us()))
        seen, latest_ms = await sender.end()
    assert outcomes == {"applied": RELOADS // 2, "refused": RELOADS // 2}
    assert len(seen) >= 100 * RELOADS
    wrong = [(version_of(one), one) for one in seen if version_of(one) not in in_force(changes, one)]
    assert not wrong, f"{len(wrong)} of {len(seen)}: {wrong[:5]}"
    by_version = Counter(version_of(one) for one in seen)
    assert min(by_version[version] for version in LIMITS) > RELOADS
    seconds = (seen[-1].answered_us - seen[0].sent_us) / 1e6
    refused = sum(one.status == 404 for one in seen)
    counts = f"sent {len(seen):5}, passed {len(seen) - refused:5}, refused {refused:5}, lost 0, wrongly decided 0"
    record_property("measured", f"{f'{RELOADS} reloads':28} {counts}, {len(seen) / seconds:.0f} a second, at most {latest_ms} ms late")
