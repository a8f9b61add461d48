"""Nobody without a key hurts who has one, and nobody with a key hurts the others: real processes, one attack after the other.

Honest bots send signed reads and orders all the while. Asserted everywhere: no refusal, no loss, bounded memory, and that the gate spends
less than a hundredth of the time in turns of its event loop that take over 5 ms of processor time, so that 99 of 100 requests meet none;
three hundredths where it ends TLS. The gate counts that itself, and no other process has a part in it. How much slower the bots' answers
become in all is printed, and asserted where the machine has nothing else to do (``nox -s abuse``, which sets ``GERBANG_QUIET_MACHINE``).
"""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg
import pytest

from deploy.signing import SigningKey
from gateway.keys import redis_client
from gateway.keys.ids import new_key_id
from gateway.keys.vault import Vault
from tests.abuse.attackers import Attackers, attackers
from tests.abuse.attacks import ATTACKS, Attack, Scene, signed
from tests.abuse.honest import Honest, p99
from tests.abuse.proxied import PROXIED_ATTACKS
from tests.abuse.service import trading_service
from tests.abuse.tunnels import TUNNEL_ATTACKS
from tests.abuse.world import HONEST, VAULT, settings
from tests.support.certificates import self_signed
from tests.support.keys import add_key
from tests.support.running import RunningGateway, running

QUIET: Final = bool(os.environ.get("GERBANG_QUIET_MACHINE"))
SECONDS: Final = 10.0 if QUIET else 2.0
REST: Final = 0.3
"""Seconds after an attack in which what it left is closed."""
LONG_TURNS: Final = 0.01
LONG_TURNS_TLS: Final = 0.03
"""The start of TLS is no item of anybody's turn yet."""
WORST_RATIO: Final = 3
MEMORY: Final = 96 << 20
"""Bytes that a worker may grow by, through all of it: the memory for contents, buffers of sockets, tables."""


@pytest.fixture
async def service():
    async with trading_service() as url:
        yield url


@pytest.fixture
async def keys(own_postgres):
    """Keys of honest accounts, and thirty of one other account."""
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    vault = Vault.parse(VAULT)
    accounts = [*(f"honest {number}" for number in range(HONEST)), *["greedy"] * 30]
    made = [await add_key(connection, vault, key_id=new_key_id(), account_id=account) for account in accounts]
    await connection.close()
    return [SigningKey(record.key_id, record.secret.reveal().decode()) for record in made]


@pytest.fixture
async def start(tmp_path: Path, own_postgres, own_redis, service: str):
    """Starts the gateway: ``start("further settings")``."""

    @asynccontextmanager
    async def start(more: str = ""):
        path = tmp_path / "gateway.toml"
        path.write_text(settings(own_postgres.gateway_dsn, own_redis.url, service, more))
        async with running(path) as gateway:
            yield gateway

    return start


@pytest.fixture
async def gateway(start):
    async with start() as gateway:
        yield gateway


class Seen(NamedTuple):
    """What bots and gate have seen of an attack."""

    p99_ms: float
    long_turns: float
    """Share of the time."""
    told: str


class Ground:
    """A gate, honest bots, attackers, and what the bots' requests take without an attack."""

    def __init__(self, gateway: RunningGateway, bots: Honest, others: Attackers) -> None:
        self._gateway, self._bots, self._others = gateway, bots, others
        self._begun = 0
        """Resident bytes of the worker."""

    async def quiet(self) -> float:
        """p99 of the bots' requests while the attackers do nothing."""
        await asyncio.sleep(REST)
        self._bots.begin()
        await asyncio.sleep(SECONDS / 2)
        assert not self._bots.wrong
        self._begun = self._begun or await self._resident()
        return p99(self._bots.taken_ms)

    async def attacked(self, attack: Attack, number: int) -> Seen:
        """Attack, and see that nothing is refused or lost."""
        bots = self._bots
        await asyncio.sleep(REST)
        long_before = await self._long_turns()
        await self._others.attack(attack.name, attack.from_addresses(number))
        bots.begin()
        await asyncio.sleep(SECONDS)
        await bots.opens_a_tunnel()
        taken_ms, work_ms = p99(bots.taken_ms), p99(bots.work_ms)
        long_turns = (await self._long_turns() - long_before) / SECONDS
        grown = (await self._resident() - self._begun) >> 20
        done = await self._others.attack()
        assert done.broken == [], f"{attack.name} did not attack"
        assert bots.wrong == [], attack.name
        assert bots.taken_ms, attack.name
        assert grown << 20 <= MEMORY, attack.name
        told = (
            f"{attack.name:<34} {len(bots.taken_ms):>4} honest requests, 0 refused or lost, p99 {taken_ms:>5.1f} ms, of the gate's work "
            f"{work_ms:>4.1f} ms, long turns {long_turns:.1%}, {done.sent_bytes / SECONDS / 1e6:>5.1f} MB/s sent, worker {grown:+} MiB"
        )
        return Seen(taken_ms, long_turns, told)

    async def _long_turns(self) -> float:
        return await self._gateway.metric("gerbang_long_turns_seconds_total")

    async def _resident(self) -> int:
        return int(await self._gateway.metric('gerbang_worker_resident_bytes{worker="0"}'))


