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
from typing import Any, Final, NamedTuple

import structlog
from redis.asyncio import Redis, RedisCluster

from gateway.config.values import Rate
from gateway.errors import StoreUnavailable
from gateway.keys.redis_client import keys_are_apart, script_unknown, translated
from gateway.runtime import clock, gcra
from gateway.runtime.gcra import Charge, ShareNeeded
from gateway.runtime.tasks import Patience, repeat
from gateway.telemetry.metrics import Metrics

SLOTS = 60
"""Slots of time in one period of the ledger."""
CAP: Final = 1.03
"""The ledger's own bound for one period, in limits: see ``settle.lua``."""
SHARE: Final = 100
"""A worker admits one part in this many of the limit before it has settled, however long that takes: what is not settled is bounded."""
WORKERS: Final = 32
"""A worker admits one part in this many of what the ledger has left: so many workers that are used alike end together."""
MAX_KEYS = 100_000
MAX_BATCH = 200
"""Keys settled in one round trip."""
TOGETHER = 50
"""Keys settled by one command, which holds Redis up for half a millisecond."""
GATHER_SECONDS = 0.2
"""For how long keys that are not in a hurry wait for others to be settled with."""
HURRY_MS = 2_000
"""Most of a share used within this time is a hurry: the rest of it may not last for as long as keys are gathered."""
TIMEOUT_SECONDS = 0.5
BEAT_SECONDS = 2.0
"""How often it is looked which keys have waited long enough for a settlement; less where the period is shorter than a minute."""
LONGEST_MS = 30_000.0
"""From the first unit that the ledger does not know of to the settlement, at the most; less where half the period is."""
PAID_MS = 1_000
"""For how long units that were granted may be used: whoever waited for them comes at once, or not at all."""
RETRY_SECONDS = 1.0
"""Between two attempts to reach a Redis that is away."""

SETTLE = Path(__file__).with_name("settle.lua").read_text("utf-8")
_SETTLE_SHA = sha1(SETTLE.encode(), usedforsecurity=False).hexdigest()

_log = structlog.get_logger(__name__)


class _Share:
    """What one worker knows of one key's limit."""

    __slots__ = (
        "answered",
        "closed_ms",
        "each",
        "key_id",
        "learned_ms",
        "most",
        "paid",
        "paid_until_ms",
        "rate",
        "room",
        "since_ms",
        "soon",
        "tat_ms",
        "unsettled",
        "wanted",
    )

    def __init__(self, key_id: str, rate: Rate) -> None:
        self.key_id = key_id
        self.rate = rate
        self.tat_ms = 0.0
        """As the ledger had it, and what was admitted here since: later than the true one at most by what others gave back since."""
        self.room = rate.units
        """Units left in the window, as the ledger had it, less what was admitted here since."""
        self.learned_ms = -1e15
        """When the ledger was asked last."""
        self.closed_ms = 0.0
        """Until when the window is known to have no room."""
        self.unsettled = 0
        """Units admitted that the ledger does not know of."""
        self.most = rate.units // SHARE
        """So many of them and no more."""
        self.soon = self.most * 3 // 4
        """With more than these a settlement is asked for."""
        self.since_ms = 0.0
        """When the first of them was."""
        self.wanted = 0
        """Units that somebody waits for."""
        self.each = 0
        """The smallest weight among those."""
        self.paid = 0
        """Units that the ledger has granted and nobody has used; void after :attr:`paid_until_ms`."""
        self.paid_until_ms = 0.0
        self.answered: asyncio.Future[None] | None = None
        """Done with the next settlement, for those who wait."""


class _Bill(NamedTuple):
    """One key's part of a settlement: taken from its share, so that what comes after is the next one's."""

    share: _Share
    spent: int
    want: int
    each: int
    answered: "asyncio.Future[None] | None"


