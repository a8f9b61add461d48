"""Resources that all share, used up to their bound while honest bots trade: real processes.

How long others can keep the gate's event loop is read off the processor time that its worker uses while a bot's request is answered: a
request that arrives early in a turn waits for its end. Whoever else uses the machine has no part in it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from redis import Redis

from deploy.signing import SigningKey, log_in
from gateway.keys.sql import MOST_CHANGES
from gateway.keys.vault import Vault
from gateway.net.descriptors import RESERVED
from gateway.runtime import clock
from gateway.websocket.frames import TEXT, frame
from tests.abuse.attacks import Scene, signed, whole_answer
from tests.abuse.honest import EACH, HERE, Honest, p99
from tests.abuse.tunnels import HANDSHAKE
from tests.abuse.world import HONEST, QUIET, VAULT
from tests.support.keys import add_key
from tests.support.running import PATIENCE, RunningGateway

WORK_MS: Final = 50.0 if QUIET else 100.0
"""Processor time that the gate's worker may use while a request is answered, most of it for others: longer than any turn of its loop."""
OPS_CONNECTIONS: Final = 400
"""To the ops port, as the file descriptors allow."""
SHORT: Final = "[cache]\nlocal_ttl_ms = 2000\n"
"""How long a key is used at most that a gap in the feed has put in doubt."""
UNNOTICED: Final = "DELETE FROM api_keys WHERE account_id = 'leaver'; DELETE FROM key_changes; DELETE FROM key_feed_marks"
"""What a server does not know that takes over without the latest changes."""
OF_EVERY_KEY: Final = "INSERT INTO key_changes (key_id) VALUES ('*')"
"""As when a table is truncated."""
OF_EACH: Final = "DELETE FROM api_keys WHERE account_id = 'stayer'"
ABSENT: Final = 'key_fetches_total{outcome="absent",store="postgres"}'
FOUND: Final = 'key_fetches_total{outcome="found",store="postgres"}'
TUNNELS, SESSIONS, LEAVERS = 2_000, 200, 20
"""Open tunnels; those of them that are sessions; those whose keys are deleted."""
CHANGES: Final = "INSERT INTO key_changes (key_id) SELECT $1 || lpad(n::text, 20, '0') FROM generate_series(1, $2) AS n"
READS: Final = (MOST_CHANGES, MOST_CHANGES, MOST_CHANGES, 5 * MOST_CHANGES)
FEED_MEMORY: Final = 120 << 20
"""Bytes that a worker may grow by through these reads of the feed, at any moment of them: what it remembers of one, and one."""


