"""Honest bots: signed reads and orders, one after the other at a fixed modest rate, and a record of every answer.

Besides how long an answer takes, they read off the processor time that the gate's worker has used between request and answer: that for the
request itself, and for others that stood in its way; and how long the processes on the way have waited for a processor. Who else uses the
machine has no part in the rest, so that it can be compared where the seconds cannot.
"""

import asyncio
import gc
import itertools
import os
import time
from typing import Final

from deploy.signing import SigningKey
from tests.abuse.attacks import Scene, connect, connected, signed, whole_answer
from tests.abuse.decisions import question
from tests.abuse.proxied import said_to_be_of
from tests.abuse.tunnels import open_tunnel
from tests.support.running import PATIENCE

CALLS: Final = (("GET", "/wallets", b""), ("POST", "/orders", b"pair=BTC-IDR"))
HERE: Final = "127.0.0.1"
STARVED_MS: Final = 200
"""Without a processor: beside attackers that run when nobody else wants to, Linux 6.18 lets Redis wait for half a second now and then."""
EACH: Final = 0.005
"""Seconds between two requests."""


class Honest:
    """``async with Honest(…) as bots``; they come from ``127.0.0.1``, and behind a proxy from ``203.0.113.7``.

    :param keys: of a bot each
    :param worker: process id of the gate's only worker
    :param service: of the trading service
    :param redis: of Redis; its claims are not counted as refused where it waited for a processor meanwhile
    """

    def __init__(self, scene: Scene, keys: list[SigningKey], worker: int, service: int, redis: int | None = None) -> None:
        self.taken_ms: list[float] = []
        self.served_ms: list[float] = []
        """The same without what the gate's worker, the service, this process and Redis waited for a processor that somebody else had."""
        self.work_ms: list[float] = []
        """Of the gate, while an answer was awaited."""
        self.wrong: list[str] = []
        """What was refused or lost."""
        self._scene, self._keys, self._stop = scene, keys, False
        on_the_way = [worker, service, os.getpid(), *([] if redis is None else [redis])]
        self._queues = [os.open(f"/proc/{process}/schedstat", os.O_RDONLY) for process in on_the_way]
        self._redis = None if redis is None else self._queues[-1]
        self._work_clock = (~worker << 3) | 2  # as clock_getcpuclockid(3) makes it
        self._task: asyncio.Task[None]
        self._connections: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> "Honest":
        gc.collect()
        gc.disable()  # a collection of this process would be taken for a wait at the gate
        self._task = asyncio.get_running_loop().create_task(self._trade())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._stop = True
        await self._task
        gc.enable()
        for queue in self._queues:
            os.close(queue)
        for _, writer in self._connections.values():
            writer.transport.abort()

    def begin(self) -> None:
        """Forget what was measured."""
        self.taken_ms, self.served_ms, self.work_ms, self.wrong = [], [], [], []

    async def opens_a_tunnel(self) -> None:
        """Or notes that it could not."""
        async with connected(self._scene, HERE) as (reader, writer), asyncio.timeout(PATIENCE):
            status = await open_tunnel(reader, writer)
            if status != 101:
                self.wrong.append(f"tunnel {status}")

    async def asks_for_decisions(self) -> None:
        """As a customer of a proxy that asks the gate; notes what was refused."""
        async with connected(self._scene._replace(public=self._scene.ops), HERE) as (reader, writer), asyncio.timeout(PATIENCE):
            for key in self._keys:
                writer.write(question(key, client="203.0.113.7"))
                status, content = await whole_answer(reader)
                if status != 200:
                    self.wrong.append(f"decision {status} {content.decode()}")

    async def _trade(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for place, (key, call) in enumerate(itertools.cycle(itertools.product(self._keys, CALLS))):
            if self._stop:
                return
            due = max(due, loop.time()) + EACH
            try:
                await self._once(*await self._connection(place % (len(self._keys) * len(CALLS))), signed(key, *call))
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.wrong.append(f"{call[0]} lost: {type(error).__name__}")
                self._connections.clear()
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _connection(self, place: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One for each key and call."""
        if place not in self._connections:
            self._connections[place] = await connect(self._scene, HERE)
        return self._connections[place]

    async def _once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        queued_ms, work, begun, redis_ms = self._queued_ms(), time.clock_gettime(self._work_clock), time.perf_counter(), self._redis_ms()
        async with asyncio.timeout(PATIENCE):
            writer.write(said_to_be_of(request, "203.0.113.7") if self._scene.tls else request)
            status, content = await whole_answer(reader)
        taken_ms = (time.perf_counter() - begun) * 1000
        self.taken_ms.append(taken_ms)
        self.served_ms.append(max(0.1, taken_ms - self._queued_ms() + queued_ms))
        self.work_ms.append((time.clock_gettime(self._work_clock) - work) * 1000)
        if status != 200 and (b"replay_guard_unavailable" not in content or not await self._redis_starved(redis_ms)):
            self.wrong.append(f"{request[:4].decode()} {status} {content.decode()}")

    async def _redis_starved(self, redis_ms: float) -> bool:
        """Whether Redis has waited for a processor for most of the time that a claim may take: it tells once it runs again."""
        for _ in range(100):
            if self._redis_ms() - redis_ms >= STARVED_MS:
                return True
            await asyncio.sleep(0.02)
        return False

    def _redis_ms(self) -> float:
        """How long Redis has waited for a processor, ever."""
        return 0.0 if self._redis is None else int(os.pread(self._redis, 100, 0).split()[1]) / 1e6

    def starved_ms(self) -> float:
        """How long the gate's worker has waited for a processor, ever."""
        return int(os.pread(self._queues[0], 100, 0).split()[1]) / 1e6

    def _queued_ms(self) -> float:
        """How long those processes have waited for a processor, ever (Linux, ``/proc/PID/schedstat``: time running, time waiting)."""
        return sum(int(os.pread(queue, 100, 0).split()[1]) for queue in self._queues) / 1e6


def p99(values: list[float]) -> float:
    """The value that one of a hundred exceeds; 0 of none."""
    return sorted(values)[len(values) * 99 // 100] if values else 0.0
