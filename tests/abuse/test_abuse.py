"""Nobody without a key hurts who has one, and nobody with a key hurts the others: real processes, one attack after the other.

An honest bot sends signed reads and orders all the while. Refusals, losses and memory are asserted everywhere. How much slower the bot's
answers become is printed, and asserted where the machine has nothing else to do (``nox -s abuse``, which sets ``GERBANG_QUIET_MACHINE``).
"""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from deploy.signing import SigningKey
from gateway.keys import redis_client
from gateway.keys.ids import new_key_id
from gateway.keys.vault import Vault
from tests.abuse.attackers import attackers
from tests.abuse.attacks import ATTACKS, Attack, Scene, signed
from tests.abuse.honest import Honest
from tests.abuse.proxied import PROXIED_ATTACKS
from tests.abuse.tunnels import TUNNEL_ATTACKS
from tests.abuse.world import VAULT, service, settings
from tests.support.certificates import self_signed
from tests.support.keys import add_key
from tests.support.running import RunningGateway, running
from tests.support.wire import RecordingUpstream, recording_upstream

QUIET: Final = bool(os.environ.get("GERBANG_QUIET_MACHINE"))
SECONDS: Final = 10.0 if QUIET else 2.0
WORST_RATIO: Final = 3
MEMORY: Final = 96 << 20
"""Bytes that a worker may grow by, through all of it: the memory for contents, buffers of sockets, tables."""


@pytest.fixture
async def upstream():
    async with recording_upstream(service) as recording:
        yield recording


@pytest.fixture
async def keys(own_postgres):
    """The bot's key, and thirty of one other account."""
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    vault = Vault.parse(VAULT)
    made = [await add_key(connection, vault, key_id=new_key_id(), account_id="honest")]
    made += [await add_key(connection, vault, key_id=new_key_id(), account_id="greedy") for _ in range(30)]
    await connection.close()
    return [SigningKey(record.key_id, record.secret.reveal().decode()) for record in made]


@pytest.fixture
async def start(tmp_path: Path, own_postgres, own_redis, upstream: RecordingUpstream):
    """Starts the gateway: ``start("further settings")``."""

    @asynccontextmanager
    async def start(more: str = ""):
        path = tmp_path / "gateway.toml"
        path.write_text(settings(own_postgres.gateway_dsn, own_redis.url, upstream.url, more))
        async with running(path) as gateway:
            yield gateway

    return start


@pytest.fixture
async def gateway(start):
    async with start() as gateway:
        yield gateway


async def resident(gateway: RunningGateway) -> int:
    return int(await gateway.metric('gerbang_worker_resident_bytes{worker="0"}'))


async def attacked(attacks: tuple[Attack, ...], gateway: RunningGateway, keys: list[SigningKey], record_property, certificate="") -> None:
    """One attack after the other, while an honest bot trades."""
    scene = Scene(gateway.public, keys[0], keys[1:], certificate)
    worst: dict[str, float] = {}
    async with Honest(scene) as bot, attackers(scene) as others:
        await asyncio.sleep(0.5)
        begun = await resident(gateway)
        for number, attack in enumerate(attacks):
            bot.begin()
            await asyncio.sleep(SECONDS / 3)
            assert not bot.wrong, f"before {attack.name}"
            before_ms = bot.p99_ms()
            bot.begin()
            await others.attack(attack.name, attack.from_addresses(number))
            await asyncio.sleep(SECONDS)
            await bot.opens_a_tunnel()
            during_ms = bot.p99_ms()
            grown = (await resident(gateway) - begun) >> 20
            assert (await others.attack()).broken == [], f"{attack.name} did not attack"
            worst[attack.name] = during_ms / max(1, before_ms)
            record_property(
                "measured",
                f"{attack.name:<36} {len(bot.taken_ms):>4} honest requests, {len(bot.wrong)} refused or lost, "
                f"p99 {before_ms} ms before, {during_ms} ms during, worker grown by {grown} MiB",
            )
            assert bot.wrong == [], attack.name
            assert bot.taken_ms, attack.name
            assert grown << 20 <= MEMORY, attack.name
    if QUIET:
        assert {name: ratio for name, ratio in worst.items() if ratio > WORST_RATIO} == {}


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
        writer.write(signed(keys[1 + number], "GET", "/wallets"))
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
