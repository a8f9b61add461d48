"""The vault's key is rotated in the order that deploy/README.md gives, on two machines under load, and nobody notices."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby

import asyncpg
import pytest

from gateway.keys.vault import Vault, new_entry
from tests.faults.conftest import VAULT
from tests.faults.load import Client, Load, ask_once, request_of
from tests.support.keys import add_key
from tests.support.running import RunningGateway
from tests.support.wire import OK, answer_ok

pytestmark = pytest.mark.xdist_group("faults")

NEW = new_entry("k2")
STEPS = {"behind": f"{VAULT} {NEW}", "in front": f"{NEW} {VAULT}", "alone": NEW}
"""The ring after each round of restarts."""
OTHERS = 100
"""Keys that nobody uses while the ring changes."""


class Machine:
    """One gateway of two, as the clients that a balancer sends there see it: while it is out, they are sent to the other one."""

    def __init__(self, name: str, write) -> None:
        self.name = name
        self.gateway = RunningGateway(write(name=name))
        self.other = self
        self.earlier: list[dict] = []
        self._write = write
        self._out = False

    @property
    def public(self) -> tuple[str, int]:
        return (self.other if self._out else self).gateway.public

    def told(self) -> str:
        return "\n".join(map(str, self.log))

    async def restart(self, ring: str) -> None:
        """As the document says: out of the balancer, drained with requests in flight, started with the new ring, ready, in again."""
        self._out = True
        await self.gateway.metric("gerbang_connections")  # every worker answered: what was sent to it before has been read
        self.gateway.signal(signal.SIGTERM)
        assert await self.gateway.ended() == 0
        await self.gateway.close()
        self.earlier += self.gateway.log
        self.gateway = RunningGateway(self._write(name=self.name, vault=ring))
        await self.gateway.start()
        await self.gateway.ready()
        assert (await self.gateway.ask("GET", "/ready"))[0] == 200
        self._out = False

    @property
    def log(self) -> list[dict]:
        return self.earlier + self.gateway.log


@asynccontextmanager
async def two_machines(write):
    machines = Machine("one", write), Machine("two", write)
    try:
        for machine, other in zip(machines, reversed(machines), strict=True):
            machine.other = other
            await machine.gateway.start()
            await machine.gateway.ready()
        yield machines
    finally:
        for machine in machines:
            await machine.gateway.close()


async def reseal(dsn: str, ring: str) -> tuple[int, str]:
    """The command, as a process: its status and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli", "vault", "reseal", "--dsn", dsn),
        env={**os.environ, "GERBANG_VAULT_KEYS": ring},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return await process.wait(), said.decode()


async def slowly(side, _request) -> None:
    """An upstream that takes its time, so that there are requests in flight whenever a gate is told to end."""
    await asyncio.sleep(0.05)
    side.send(OK)


def clients(machine: Machine, key, damaged) -> list[Client]:
    return [
        *[Client("read", "GET", "/wallets", key)] * 2,
        *(Client(f"trade {machine.name} {number}", "POST", "/orders", key) for number in (1, 2)),
        Client("forged", "GET", "/wallets", key, forged=True),
        Client("damaged", "GET", "/wallets", damaged),
    ]


async def damage(dsn: str, key_id: str) -> None:
    """Turn one byte of a stored secret over, and let the gates hear that something of this key was changed."""
    connection = await asyncpg.connect(dsn)
    turned = "set_byte(sealed_secret, 40, 255 - get_byte(sealed_secret, 40))"
    assert await connection.execute(f"UPDATE api_keys SET sealed_secret = {turned}, label = label WHERE id = $1", key_id) == "UPDATE 1"
    await connection.close()


async def test_the_vaults_key_is_rotated_and_nobody_notices(write, own_postgres, upstream, *, key, unknown, tell):
    upstream.script = slowly
    connection = await asyncpg.connect(own_postgres.owner_dsn)
    keys = [await add_key(connection, Vault.parse(VAULT)) for _ in range(OTHERS)]
    async with AsyncExitStack() as stack:
        machines = await stack.enter_async_context(two_machines(write))
        loads = [await stack.enter_async_context(Load(machine, clients(machine, key, unknown))) for machine in machines]
        await damage(own_postgres.owner_dsn, unknown.key_id)
        for load in loads:
            await load.until("damaged", "invalid_credentials")

        for step, ring in STEPS.items():
            if step == "alone":
                await everything_is_sealed_anew(own_postgres.admin_dsn, damaged=unknown.key_id)
            # The admin service has its new ring first: what it seals from now on opens everywhere.
            keys.append(await add_key(connection, Vault.parse(ring)))
            for machine, load in zip(machines, loads, strict=True):
                load.add(Client(f"made {step}", "GET", "/wallets", keys[-1]))
                await load.some(f"made {step}", 5, "200")
                await machine.restart(ring)
                for kind in {one.kind for one in load.seen}:
                    await load.some(kind, 5)
        upstream.script = answer_ok
        for machine in machines:
            reads = [Client("read", "GET", "/wallets", each) for each in (*keys, unknown)]
            found = [await ask_once(machine.public, request_of(read)) for read in reads]
            assert found == ["200"] * len(keys) + ["invalid_credentials"]
    await connection.close()
    for machine, load in zip(machines, loads, strict=True):
        turns = [outcome for outcome, _ in groupby(one.outcome for one in load.seen if one.kind == "damaged")]
        assert turns == ["200", "invalid_credentials"], load.table()
        assert set(load.outcomes("forged")) == {"invalid_credentials"}, load.table()
        for kind in {one.kind for one in load.seen} - {"forged", "damaged"}:
            assert set(load.outcomes(kind)) == {"200"}, load.table()
        assert {line["key_id"] for line in machine.log if line.get("event") == "key_record_unreadable"} == {unknown.key_id}
        assert not [line for line in machine.log if line.get("event") == "key_lookup_defect"]
        tell(f"vault's key rotated, {machine.name}", load)


async def everything_is_sealed_anew(dsn: str, *, damaged: str) -> None:
    """All but the record that does not open, which is named."""
    status, said = await reseal(dsn, STEPS["in front"])
    assert (status, said.count("gbk_"), said.count(damaged)) == (1, 1, 1), said
    assert f"re-encrypted: {OTHERS + 2} key secrets" in said  # and the clients' own, and the one that was made with the first ring