class KeyLimiter:
    """Limits per key. One for each process; reloads keep it."""

    def __init__(self, redis: Redis, *, metrics: Metrics) -> None:
        self._redis = redis
        self._together = 1 if isinstance(redis, RedisCluster) else TOGETHER
        self._metrics = metrics
        metrics.probes.append(self._count)
        self._shares: dict[str, _Share] = {}
        self._due: dict[_Share, None] = {}
        """To be settled at the next beat."""
        self._pressing: dict[_Share, None] = {}
        """Those of them that cannot wait for it."""
        self._press = asyncio.Event()
        self._hurry = asyncio.Event()
        """One of them cannot wait for company either."""
        self._beat_seconds = BEAT_SECONDS
        self._beat_at = 0.0
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
        if share.paid >= weight > 0 and _take_paid(share, weight, now_ms):
            charge = gcra.charge(share.tat_ms, 0, now_ms, rate)
            if share.room < charge.remaining:  # the window's rule is the tighter one
                charge.remaining = max(0, share.room)
            return charge
        charge = gcra.charge(share.tat_ms, weight, now_ms, rate)
        if not charge.allowed:
            return charge
        if share.room < weight + charge.remaining and not self.degraded:
            charge = _within_window(share, weight, now_ms, charge)
        if weight and charge.allowed:
            self._admit_unsettled(share, weight, now_ms)
            share.tat_ms = charge.tat_ms
        return charge

    def give_back(self, key_id: str, weight: int, rate: Rate) -> None:
        """Undo a charge that was allowed: the request did not pass in the end. The ledger hears of it with the next settlement."""
        share = self._shares.get(key_id)
        if share is None or share.rate != rate:
            return
        share.tat_ms -= weight * rate.period_ms / rate.units
        share.unsettled -= weight
        share.room += weight
        self._due[share] = None

    def used(self, key_id: str, rate: Rate, now_ms: float) -> int:
        """Units used in the last period: as the ledger had it at the last settlement, and what was admitted here since."""
        share = self._shares.get(key_id)
        if share is None or share.rate != rate:
            return 0
        if now_ms - share.learned_ms >= rate.period_ms:  # or never: everything that the ledger knew of is a period old by now
            return max(0, share.unsettled)
        return max(0, int(rate.units * CAP) - share.room)

    async def settled(self, key_id: str, weight: int, rate: Rate) -> None:
        """Ask the ledger for ``weight`` units, in one round trip with everybody who asks. Charge again after it."""
        share = self._shares.get(key_id)
        if share is None or share.rate is not rate:
            share = self._open(key_id, rate)
        if self.degraded:
            return
        if share.answered is None:
            share.answered = asyncio.get_running_loop().create_future()
            share.each = weight
        share.each = min(share.each, weight)
        share.wanted += weight
        self._settle_soon(share, hurry=True)
        await asyncio.shield(share.answered)

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

    def _open(self, key_id: str, rate: Rate) -> _Share:
        known = self._shares.get(key_id)
        if known is not None and known.rate == rate:
            known.rate = rate  # the same limit in another version of the configuration
            return known
        if known is None and len(self._shares) >= MAX_KEYS:
            self._forget()
        self._beat_seconds = min(BEAT_SECONDS, rate.period_ms / 30_000)
        share = self._shares[key_id] = _Share(key_id, rate)
        return share

    def _forget(self) -> None:
        """Drop the tenth of the keys that was opened first, of those that owe nothing if there are any: the ledger remembers them."""
        settled = [share for share in self._shares.values() if share not in self._due]
        for share in (settled or list(self._shares.values()))[: max(1, MAX_KEYS // 10)]:
            del self._shares[share.key_id]
            self._due.pop(share, None)

    def _admit_unsettled(self, share: _Share, weight: int, now_ms: float) -> None:
        unsettled = share.unsettled + weight
        if unsettled > share.most and not self.degraded:
            raise ShareNeeded(share.key_id)
        if not share.unsettled:
            share.since_ms = now_ms
            self._due[share] = None
        share.unsettled = unsettled
        share.room -= weight
        if unsettled > share.soon:
            self._settle_soon(share, hurry=now_ms - share.since_ms < HURRY_MS)

    def _settle_soon(self, share: _Share, *, hurry: bool) -> None:
        self._due[share] = None
        self._pressing[share] = None
        self._press.set()
        if hurry:
            self._hurry.set()

    # -- settlements

    async def _settle_once(self) -> None:
        """Settle when something presses, and at each beat."""
        loop = asyncio.get_running_loop()
        if self.degraded:
            await asyncio.sleep(RETRY_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._beat_at):
                await self._press.wait()
                await self._gather()
        due = dict(self._pressing)
        if loop.time() >= self._beat_at:
            self._beat_at = loop.time() + self._beat_seconds
            due.update(self._overdue(clock.monotonic_ms()))
        if due or self.degraded:
            await self._settle(list(due))

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._hurry.wait()

    def _overdue(self, now_ms: int) -> dict[_Share, None]:
        return {share: None for share in self._due if self.degraded or now_ms >= share.since_ms + min(LONGEST_MS, share.rate.period_ms / 2)}

    async def _settle(self, due: list[_Share]) -> None:
        """Exchange the present state of these with the ledger. With none, see whether Redis is there."""
        self._press.clear()
        self._hurry.clear()
        self._pressing.clear()
        bills = [self._bill(share) for share in due]
        for start in range(0, max(1, len(bills)), MAX_BATCH):
            batch = bills[start : start + MAX_BATCH]
            sent_ms = clock.monotonic_ms()
            try:
                with translated():
                    answers = await self._ask(batch)
                for bill, answer in zip(batch, answers, strict=True):
                    _learn(bill, answer, sent_ms)
            except asyncio.CancelledError:
                _release(bills[start:])
                raise
            except Exception as error:
                self._away(bills[start:], error)
                if not isinstance(error, StoreUnavailable):  # a defect: nobody waits for its mending
                    raise
                return
            self._present()

    def _bill(self, share: _Share) -> _Bill:
        bill = _Bill(share, share.unsettled, share.wanted, share.each, share.answered)
        share.unsettled = share.wanted = share.each = 0
        share.answered = None
        self._due.pop(share, None)
        return bill

    async def _ask(self, batch: list[_Bill]) -> list[Any]:
        """One round trip, and another when Redis does not know the script yet.

        :raises Exception: redis-py's own: no answer, or one that is an error
        """
        async with Patience(TIMEOUT_SECONDS):
            if not batch:
                await self._redis.ping()
            scripts = [batch[start : start + self._together] for start in range(0, len(batch), self._together)]
            answers = await self._send("EVALSHA", _SETTLE_SHA, scripts)
            unknown = [index for index, answer in enumerate(answers) if script_unknown(answer)]
            if unknown:
                again = await self._send("EVAL", SETTLE, [scripts[index] for index in unknown])
                for index, answer in zip(unknown, again, strict=True):
                    answers[index] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                if keys_are_apart(answer):  # shards behind a proxy: this once as if Redis were away
                    self._together = 1
                raise answer
        return [of_key for answer in answers for of_key in answer]

    async def _send(self, command: str, script: str, scripts: list[list[_Bill]]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for bills in scripts:
            names = [f"gerbang:{{{share.key_id}}}:ledger:{share.rate.units}/{share.rate.period_ms}" for share, *_ in bills]
            each = [part for share, spent, want, weight, _ in bills for part in (spent, want, weight, *share.rate)]
            pipeline.execute_command(command, script, len(names), *names, *each, SLOTS, "")
        return await pipeline.execute(raise_on_error=False)

    def _away(self, bills: list[_Bill], error: Exception) -> None:
        self._metrics.limit_settlements["failed"] += 1
        if not self.degraded:
            _log.error("limits_per_process", reason=str(error))
        self.degraded = True
        for share, spent, *_ in bills:
            # Whether Redis has charged it is not known; a whole limit is the most that is held against a key.
            share.unsettled = min(share.unsettled + spent, share.rate.units)
            self._due[share] = None
        _release(bills)
        for share in self._due:  # whoever came while the answer was awaited does not wait for the next attempt
            if share.answered is not None:
                _answer(share.answered)
                share.answered = None
                share.wanted = share.each = 0

    def _present(self) -> None:
        self._metrics.limit_settlements["settled"] += 1
        if self.degraded:
            _log.info("limits_shared_again")
        self.degraded = False

    def _count(self, metrics: Metrics) -> None:
        metrics.limit_keys = len(self._shares)
        metrics.limits_local = int(self.degraded)


def _take_paid(share: _Share, weight: int, now_ms: float) -> bool:
    if now_ms > share.paid_until_ms:
        share.paid = 0
        return False
    share.paid -= weight
    return True


def _within_window(share: _Share, weight: int, now_ms: float, charge: Charge) -> Charge:
    """GCRA's yes, when the window may have less room."""
    room = max(0, share.room)
    if weight <= room:
        return Charge(True, charge.tat_ms, room - weight, charge.reset_ms, 0.0)  # in half the time of _replace
    if now_ms >= share.closed_ms:
        raise ShareNeeded(share.key_id)
    wait_ms = share.closed_ms - now_ms
    return Charge(allowed=False, tat_ms=share.tat_ms, remaining=room, reset_ms=wait_ms, retry_after_ms=wait_ms)


def _learn(bill: _Bill, answer: list[Any], sent_ms: int) -> None:
    """Take over what the ledger says, and add what was admitted while it was being asked."""
    share, rate = bill.share, bill.share.rate
    granted, tat_in_ms, room, closed_in_ms = int(answer[0]), float(answer[1]), int(answer[2]), float(answer[3])
    share.tat_ms = sent_ms + tat_in_ms + share.unsettled * rate.period_ms / rate.units
    share.room = room - share.unsettled
    share.most = min(rate.units // SHARE, max(0, room) // WORKERS)
    share.soon = share.most * 3 // 4
    share.learned_ms = float(sent_ms)
    share.closed_ms = sent_ms + closed_in_ms if closed_in_ms else 0.0
    if granted:
        share.paid = granted + (share.paid if sent_ms <= share.paid_until_ms else 0)
        share.paid_until_ms = float(sent_ms + PAID_MS)
    _release([bill])


def _release(bills: list[_Bill]) -> None:
    """Let those who wait go on, by what is known now."""
    for bill in bills:
        if bill.answered is not None:
            _answer(bill.answered)


def _answer(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
