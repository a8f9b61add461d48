"""Distributed rate limiting per key and per account, exact across workers and machines. Uses Redis.

Admission does not normally wait for Redis. A worker admits a small share of the limit on its own. In the background it settles with
the ledger in Redis: it reports what it has admitted and learns what other workers have. It does so when most of its share is used, and
after half a period at the latest, so that a key far below its limit rarely needs a round trip. Keys that are not urgent are settled
together, many in one command. Only a request that would exceed the share waits for the next settlement.

    gerbang:{<key id>, or account:<id>}:ledger:<units>/<period ms>   the ledger: ``tat`` (see ``gcra``), and units by slot of time

The ledger applies two rules: GCRA, and that no period admits more than 3 % above the limit, which GCRA alone does not ensure
(a full burst followed by the steady rate comes to twice the limit). Each worker's share is 1 %, or less when under a third is left: two
workers stay within 5 %, and so do many evenly loaded ones.
"""

import asyncio
from contextlib import suppress
from hashlib import sha1
from itertools import islice
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
from gateway.runtime.tasks import StallTolerantTimeout, cancel, repeat, wait_at_most
from gateway.telemetry.metrics import Metrics

SLOTS = 60
"""Slots of time in one period of the ledger."""
MAX_KEYS = 100_000
EVICTED_AT_ONCE = 500
"""Keys of which one eviction asks whether they have something to settle: a tenth of a millisecond, with all of them a long turn."""
MAX_BATCH = 50
"""Keys settled in one round trip: few enough that preparing them does not block the event loop."""
CHECKED_AT_ONCE = 500
"""Keys of which one turn of the event loop asks whether they are overdue."""
KEYS_PER_COMMAND = 50
"""Keys settled by one command, which occupies Redis for half a millisecond."""
BATCH_MS = 200
"""How long keys that are not urgent wait to be settled in a batch."""
URGENT_MS = 2_000
"""A settlement is urgent if most of the share was used within this time: the rest may not last until the next batch."""
TIMEOUT_SECONDS = 0.5
INTERVAL_SECONDS = 2.0
"""Interval between checks for overdue settlements; shorter if a limit's period is shorter than a minute."""
MAX_UNSETTLED_MS = 30_000.0
"""Longest time from the first unreported unit to the settlement; at most half the period."""
RETRY_SECONDS = 1.0
"""Interval between attempts to reach Redis while it is unavailable."""

SETTLE = Path(__file__).with_name("settle.lua").read_text("utf-8")
_SETTLE_SHA = sha1(SETTLE.encode(), usedforsecurity=False).hexdigest()

_log = structlog.get_logger(__name__)


class _Settlement(NamedTuple):
    """One key's part of a settlement, taken from its share: later charges belong to the next settlement."""

    share: Share
    spent: int
    wanted: int
    smallest_wanted: int
    settled: "asyncio.Future[None] | None"
    """Resolved for the waiting requests once the ledger has answered."""


