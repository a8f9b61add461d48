"""An honest bot: signed reads and orders at a fixed modest rate, and a record of every answer."""

import asyncio
from typing import Final

from gateway.runtime import clock
from tests.abuse.attacks import Scene, connected, signed, whole_answer
from tests.abuse.proxied import said_to_be_of
from tests.abuse.tunnels import open_tunnel
from tests.support.running import PATIENCE

HERE: Final = "127.0.0.1"
EACH_MS: Final = 50
"""Between two reads, and between two orders."""


class Honest:
    """``async with Honest(…) as bot``; it comes from ``127.0.0.1``, and behind a proxy from ``203.0.113.7``."""

    def __init__(self, scene: Scene) -> None:
        self.taken_ms: list[int] = []
        self.wrong: list[str] = []
        """What was refused or lost."""
        self._scene, self._stop = scene, False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Honest":
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._ask(*what)) for what in (("GET", "/wallets", b""), ("POST", "/orders", b"pair=BTC-IDR"))]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    def begin(self) -> None:
        """Forget what was measured."""
        self.taken_ms, self.wrong = [], []

    def p99_ms(self) -> int:
        """Of what was measured."""
        return sorted(self.taken_ms)[len(self.taken_ms) * 99 // 100] if self.taken_ms else 0

    async def opens_a_tunnel(self) -> None:
        """Or notes that it could not."""
        async with connected(self._scene, HERE) as (reader, writer), asyncio.timeout(PATIENCE):
            status = await open_tunnel(reader, writer)
            if status != 101:
                self.wrong.append(f"tunnel {status}")

    async def _ask(self, method: str, path: str, body: bytes) -> None:
        while not self._stop:
            try:
                async with connected(self._scene, HERE) as (reader, writer):
                    while not self._stop:
                        due = asyncio.get_running_loop().time() + EACH_MS / 1000
                        await self._once(reader, writer, signed(self._scene.key, method, path, body))
                        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.wrong.append(f"{method} lost: {type(error).__name__}")

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        sent_ms = clock.monotonic_ms()
        async with asyncio.timeout(PATIENCE):
            writer.write(said_to_be_of(request, "203.0.113.7") if self._scene.tls else request)
            status, content = await whole_answer(reader)
        self.taken_ms.append(clock.monotonic_ms() - sent_ms)
        if status != 200:
            self.wrong.append(f"{request[:4].decode()} {status} {content.decode()}")
