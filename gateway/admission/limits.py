"""Distributed rate limiting per key and per account, exact across workers and machines. Uses Redis.

Admission never waits for Redis here. A worker admits on its own what a small share of the limit allows, and in the background settles with
the ledger in Redis what it has admitted and learns what others have: when most of that share is used, and after half a period at the
latest, so that a key far below its limit seldom asks. Keys that are not in a hurry are settled together, in one command for many of them.
Only who would go beyond the share waits for the next settlement.

    gerbang:{<key id>, or account:<id>}:ledger:<units>/<period ms>   the ledger: ``tat`` (see ``gcra``), and units by slot of time

The ledger keeps two rules: GCRA, and that in no period more than 3 % above the limit is admitted, which GCRA alone does not promise
(a full burst and then the steady rate come to twice the limit). Each worker's share is 1 %, and less when less than a third is left: two
workers stay within 5 %, and so do many that are used alike.
"""

import asyncio
from contextlib import suppress
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from redis.asyncio import Redis, RedisCluster

from gateway.admission.limit_share import Share
from gateway.config.values import Rate
from gateway.errors import StoreUnavailable
from gateway.keys.redis_client import keys_are_apart, script_unknown, translated
from gateway.runtime import clock, gcra
from gateway.runtime.gcra import Charge, ShareNeeded
from gateway.runtime.tasks import StallTolerantTimeout, repeat
from gateway.telemetry.metrics import Metrics

SLOTS = 60
"""Slots of time in one period of the ledger."""
MAX_KEYS = 100_000
MAX_BATCH = 200
"""Keys settled in one round trip."""
KEYS_PER_COMMAND = 50
"""Keys settled by one command, which holds Redis up for half a millisecond."""
BATCH_SECONDS = 0.2
"""For how long keys that are not in a hurry wait for others to be settled with."""
URGENT_MS = 2_000
"""Most of a share used within this time is a hurry: the rest of it may not last for as long as keys are gathered."""
TIMEOUT_SECONDS = 0.5
INTERVAL_SECONDS = 2.0
"""How often it is looked which keys have waited long enough for a settlement; less where the period is shorter than a minute."""
MAX_UNSETTLED_MS = 30_000.0
"""From the first unit that the ledger does not know of to the settlement, at the most; less where half the period is."""
RETRY_SECONDS = 1.0
"""Between two attempts to reach a Redis that is away."""

SETTLE = Path(__file__).with_name("settle.lua").read_text("utf-8")
_SETTLE_SHA = sha1(SETTLE.encode(), usedforsecurity=False).hexdigest()

_log = structlog.get_logger(__name__)


class _Settlement(NamedTuple):
    """One key's part of a settlement: taken from its share, so that what comes after is the next one's."""

    share: Share
    spent: int
    wanted: int
    smallest_wanted: int
    settled: "asyncio.Future[None] | None"
    """Resolved once the ledger has answered, for the requests that wait."""