async def attacked(attacks: tuple[Attack, ...], gateway: RunningGateway, keys: list[SigningKey], record_property, certificate="") -> None:
    """One attack after the other, while honest bots trade. One that the bots suffer from has to show it twice."""
    scene = Scene(gateway.public, keys[0], keys[HONEST:], certificate)
    (worker,) = await gateway.worker_pids()
    async with Honest(scene, keys[:HONEST], worker) as bots, attackers(scene) as others:
        ground = Ground(gateway, bots, others)
        quiet_ms = await ground.quiet()
        record_property("measured", f"without an attack, before: p99 {quiet_ms:.1f} ms, of the gate's work {p99(bots.work_ms):.1f} ms")
        suffered = {}
        for number, attack in enumerate(attacks):
            seen = await ground.attacked(attack, number)
            record_property("measured", seen.told)
            if harms(seen, quiet_ms, scene):
                quiet_ms = max(quiet_ms, await ground.quiet())
                seen = await ground.attacked(attack, number)
                record_property("measured", f"again: {seen.told}")
                if harms(seen, quiet_ms, scene):
                    suffered[attack.name] = seen.told
        record_property("measured", f"without an attack, after: p99 {await ground.quiet():.1f} ms")
    assert suffered == {}


def harms(seen: Seen, quiet_ms: float, scene: Scene) -> bool:
    """Whether it makes the gate, or on a machine that is quiet the bots' answers, too slow."""
    return seen.long_turns > (LONG_TURNS_TLS if scene.tls else LONG_TURNS) or (QUIET and seen.p99_ms > WORST_RATIO * quiet_ms)


async def test_no_attack_costs_an_honest_bot_a_request(gateway, keys, record_property):
    await attacked((*ATTACKS, *TUNNEL_ATTACKS), gateway, keys, record_property)


async def test_nor_does_any_on_a_gate_with_tls_behind_a_proxy_that_it_trusts(start, keys, tmp_path, record_property):
    certificate, key = self_signed(tmp_path / "tls", "127.0.0.1")
    more = f'[client_ip]\ntrusted_proxies = ["127.0.0.0/8"]\n[listen.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    async with start(more) as gateway:
        await attacked(PROXIED_ATTACKS, gateway, keys, record_property, str(certificate))


async def test_thirty_keys_of_an_account_have_one_limit_and_another_account_its_own(gateway, keys):
    refused = 0
    reader, writer = await asyncio.open_connection(*gateway.public)
    heads = []
    for number in range(30):
        writer.write(signed(keys[HONEST + number], "GET", "/wallets"))
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        length = next(int(line[15:]) for line in heads[-1].lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        refused += not heads[-1].startswith(b"HTTP/1.1 200")
    writer.close()
    assert refused == 0
    assert b'RateLimit-Policy: "key";q=6000;w=60, "account";q=6000;w=60' in heads[-1]
    assert b'RateLimit: "account"' in heads[-1]


async def test_a_full_redis_admits_no_trade_and_none_twice(gateway, keys, own_redis):
    reader, writer = await asyncio.open_connection(*gateway.public)
    client = redis_client.connect(own_redis.url)

    async def status(request: bytes) -> int:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")))
        return int(head[9:12])

    passed = signed(keys[0], "POST", "/orders", b"pair=BTC-IDR")
    assert await status(passed) == 200
    await client.config_set("maxmemory", "1")
    assert await status(signed(keys[0], "POST", "/orders", b"pair=ETH-IDR")) == 503
    assert await status(passed) in (409, 503)
    assert await status(signed(keys[0], "GET", "/wallets")) == 200
    await client.config_set("maxmemory", "0")
    assert await status(passed) == 409
    await client.aclose()
    writer.close()