class KeyLimiter:
    """Limits per key. One for each process, kept across reloads."""

    def __init__(self, redis: Redis, *, metrics: Metrics) -> None:
        self._redis = redis
        self._keys_per_command = 1 if isinstance(redis, RedisCluster) else KEYS_PER_COMMAND
        self._metrics = metrics
        metrics.probes.append(self._count)
        self._shares: dict[str, Share] = {}
        self._due: dict[Share, None] = {}
        """Shares to be settled at the next interval."""
        self._due_now: dict[Share, None] = {}
        """Shares that cannot wait for it."""
        self._waiting: dict[Share, asyncio.Future[None]] = {}
        """Futures of the keys whose next settlement requests are waiting for."""
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        """Set when one of them is too urgent to be batched."""
        self._interval_seconds = INTERVAL_SECONDS
        self._interval_ends = 0.0
        """In the event loop's time."""
        self._unchecked: list[Share] = []
        """Shares that were due when the interval ended, of which those that are overdue are to be settled."""
        self._recovering = False
        """Whether Redis was unavailable then: all of them are to be settled."""
        self._task: asyncio.Task[None] | None = None
        self._settling = asyncio.Lock()
        """Held during each round trip: one that is interrupted may have been charged, and would be charged again."""
        self.degraded = False
        """True while Redis is unavailable and each process limits on its own."""

    def charge(self, key_id: str, weight: int, rate: Rate, now_ms: float) -> Charge:
        """Charge a request to its key's limit.

        :param weight: 0 charges nothing and returns the current state
        :param now_ms: monotonic milliseconds
        :raises ShareNeeded: a settlement must come first: await :meth:`settled`
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
        """Refund the charge of a request that was refused afterwards. The next settlement reports it to the ledger."""
        share = self._shares.get(key_id)
        if share is None or share.rate != rate:
            return
        share.give_back(weight)
        self._due[share] = None

    def used(self, key_id: str, rate: Rate, now_ms: float) -> int:
        """Units used in the last period: the ledger's count at the last settlement, plus what was admitted here since."""
        share = self._shares.get(key_id)
        return 0 if share is None or share.rate != rate else share.used(now_ms)

    async def settled(self, key_id: str, weight: int, rate: Rate) -> None:
        """Request ``weight`` units from the ledger, in one round trip with all other requests. Call :meth:`charge` again after it."""
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
        """Start settling in the background."""
        self._task = repeat(self._settle_once, name="settle limits")

    async def stop(self) -> None:
        """Settle what is outstanding, and stop. A round trip in progress is awaited, for at most its time limit."""
        if self._task is not None:
            async with self._settling:
                await cancel(self._task)
            self._task = None
        await self._settle(list(self._due))

    # -- decisions of this worker alone

    def _open(self, key_id: str, rate: Rate) -> Share:
        known = self._shares.get(key_id)
        if known is not None and known.rate == rate:
            known.rate = rate  # the limit of a newer configuration version
            return known
        if known is None and len(self._shares) >= MAX_KEYS:
            self._evict()
        self._interval_seconds = min(INTERVAL_SECONDS, rate.period_ms / 30_000)
        share = self._shares[key_id] = Share(key_id, rate)
        return share

    def _evict(self) -> None:
        """Evict those of the oldest keys that have nothing to settle, since the ledger has their state; the oldest one if all have."""
        oldest = list(islice(self._shares.values(), EVICTED_AT_ONCE))
        for share in oldest:
            del self._shares[share.key_id]
            if share in self._due:  # others are next
                self._shares[share.key_id] = share
        if len(self._shares) >= MAX_KEYS:
            del self._shares[oldest[0].key_id]
            del self._due[oldest[0]]

    def _settle_later(self, share: Share, unsettled: int, now_ms: float) -> None:
        """Mark the share as due for settlement because of its unsettled units.

        :raises ShareNeeded: there are too many
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
        """Settle what is due, and at each interval what is overdue."""
        loop = asyncio.get_running_loop()
        if self.degraded:
            await asyncio.sleep(RETRY_SECONDS)
        if self._unchecked:  # those that cannot wait are settled between the others
            await asyncio.sleep(0)
        else:
            await self._wait_for_interval()
        if loop.time() >= self._interval_ends and not self._unchecked:
            self._interval_ends = loop.time() + self._interval_seconds
            self._unchecked, self._recovering = list(self._due), self.degraded
        due, self._due_now = self._due_now, {}
        self._wake.clear()  # even if nobody is left who asked: while both are set, nothing here gives up the event loop
        self._urgent.clear()
        due.update(self._overdue(clock.monotonic_ms()))
        if due or self.degraded:
            await self._settle(list(due))

    async def _wait_for_interval(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._interval_ends):
                await self._wake.wait()
                await wait_at_most(self._urgent, BATCH_MS)

    def _overdue(self, now_ms: int) -> dict[Share, None]:
        """The overdue ones among the next shares to be checked."""

        def is_overdue(share: Share) -> bool:
            waited_ms = now_ms - share.unsettled_since_ms
            return share in self._due and (self._recovering or waited_ms >= min(MAX_UNSETTLED_MS, share.rate.period_ms / 2))

        some = self._unchecked[-CHECKED_AT_ONCE:]
        del self._unchecked[-CHECKED_AT_ONCE:]
        return dict.fromkeys(filter(is_overdue, some))

    async def _settle(self, due: list[Share]) -> None:
        """Settle these shares with the ledger. Without any, check whether Redis is available."""
        for start in range(0, max(1, len(due)), MAX_BATCH):
            async with self._settling:
                if not await self._settle_batch(due[start : start + MAX_BATCH]):
                    return

    async def _settle_batch(self, shares: list[Share]) -> bool:
        """One round trip. Returns whether Redis has answered."""
        batch = [self._take(share) for share in shares]
        sent_ms = clock.monotonic_ms()
        try:
            with translated():
                answers = await self._ask(batch)
            for settlement, answer in zip(batch, answers, strict=True):
                settlement.share.learn(answer, sent_ms)
        except asyncio.CancelledError:
            self._put_back(batch)
            raise
        except Exception as error:
            self._redis_failed(batch, error)
            if not isinstance(error, StoreUnavailable):  # a defect, which retrying will not fix
                raise
            return False
        _release(batch)
        self._redis_answered()
        return True

    def _take(self, share: Share) -> _Settlement:
        settlement = _Settlement(share, share.unsettled, share.wanted, share.smallest_wanted, self._waiting.pop(share, None))
        share.unsettled = share.wanted = share.smallest_wanted = 0
        self._due.pop(share, None)
        self._due_now.pop(share, None)  # it may have asked while an earlier batch was settled
        return settlement

    async def _ask(self, batch: list[_Settlement]) -> list[Any]:
        """One round trip, or two if Redis has not loaded the script yet.

        :raises Exception: redis-py's errors: no answer, or an error reply
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
                if keys_are_apart(answer):  # shards behind a proxy: treated as unavailable this time
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
        self._unchecked.clear()  # after the next interval all are settled
        self._put_back(settlements)
        waiting, self._waiting = self._waiting, {}  # requests that arrived meanwhile do not wait for the next attempt
        for share, settled in waiting.items():
            share.wanted = share.smallest_wanted = 0
            _resolve(settled)

    def _put_back(self, settlements: list[_Settlement]) -> None:
        """It is not known whether Redis has charged it; a key is charged at most one whole limit."""
        for share, spent, *_ in settlements:
            share.unsettled = min(share.unsettled + spent, share.rate.units)
            self._due[share] = None
        _release(settlements)

    def _redis_answered(self) -> None:
        self._metrics.limit_settlements["settled"] += 1
        if self.degraded:
            _log.info("limits_shared_again")
        self.degraded = False

    def _count(self, metrics: Metrics) -> None:
        metrics.limit_keys = len(self._shares)
        metrics.limits_local = int(self.degraded)


def _release(settlements: list[_Settlement]) -> None:
    """Let the waiting requests continue with the state known now."""
    for settlement in settlements:
        if settlement.settled is not None:
            _resolve(settlement.settled)


def _resolve(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
