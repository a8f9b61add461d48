"""Some gates' key rooms in one process, as a worker has them: ``python -m tests.bench.fleet GATES PERIOD DSN REDIS VAULT``.

It reads a line for each step from standard input and answers each with a line of JSON: ``fill PATH [TOGETHER]`` (the first gate looks up
every key, whose ids are in that file, so many at a time; the others are given what it has then), ``use SECONDS`` (every gate uses every key
once each PERIOD seconds), ``revoked`` (wait until no gate has any key). It ends with its input.
"""

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from gateway.admission.limits import KeyLimiter
from gateway.config.settings import Cache
from gateway.config.values import Rate
from gateway.errors import KeyStoreUnavailable
from gateway.keys import postgres, redis_client
from gateway.keys.cache import Entry
from gateway.keys.invalidation import InvalidationListener
from gateway.keys.lookup import KeyLookup
from gateway.keys.record import KeyRecord
from gateway.keys.shared import SharedRecords
from gateway.keys.store import KeyStore
from gateway.keys.trust import Trust
from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter
from gateway.keys.vault import Vault
from gateway.runtime import clock
from gateway.runtime.gcra import ShareNeeded
from gateway.runtime.tasks import spawn
from gateway.telemetry import configure_logging
from gateway.telemetry.metrics import Metrics
from tests.bench.processes import resident
from tests.support.inside import cache

RATE = Rate(1_200, 60_000)
TOGETHER = 500
TURN_SECONDS = 0.02
LAG_SECONDS = 0.005
RETRY_SECONDS = 2.0
"""After which a client that was told to try again does."""


def _as_it_is(record: KeyRecord) -> KeyRecord:
    return record


class Listener(InvalidationListener):
    """Notes when PostgreSQL notified last, and when the first change that was read then was acted upon."""

    notified = heard = 0.0

    def _on_notification(self, woken: asyncio.Event) -> None:
        self.notified, self.heard = time.monotonic(), 0.0
        super()._on_notification(woken)

    def _notify(self, key_id: str | None) -> None:
        self.heard = self.heard or time.monotonic()
        super()._notify(key_id)


class Gate:
    """What a worker asks of PostgreSQL and Redis for its keys."""

    def __init__(self, pool: postgres.Pool, redis: Any, dsn: str, vault: Vault) -> None:
        self.metrics, trust = Metrics(), Trust()
        self.lookup: KeyLookup[KeyRecord] = KeyLookup(
            KeyStore(pool, vault, seconds=2.0).find, SharedRecords(redis, vault), trust, Cache(), prepare=_as_it_is, metrics=self.metrics
        )
        self.listener = Listener(redis, dsn, trust, self.lookup, metrics=self.metrics)
        self.limiter = KeyLimiter(redis, metrics=self.metrics)
        self.counts = UsageCounts()
        self.writer = UsageWriter(self.counts, redis, self.metrics)
        self.hits = 0
        self.fetch_ms: list[float] = []
        """How long each look-up of :meth:`fill` took, refused ones not counted."""
        self.refused = 0
        """Look-ups of :meth:`fill` that were told to try again."""

    async def start(self) -> None:
        self.listener.start()
        await self.listener.up.wait()
        self.limiter.start()
        self.writer.start()

    async def fill(self, ids: list[str], together: int) -> None:
        """Every key once, some at a time, as requests would ask for them; again after a moment when told to try again."""
        waiting = iter(ids)
        await asyncio.gather(*(self._look_up(waiting) for _ in range(together)))

    def take_over(self, another: "Gate") -> None:
        """Have in memory what another gate has, as if it had been looked up."""
        for key_id, entry in cache(another.lookup).present.items():
            cache(self.lookup).put(key_id, Entry(entry.record, entry.value, cache(self.lookup).epoch))

    async def _look_up(self, waiting: Iterator[str]) -> None:
        for key_id in waiting:
            while not await self._found(key_id):  # noqa: ASYNC110  # nobody tells a client when to come again
                await asyncio.sleep(RETRY_SECONDS)

    async def _found(self, key_id: str) -> bool:
        began = time.monotonic()
        try:
            await self.lookup.fetch(key_id)
        except KeyStoreUnavailable:
            self.refused += 1
            return False
        self.fetch_ms.append((time.monotonic() - began) * 1_000)
        return True

    async def use(self, ids: list[str], period: float, until: float) -> None:
        """As admission does: memory, the limit, the count. In slices, so that the loop turns."""
        turn = 0
        began = time.monotonic()
        while time.monotonic() < until:
            now_ms, due = clock.monotonic_ms(), int((time.monotonic() - began) / period * len(ids))
            for number in range(turn, min(due, turn + 2 * TOGETHER)):
                key_id = ids[number % len(ids)]
                if self.lookup.peek(key_id, now_ms) is None:
                    with suppress(KeyStoreUnavailable):
                        await self.lookup.fetch(key_id)
                else:
                    self.hits += 1
                try:
                    self.limiter.charge(key_id, 1, RATE, now_ms)
                except ShareNeeded:
                    await self.limiter.settled(key_id, 1, RATE)
                self.counts.admitted(key_id, "203.0.113.7", clock.now_ms())
            turn = min(due, turn + 2 * TOGETHER)
            await asyncio.sleep(TURN_SECONDS)

    def figures(self) -> dict[str, int]:
        told = {f"{store} {outcome}": count for (store, outcome), count in self.metrics.key_fetches.items()}
        return {"memory": self.hits, "feed reads": self.metrics.feed_reads, "refused": self.refused, **told}

    def rows(self) -> int:
        """Asked of PostgreSQL so far."""
        return self.metrics.key_fetches["postgres", "found"] + self.metrics.key_fetches["postgres", "absent"]

    async def close(self) -> None:
        await self.listener.aclose()
        await self.lookup.aclose()


