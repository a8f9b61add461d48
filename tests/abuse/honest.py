"""An honest bot: signed reads and orders at a fixed modest rate, and a record of every answer."""

import asyncio
from typing import Final

from gateway.keys.record import KeyRecord
from gateway.runtime import clock
from tests.abuse.attacks import answer, signed
from tests.support.running import PATIENCE, RunningGateway

EACH_MS: Final = 50
"""Between two reads, and between two orders."""


class Honest:
    """``async with Honest(…) as bot``; it comes from ``127.0.0.1``."""

    def __init__(self, gateway: RunningGateway, key: KeyRecord) -> None:
        self.taken_ms: list[int] = []
        self.wrong: list[str] = []
        """What was refused or lost."""
        self._gateway, self._key, self._stop = gateway, key, False
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

    async def _ask(self, method: str, path: str, body: bytes) -> None:
        reader, writer = await asyncio.open_connection(*self._gateway.public)
        while not self._stop:
            due = asyncio.get_running_loop().time() + EACH_MS / 1000
            sent_ms = clock.monotonic_ms()
            try:
                async with asyncio.timeout(PATIENCE):
                    writer.write(signed(self._key, method, path, body))
                    status = await answer(reader)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.wrong.append(f"{method} lost: {type(error).__name__}")
                writer.transport.abort()
                reader, writer = await asyncio.open_connection(*self._gateway.public)
                continue
            self.taken_ms.append(clock.monotonic_ms() - sent_ms)
            if status != 200:
                self.wrong.append(f"{method} {status}")
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        writer.transport.abort()