class KeyLimiter:
    """Limits per key. One for each process; reloads keep it."""

    def __init__(self, redis: Redis, *, metrics: Metrics) -> None:
        self._redis = redis
        self._keys_per_command = 1 if isinstance(redis, RedisCluster) else KEYS_PER_COMMAND
        self._metrics = metrics
        metrics.probes.append(self._count)
        self._shares: dict[str, Share] = {}
        self._due: dict[Share, None] = {}
        """To be settled at the next interval."""
        self._due_now: dict[Share, None] = {}
        """Those of them that cannot wait for it."""
        self._waiting: dict[Share, asyncio.Future[None]] = {}
        """Of the keys whose next settlement requests wait for."""
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        """One of them cannot wait to be batched either."""
        self._interval_seconds = INTERVAL_SECONDS
        self._interval_ends = 0.0
        """By the loop's clock."""
        self._task: asyncio.Task[None] | None = None
        self.degraded = False
        """True while Redis is away and each process limits on its own."""

    def charge(self, key_id: str, weight: int, rate: Rate, now_ms: float) -> Charge:
        """Charge a request to its key's limit.

        :param weight: 0 charges nothing and tells how the limit stands
        :param now_ms: monotonic milliseconds
        :raises ShareNeeded: Redis must be asked first
        """
        share = self._shares.get(key_id)
        if share is None or share.rate is not rate:
            share = self._open(key_id, rate)
        if share.granted >= weight > 0 and share.take_granted(weight, now_ms):
            charge = gcra.charge(share.tat_ms, 0, now_ms, rate)
            if share.room < charge.remaining:  # the window's rule is the tighter one
                charge.remaining = max(0, share.room)
            return charge
        charge = gcra.charge(share.tat_ms, weight, now_ms, rate)
        if not charge.allowed:
            return charge
        room = share.room
        if room < weight + charge.remaining and not self.degraded:
            if weight <= room:  # the window's rule is the tighter one
                charge.remaining = room - weight
            elif weight:
                charge = share.over_window(now_ms)
            else:
                charge.remaining = 0
        if weight and charge.allowed:
            unsettled = share.unsettled + weight
            if not share.unsettled or unsettled > share.settle_above:
                self._settle_later(share, unsettled, now_ms)
            share.unsettled = unsettled
            share.room = room - weight
            share.tat_ms = charge.tat_ms
        return charge

    def give_back(self, key_id: str, weight: int, rate: Rate) -> None:
        """Undo a charge that was allowed: the request did not pass in the end. The ledger hears of it with the next settlement."""
        share = self._shares.get(key_id)
        if share is None or share.rate != rate:
            return
        share.give_back(weight)
        self._due[share] = None

    def used(self, key_id: str, rate: Rate, now_ms: float) -> int:
        """Units used in the last period: as the ledger had it at the last settlement, and what was admitted here since."""
        share = self._shares.get(key_id)
        return 0 if share is None or share.rate != rate else share.used(now_ms)

    async def settled(self, key_id: str, weight: int, rate: Rate) -> None:
        """Ask the ledger for ``weight`` units, in one round trip with everybody who asks. Charge again after it."""
        share = self._shares.get(key_id)
        if share is None or share.rate is not rate:
            share = self._open(key_id, rate)
        if self.degraded:
            return
        settled = self._waiting.get(share)
        if settled is None:
            settled = self._waiting[share] = asyncio.get_running_loop().create_future()
            share.smallest_wanted = weight
        share.smallest_wanted = min(share.smallest_wanted, weight)
        share.wanted += weight
        self._settle_soon(share, urgent=True)
        await asyncio.shield(settled)

    def start(self) -> None:
        """Settle in the background from now on."""
        self._task = repeat(self._settle_once, name="settle limits")

    async def stop(self) -> None:
        """Settle what is open and end."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._settle(list(self._due))

    # -- what this worker decides on its own

    def _open(self, key_id: str, rate: Rate) -> Share:
        known = self._shares.get(key_id)
        if known is not None and known.rate == rate:
            known.rate = rate  # the same limit in another version of the configuration
            return known
        if known is None and len(self._shares) >= MAX_KEYS:
            self._evict()
        self._interval_seconds = min(INTERVAL_SECONDS, rate.period_ms / 30_000)
        share = self._shares[key_id] = Share(key_id, rate)
        return share

    def _evict(self) -> None:
        """Drop the tenth of the keys that was opened first, of those that owe nothing if there are any: the ledger remembers them."""
        settled = [share for share in self._shares.values() if share not in self._due]
        for share in (settled or list(self._shares.values()))[: max(1, MAX_KEYS // 10)]:
            del self._shares[share.key_id]
            self._due.pop(share, None)

    def _settle_later(self, share: Share, unsettled: int, now_ms: float) -> None:
        """With so many units the share is, or remains, due.

        :raises ShareNeeded: they are too many
        """
        if unsettled > share.max_unsettled and not self.degraded:
            raise ShareNeeded(share.key_id)
        if not share.unsettled:
            share.unsettled_since_ms = now_ms
            self._due[share] = None
        if unsettled > share.settle_above:
            self._settle_soon(share, urgent=now_ms - share.unsettled_since_ms < URGENT_MS)

    def _settle_soon(self, share: Share, *, urgent: bool) -> None:
        self._due[share] = None
        self._due_now[share] = None
        self._wake.set()
        if urgent:
            self._urgent.set()

    # -- settlements

    async def _settle_once(self) -> None:
        """Settle what is due now, and at each interval what is overdue."""
        loop = asyncio.get_running_loop()
        if self.degraded:
            await asyncio.sleep(RETRY_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._interval_ends):
                await self._wake.wait()
                await self._wait_for_batch()
        due = dict(self._due_now)
        if loop.time() >= self._interval_ends:
            self._interval_ends = loop.time() + self._interval_seconds
            due.update(self._overdue(clock.monotonic_ms()))
        if due or self.degraded:
            await self._settle(list(due))

    async def _wait_for_batch(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(BATCH_SECONDS):
                await self._urgent.wait()

    def _overdue(self, now_ms: int) -> dict[Share, None]:
        def is_overdue(share: Share) -> bool:
            return self.degraded or now_ms >= share.unsettled_since_ms + min(MAX_UNSETTLED_MS, share.rate.period_ms / 2)

        return dict.fromkeys(filter(is_overdue, self._due))

    async def _settle(self, due: list[Share]) -> None:
        """Exchange the present state of these with the ledger. With none, see whether Redis is there."""
        self._wake.clear()
        self._urgent.clear()
        self._due_now.clear()
        settlements = [self._take(share) for share in due]
        for start in range(0, max(1, len(settlements)), MAX_BATCH):
            batch = settlements[start : start + MAX_BATCH]
            sent_ms = clock.monotonic_ms()
            try:
                with translated():
                    answers = await self._ask(batch)
                for settlement, answer in zip(batch, answers, strict=True):
                    settlement.share.learn(answer, sent_ms)
            except asyncio.CancelledError:
                _release(settlements[start:])
                raise
            except Exception as error:
                self._redis_failed(settlements[start:], error)
                if not isinstance(error, StoreUnavailable):  # a defect: nobody waits for its mending
                    raise
                return
            _release(batch)
            self._redis_answered()

    def _take(self, share: Share) -> _Settlement:
        settlement = _Settlement(share, share.unsettled, share.wanted, share.smallest_wanted, self._waiting.pop(share, None))
        share.unsettled = share.wanted = share.smallest_wanted = 0
        self._due.pop(share, None)
        return settlement

    async def _ask(self, batch: list[_Settlement]) -> list[Any]:
        """One round trip, and another when Redis does not know the script yet.

        :raises Exception: redis-py's own: no answer, or one that is an error
        """
        async with StallTolerantTimeout(TIMEOUT_SECONDS):
            if not batch:
                await self._redis.ping()
            scripts = [batch[start : start + self._keys_per_command] for start in range(0, len(batch), self._keys_per_command)]
            answers = await self._send("EVALSHA", _SETTLE_SHA, scripts)
            unknown = [index for index, answer in enumerate(answers) if script_unknown(answer)]
            if unknown:
                again = await self._send("EVAL", SETTLE, [scripts[index] for index in unknown])
                for index, answer in zip(unknown, again, strict=True):
                    answers[index] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                if keys_are_apart(answer):  # shards behind a proxy: this once as if Redis were away
                    self._keys_per_command = 1
                raise answer
        return [of_key for answer in answers for of_key in answer]

    async def _send(self, command: str, script: str, scripts: list[list[_Settlement]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for settlements in scripts:
            names = [f"gerbang:{{{share.key_id}}}:ledger:{share.rate.units}/{share.rate.period_ms}" for share, *_ in settlements]
            arguments = [value for share, spent, wanted, smallest, _ in settlements for value in (spent, wanted, smallest, *share.rate)]
            pipeline.execute_command(command, script, len(names), *names, *arguments, SLOTS, "")
        return await pipeline.execute(raise_on_error=False)

    def _redis_failed(self, settlements: list[_Settlement], error: Exception) -> None:
        self._metrics.limit_settlements["failed"] += 1
        if not self.degraded:
            _log.error("limits_per_process", reason=str(error))
        self.degraded = True
        for share, spent, *_ in settlements:
            # Whether Redis has charged it is not known; a whole limit is the most that is held against a key.
            share.unsettled = min(share.unsettled + spent, share.rate.units)
            self._due[share] = None
        _release(settlements)
        waiting, self._waiting = self._waiting, {}  # whoever came while the answer was awaited does not wait for the next attempt
        for share, settled in waiting.items():
            share.wanted = share.smallest_wanted = 0
            _resolve(settled)

    def _redis_answered(self) -> None:
        self._metrics.limit_settlements["settled"] += 1
        if self.degraded:
            _log.info("limits_shared_again")
        self.degraded = False

    def _count(self, metrics: Metrics) -> None:
        metrics.limit_keys = len(self._shares)
        metrics.limits_local = int(self.degraded)


def _release(settlements: list[_Settlement]) -> None:
    """Let the requests that wait continue, by what is known now."""
    for settlement in settlements:
        if settlement.settled is not None:
            _resolve(settlement.settled)


def _resolve(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