def percentile(values: list[float], part: float) -> float:
    """Of unsorted values; 0 of none."""
    return sorted(values)[int((len(values) - 1) * part)] if values else 0.0


async def _worst_lag(stop: asyncio.Event) -> float:
    """The longest that the loop did not turn, in milliseconds."""
    worst, before = 0.0, time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(LAG_SECONDS)
        now = time.monotonic()
        worst, before = max(worst, now - before - LAG_SECONDS), now
    return round(worst * 1_000, 1)


async def _busiest(gates: list[Gate], stop: asyncio.Event) -> int:
    """The most rows of PostgreSQL that these gates have asked for within a second."""
    most, counts = 0, deque([0], maxlen=11)
    while not stop.is_set():
        counts.append(sum(gate.rows() for gate in gates))
        most = max(most, counts[-1] - counts[0])
        await asyncio.sleep(0.1)
    return most


async def _revoked(gates: list[Gate], ids: list[str]) -> None:
    """Until no gate would let any of the keys pass. It asks little while it waits: what is measured has the processor."""
    for gate in gates:
        left = list(ids)
        while left:
            if isinstance(gate.lookup.peek(left[-1], clock.monotonic_ms()), KeyRecord):
                await asyncio.sleep(LAG_SECONDS)
            else:
                left.pop()


async def main(count: str, period: str, dsn: str, url: str, vault: str) -> None:
    configure_logging("error", service="bench")
    pool, redis = await postgres.create_pool(dsn), redis_client.connect(url)
    gates = [Gate(pool, redis, dsn, Vault.parse(vault)) for _ in range(int(count))]
    ids: list[str] = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    for gate in gates:
        await gate.start()
    while line := (await reader.readline()).decode().split():
        stop, began, spent = asyncio.Event(), time.monotonic(), time.process_time()
        lag, busiest = spawn(_worst_lag(stop), name="lag"), spawn(_busiest(gates, stop), name="busiest")
        match line:
            case ["fill", path, *together]:
                ids = (await asyncio.to_thread(Path(path).read_text)).split()
                await gates[0].fill(ids, int(together[0]) if together else TOGETHER)
                for gate in gates[1:]:
                    gate.take_over(gates[0])
            case ["use", seconds]:
                until = time.monotonic() + float(seconds)
                await asyncio.gather(*(gate.use(ids, float(period), until) for gate in gates))
            case ["revoked"]:
                await _revoked(gates, ids)
        stop.set()
        ended = time.monotonic()
        answer = {"gates": [gate.figures() for gate in gates], "seconds": ended - began, "lag_ms": await lag, "at": ended}
        answer |= {"notified": max(gate.listener.notified for gate in gates), "heard": max(gate.listener.heard for gate in gates)}
        answer |= {"processor": time.process_time() - spent, "busiest": await busiest}
        answer |= {"fetch_ms": percentile([taken for gate in gates for taken in gate.fetch_ms], 0.99), "resident": resident(os.getpid())}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for gate in gates:
        await gate.close()
    pool.terminate()
    await redis.aclose()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