@pytest.fixture
async def owner(own_postgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def trading(keys, service, own_redis):
    """``async with trading(gateway) as bots``: honest ones, of whose requests none is refused or lost."""

    @asynccontextmanager
    async def trading(gateway: RunningGateway):
        (worker,) = await gateway.worker_pids()
        redis = None if QUIET else Redis.from_url(own_redis.url).info("server")["process_id"]
        async with Honest(Scene(gateway.public, keys[0], keys[HONEST:]), keys[:HONEST], worker, service.pid, redis) as bots:
            await asyncio.sleep(0.5)  # what their first requests cost is of no interest
            bots.begin()
            yield bots
            assert bots.wrong == []
            assert len(bots.taken_ms) > 20

    return trading


async def until(gateway: RunningGateway, metric: str, least: float) -> None:
    """Wait until this one of its metrics is as large."""
    value, limit = await gateway.metric(f"gerbang_{metric}"), time.monotonic() + PATIENCE
    while value < least:
        assert time.monotonic() < limit, f"{metric} is {value}, not {least}: {gateway.told()[-2_000:]}"
        await asyncio.sleep(0.05)
        value = await gateway.metric(f"gerbang_{metric}")


class Held(asyncio.Protocol):
    """A connection that is held open."""

    def __init__(self) -> None:
        self.received = b""
        self.is_closed = False

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_closed = True


async def hold(stack: AsyncExitStack, target: tuple[str, int], address: str, first: bytes) -> Held:
    """Open a connection from that address and send what comes first; it is closed with the stack."""
    transport, connection = await asyncio.get_running_loop().create_connection(Held, *target, local_addr=(address, 0))
    stack.callback(transport.abort)
    transport.write(first)
    return connection


# -- connections to the ops port


async def test_one_address_cannot_hold_all_connections_to_the_ops_port(start, trading, record_property):
    """Every other address is told whether the gate is ready, and its metrics, and the bots trade."""
    sent = (b"", b"GET /metrics HTTP/1.1\r\nHost: gate\r\n", b"GET /health HTTP/1.1\r\nHost: gate\r\n\r\n")
    async with (
        start(descriptors=RESERVED + 2 * OPS_CONNECTIONS) as gateway,
        trading(gateway) as bots,
        AsyncExitStack() as held,
    ):
        some = [await hold(held, gateway.ops, "127.0.9.1", sent[number % len(sent)]) for number in range(OPS_CONNECTIONS + 50)]
        for path in ("/ready", "/metrics") * 10:
            assert await asked_anew(gateway, path) == 200
            await asyncio.sleep(4 * EACH)
        assert (await gateway.ask("POST", "/reload"))[0] == 200
        number_held = sum(not connection.is_closed for connection in some)
        assert number_held == OPS_CONNECTIONS // 2
    record_property("measured", f"{number_held} connections to the ops port held by one address: others are answered, "
                    f"bots' p99 {p99(bots.served_ms):.1f} ms, {len(bots.taken_ms)} requests, 0 refused or lost")  # fmt: skip


async def asked_anew(gateway: RunningGateway, path: str) -> int:
    """The status that another address is answered on a connection of its own, as a readiness probe's."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*gateway.ops, local_addr=(HERE, 0))
        writer.write(b"GET %b HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n" % path.encode())
        status, _ = await whole_answer(reader)
        writer.close()
        return status


# -- open tunnels, whose keys are all checked again


def handshake(key: SigningKey) -> bytes:
    """Of a tunnel that a key opens."""
    return signed(key, "GET", "/account-stream").removesuffix(b"\r\n") + (HANDSHAKE % b"").partition(b"Host: gate\r\n")[2]


def session(key: SigningKey) -> bytes:
    """The handshake of a session, and the log-in that comes first in it."""
    return HANDSHAKE % b"/session" + frame(TEXT, log_in("mobee", key, now_ms=clock.now_ms()).encode(), mask=b"\0\0\0\0")


@pytest.fixture
async def holders(owner) -> list[SigningKey]:
    """A key for each tunnel."""
    vault, accounts = Vault.parse(VAULT), ["leaver"] * LEAVERS + ["stayer"] * (TUNNELS - LEAVERS)
    async with owner.transaction():
        records = [await add_key(owner, vault, account_id=account) for account in accounts]
    return [SigningKey(record.key_id, record.secret.reveal().decode()) for record in records]


async def test_the_keys_of_all_tunnels_are_checked_again_and_an_honest_bot_waits_for_none_of_them(
    start, trading, holders, owner, record_property
):
    """After a gap in the feed: each is used while it is looked up again. After a change of every key: none is used before. And when each
    of them is deleted at once.
    """
    async with start(SHORT) as gateway, trading(gateway) as bots, AsyncExitStack() as opened:
        tunnels = []
        for number, key in enumerate(holders):
            first = session(key) if number % (TUNNELS // SESSIONS) == 0 else handshake(key)
            tunnels.append(await hold(opened, gateway.public, f"127.0.9.{1 + number // 90}", first))
        await until(gateway, "tunnels", TUNNELS)
        await until(gateway, 'requests_admitted_total{route="GET /session login"}', SESSIONS)
        for change, looked_up, left in ((UNNOTICED, FOUND, LEAVERS), (OF_EVERY_KEY, FOUND, LEAVERS), (OF_EACH, ABSENT, TUNNELS)):
            bots.begin()
            before = await gateway.metric(f"gerbang_{looked_up}")
            await owner.execute(change)
            await until(gateway, 'tunnels_closed_total{reason="key no longer valid"}', left)
            await until(gateway, looked_up, before + TUNNELS - LEAVERS)
            await asyncio.sleep(0.5)
            assert [tunnel.is_closed for tunnel in tunnels] == [True] * left + [False] * (TUNNELS - left)
            told = (f"keys of {TUNNELS} tunnels: {change[:40]}…: bots' worst {max(bots.served_ms):.0f} ms, of the gate's work at most "
                    f"{max(bots.work_ms):.1f} ms, {len(bots.taken_ms)} requests, {len(bots.wrong)} refused or lost")  # fmt: skip
            record_property("measured", told)
            assert bots.wrong == []
            assert max(bots.work_ms) < WORK_MS, told
        assert all(b"\x03\xf0key no longer valid" in tunnel.received for tunnel in tunnels), "closed with 1008"


# -- the longest read of the feed of changes


async def test_the_longest_reads_of_the_feed_take_bounded_memory_and_no_long_turn(gateway, trading, owner, record_property):
    """Of so many changes that they are not read, too."""
    (worker,) = await gateway.worker_pids()
    measured = []
    async with trading(gateway) as bots:
        before = resident(worker)
        forget_peak(worker)
        for number, changes in enumerate(READS):
            bots.work_ms = []
            known = await gateway.metric("gerbang_key_feed_changes_total")
            await owner.execute(CHANGES, f"gbk{number}", changes)
            async with asyncio.timeout(PATIENCE):
                while not has_gap(gateway) and await gateway.metric("gerbang_key_feed_changes_total") < known + changes:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # for what follows a read
            grown = resident(worker, "VmHWM") - before
            measured.append(f"{changes} changes: +{grown >> 20} MiB at most, a request cost the gate at most {max(bots.work_ms):.1f} ms")
            record_property("measured", measured[-1])
            assert max(bots.work_ms) < WORK_MS, measured
            assert grown < FEED_MEMORY, measured
    assert has_gap(gateway)


def has_gap(gateway: RunningGateway) -> bool:
    return any(line.get("event") == "key_feed_gap" for line in gateway.log)


def forget_peak(process: int) -> None:
    Path(f"/proc/{process}/clear_refs").write_text("5", "ascii")


def resident(process: int, name: str = "VmRSS") -> int:
    """Bytes, now or (``VmHWM``) at most since :func:`forget_peak`: proc(5)."""
    line = next(line for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10
