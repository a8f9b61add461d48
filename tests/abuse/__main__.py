"""What it takes to break it: ``python -m tests.abuse`` attacks from more and more addresses, and prints when an honest bot suffers.

A step lasts :data:`STEP_SECONDS`. The bot suffers when one of its requests is refused or lost, or its p99 passes three times what it was
without the attack (and 10 ms). The gate's worker has a processor of its own; stores, service and bots share the others, and the attackers
take what these leave, so an attack that needs more of the machine than that is not measured.
"""

import asyncio
import contextlib
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

from deploy.signing import SigningKey
from gateway.keys.ids import new_key_id
from gateway.keys.vault import Vault
from tests.abuse.attackers import KNOWN, Attackers, attackers
from tests.abuse.attacks import Attack, Scene
from tests.abuse.decisions import DECISION_ATTACKS
from tests.abuse.honest import Honest, p99
from tests.abuse.placing import others_together, place
from tests.abuse.proxied import PROXIED_ATTACKS
from tests.abuse.service import trading_service
from tests.abuse.sites import SITE_ATTACKS
from tests.abuse.world import BEHIND_A_PROXY, HONEST, VAULT, behind_a_proxy, settings
from tests.support import wheel
from tests.support.certificates import self_signed
from tests.support.keys import add_key
from tests.support.running import RunningGateway, running
from tests.support.stack import TEMPLATE, OwnPostgres, start_migrated, start_redis

STEP_SECONDS: Final = 2.0
ADDRESSES: Final = (4, 16, 64)
WORST_RATIO: Final = 3
LEAST_MS: Final = 10


async def budget(attack: Attack, number: int, bots: Honest, others: Attackers, gateway: RunningGateway) -> str:
    """One line of the table."""
    told = why = ""
    bots.begin()
    await asyncio.sleep(STEP_SECONDS)
    limit_ms = max(LEAST_MS, WORST_RATIO * p99(bots.taken_ms))
    for addresses in ADDRESSES:
        bots.begin()
        places = ["127.0.0.1"] * addresses if attack.beside_the_bot else [f"127.1.{number}.{place + 1}" for place in range(addresses)]
        await others.attack(attack.name, places)
        await asyncio.sleep(STEP_SECONDS)
        connections = await gateway.metric("gerbang_connections")
        wrong, p99_ms = bots.wrong, p99(bots.taken_ms)
        done = await others.attack()
        told = f"{connections:.0f} | {done.sent_bytes / STEP_SECONDS / 1e6:.2f} MB/s"
        why = wrong[0][:60].replace("|", " ") if wrong else f"p99 {p99_ms:.0f} ms, not above {limit_ms:.0f}"
        if wrong or p99_ms > limit_ms:
            return f"| `{attack.name}` | {addresses} | {told} | {why.replace('not above', 'above')} |"
    return f"| `{attack.name}` | more than {ADDRESSES[-1]} | {told} | {why} |"


async def table(attacks: list[Attack], folder: Path, postgres: OwnPostgres, redis: str, processor: int | None) -> None:
    """Print it, line by line."""
    connection = await asyncpg.connect(postgres.owner_dsn)
    accounts = [*(f"honest {number}" for number in range(HONEST)), *["greedy"] * 30]
    records = [await add_key(connection, Vault.parse(VAULT), key_id=new_key_id(), account_id=account) for account in accounts]
    await connection.close()
    keys = [SigningKey(record.key_id, record.secret.reveal().decode()) for record in records]
    path = folder / "gateway.toml"
    certificate, private = self_signed(folder / "tls", "127.0.0.1")
    for number, attack in enumerate(attacks):
        more, tls = "", ""
        if attack in PROXIED_ATTACKS:
            more, tls = behind_a_proxy(certificate, private), str(certificate)
        elif attack in DECISION_ATTACKS:
            more = BEHIND_A_PROXY
        async with trading_service() as service:
            path.write_text(settings(postgres.gateway_dsn, redis, service.url, more))
            async with running(path) as gateway:
                (worker,) = await gateway.worker_pids()
                place(worker, processor)
                scene = Scene(gateway.public, keys[0], keys[HONEST:], tls, gateway.ops)
                async with Honest(scene, keys[:HONEST], worker, service.pid) as bots, attackers(scene) as others:
                    await asyncio.sleep(0.5)
                    say(await budget(attack, number, bots, others, gateway))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(names: list[str]) -> None:
    """Of these attacks, or of all but those of one site, for which more addresses mean no more than one does."""
    how = f"{'compiled' if wheel.is_current() else 'interpreted'}, load {os.getloadavg()[0]:.1f}"
    say(f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}, {how}\n")
    say("| Attack | addresses | connections | sent to the gate | the bot |\n|---|---|---|---|---|")
    with others_together() as processor, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server, redis = start_migrated(Path(folder) / "postgres"), start_redis(Path(folder) / "redis")
        stack.callback(server.stop)
        stack.callback(redis.stop)
        attacks = [KNOWN[name] for name in names] or [attack for attack in KNOWN.values() if attack not in SITE_ATTACKS]
        asyncio.run(table(attacks, Path(folder), OwnPostgres(server, TEMPLATE), redis.url, processor))


if __name__ == "__main__":
    main(sys.argv[1:])
