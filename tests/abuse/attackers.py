"""The attackers, in a process of their own: what they do takes nothing from the bot, nor from the service, but what the gate lets it take.

Reads lines of JSON: first the scene, then orders ``{"attack": name, "addresses": […]}`` (without a name: stop), each answered by a line of
JSON: what went wrong with the attack before, and how many bytes it sent.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from deploy.signing import SigningKey
from tests.abuse.attacks import ATTACKS, Scene, sent
from tests.abuse.decisions import DECISION_ATTACKS
from tests.abuse.proxied import PROXIED_ATTACKS
from tests.abuse.sites import SITE_ATTACKS
from tests.abuse.tunnels import TUNNEL_ATTACKS

KNOWN = {attack.name: attack for attack in (*ATTACKS, *TUNNEL_ATTACKS, *PROXIED_ATTACKS, *DECISION_ATTACKS, *SITE_ATTACKS)}


class Done(NamedTuple):
    """What became of an attack that has ended."""

    broken: list[str]
    """What went wrong with it."""
    sent_bytes: int


class Attackers:
    """That process, for whoever commands it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def attack(self, name: str = "", addresses: list[str] | None = None) -> Done:
        """Do this from now on instead of what was done before.

        :return: what became of that
        """
        return Done(*await self.order({"attack": name, "addresses": addresses or []}))

    async def order(self, order: object) -> list[Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return list(json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def attackers(scene: Scene) -> AsyncIterator[Attackers]:
    """A process of attackers, ready; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.abuse.attackers", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        keys = [[key.key_id, key.material] for key in (scene.key, *scene.greedy)]
        made = Attackers(process)
        await made.order({"public": scene.public, "keys": keys, "certificate": scene.certificate, "ops": scene.ops})
        yield made
    finally:
        process.kill()
        await process.wait()


def say(*what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def obey() -> None:
    """Until the end of the input."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told = json.loads(await reader.readline())
    keys = [SigningKey(*pair) for pair in told["keys"]]
    scene = Scene(tuple(told["public"]), keys[0], keys[1:], told["certificate"], tuple(told["ops"]))
    say([], 0)
    tasks: list[asyncio.Task[None]] = []
    while line := await reader.readline():
        order = json.loads(line)
        broken = [repr(task.exception()) for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tasks = [loop.create_task(KNOWN[order["attack"]].send(scene, address)) for address in order["addresses"]]
        say(broken, sent["bytes"])
        sent.clear()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # an attack takes what the bots, the stores and the service leave
    with suppress(KeyboardInterrupt):
        asyncio.run(obey())
