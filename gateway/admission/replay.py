"""The replay guard: each signature is accepted once within its time window, across all workers and machines. Uses Redis.

A signature used by a read may be used by further reads, since two different reads may have equal signed bytes (Binance signs
neither method nor path), but never by a trade. A signature used by a trade is never accepted again.

    gerbang:{<key id>}:replay:<digest of the signature>    ``read`` or ``trade``, set by the first, until its window has passed

Claims made while a round trip is under way share the next one, so round trips are few however many claims there are. After a lost reply it
is not known whether a claim took effect, so it is not repeated: an unknown outcome is a refusal, unless the operator chose
``replay_outage = "allow"``, or only the dialect requires the claim. What passes then is remembered (``unrecorded``).

A replay that is sent again is refused from memory, without a command to Redis.

Residual risk: Redis replicates asynchronously, so a claim that was acknowledged right before a failover (Sentinel, Cluster) can be lost
with its primary. The same signature could then pass once more within the rest of its window.
"""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b

import structlog
from redis.asyncio import Redis

from gateway.admission.unrecorded import Unrecorded
from gateway.errors import Refusal, ReplayedRequest, ReplayGuardUnavailable, StoreUnavailable
from gateway.keys.redis_client import translated
from gateway.keys.redis_line import Command, RedisLine, ask_all, packed_set
from gateway.runtime import clock
from gateway.runtime.tasks import StallTolerantTimeout, spawn
from gateway.telemetry.metrics import Metrics

TIMEOUT_SECONDS = 0.5
"""Time limit for a batch, including the wait for a connection."""
MAX_BATCH = 256
PATIENCE_MS = 20
"""A round trip that takes longer does not delay the next: one node of a cluster may be unavailable."""
LOG_EVERY_MS = 10_000
REMEMBERED = 4_096
"""Maximum number of replays remembered in memory; for a forgotten one Redis is queried again."""
RECORD_AGAIN_SECONDS = 0.05
"""Interval between attempts to record in Redis the signatures that passed without it."""
_NO_REPLY = StoreUnavailable("Redis did not answer every command")
_READ, _TRADE = b"read", b"trade"

_log = structlog.get_logger(__name__)

Answered = Callable[[Refusal | None], None]
"""Called with the refusal of a claim; ``None``: it was the first."""


class _Claim:
    __slots__ = ("answered", "key_id", "name", "outage", "shared", "ttl_ms")

    def __init__(self, key_id: str, name: str, ttl_ms: int, outage: str, answered: Answered, *, shared: bool) -> None:
        self.shared = shared
        self.key_id = key_id
        self.name = name
        self.ttl_ms = ttl_ms
        self.outage = outage
        self.answered = answered


class ReplayGuard:
    """See the module. One for each process, kept across reloads."""

    def __init__(self, redis: Redis, *, metrics: Metrics) -> None:
        self._redis = redis
        self._line = RedisLine.of(redis)
        """``None`` for a Redis Cluster."""
        self._metrics = metrics
        self._waiting: list[_Claim] = []
        self._asking = 0
        """Number of round trips under way."""
        self._asked_ms = 0
        """When the latest one began."""
        self._logged_ms = -LOG_EVERY_MS
        self._replayed: dict[tuple[str, bool], int] = {}
        """By name and ``shared``: until when such a claim is known to be a replay, in monotonic milliseconds."""
        self._unrecorded = Unrecorded()
        self._recording = False

    def ask(self, key_id: str, signature: bytes, answered: Answered, *, ttl_ms: int, outage: str, shared: bool = False) -> None:
        """Claim a signature, which succeeds if it was not used before.

        :param answered: called once, never before this returns; with :class:`ReplayedRequest` or :class:`ReplayGuardUnavailable`
        :param ttl_ms: how long from now the same signature could pass every other check
        :param outage: ``deny`` or ``allow``: the outcome if Redis does not answer
        :param shared: whether it is a read, which may reuse a signature that only reads have used
        """
        digest = blake2b(signature, digest_size=16).hexdigest()
        claim = _Claim(key_id, f"gerbang:{{{key_id}}}:replay:{digest}", ttl_ms, outage, answered, shared=shared)
        if self._replayed and self._replayed.get((claim.name, shared), 0) > clock.monotonic_ms():
            self._metrics.replay_claims["repeated"] += 1
            refusal = _replayed()
            refusal.repeated = True
            asyncio.get_running_loop().call_soon(answered, refusal)
        elif self._passed_before(claim):
            asyncio.get_running_loop().call_soon(self._settle, claim, None)
        elif not self._asking or clock.monotonic_ms() - self._asked_ms >= PATIENCE_MS:
            self._begin_asking()
            self._waiting.append(claim)
        else:
            self._waiting.append(claim)
            if self._waiting[0] is claim:
                self._watch_first()

    def _begin_asking(self) -> None:
        self._asking += 1
        self._asked_ms = clock.monotonic_ms()
        spawn(self._ask_until_empty(), name="claim signatures")

    def _watch_first(self) -> None:
        """Watch the time limit of the first round trip, since no later claim may come to do so."""
        asyncio.get_running_loop().call_later(PATIENCE_MS / 1000, self._abandon, self._waiting[0])

    def _abandon(self, claim: _Claim) -> None:
        if self._waiting and self._waiting[0] is claim:
            self._begin_asking()

    async def _ask_until_empty(self) -> None:
        try:
            while self._waiting:
                self._asked_ms = clock.monotonic_ms()
                claims, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                if self._waiting:
                    self._watch_first()
                replies: Sequence[object] = [_NO_REPLY] * len(claims)
                try:
                    replies = _by_claim(claims, await self._ask(_commands(claims, pack=self._line is not None)))
                finally:
                    for claim, reply in zip(claims, replies, strict=True):
                        self._settle(claim, reply)
        finally:
            self._asking -= 1

    async def _ask(self, commands: list[Command]) -> Sequence[object]:
        """A reply to each command; an exception where there is none."""
        self._metrics.replay_round_trips += 1
        try:
            with translated():
                async with StallTolerantTimeout(TIMEOUT_SECONDS):
                    return await ask_all(self._redis, self._line, commands)
        except StoreUnavailable as error:
            return [error] * len(commands)

    def _passed_before(self, claim: _Claim) -> bool:
        """Whether the signature was used while Redis was unavailable, in a way that rules out this claim."""
        return bool(self._unrecorded) and self._unrecorded.refuses(claim.name, clock.monotonic_ms(), shared=claim.shared)

    def _remember(self, claim: _Claim) -> None:
        """Remember a claim that passed without Redis; until Redis has recorded it, this process refuses what Redis would."""
        self._unrecorded.add(claim.name, claim.key_id, clock.monotonic_ms() + claim.ttl_ms, shared=claim.shared)
        if not self._recording:
            self._recording = True
            spawn(self._record(), name="record signatures that passed without Redis")

    async def _record(self) -> None:
        try:
            while due := self._unrecorded.due(clock.monotonic_ms()):
                commands: list[Command] = [_passed(name, ttl_ms, shared=shared) for name, shared, ttl_ms in due]
                replies = await self._ask(commands)
                for (name, _, _), reply in zip(due, replies, strict=True):
                    if not isinstance(reply, Exception):
                        self._unrecorded.recorded(name)
                if any(isinstance(reply, Exception) for reply in replies):
                    await asyncio.sleep(RECORD_AGAIN_SECONDS)
        finally:
            self._recording = False

    def _settle(self, claim: _Claim, reply: object) -> None:
        """Report the outcome of one claim. Any reply other than yes or no is treated as no answer."""
        refusal: Refusal | None = None
        if self._passed_before(claim):
            reply = None
        if reply is True:
            outcome = "first"
        elif reply is None:
            outcome = "replayed"
            refusal = _replayed()
            if len(self._replayed) >= REMEMBERED:
                del self._replayed[next(iter(self._replayed))]
            self._replayed[claim.name, claim.shared] = clock.monotonic_ms() + claim.ttl_ms
        else:
            outcome = "let_pass" if claim.outage == "allow" else "refused"
            reason = str(reply) if isinstance(reply, StoreUnavailable) else f"Redis answered a claim with {_named(reply)}"
            self._log_outage(reason, outcome)
            if claim.outage == "allow":
                self._remember(claim)
            else:
                refusal = ReplayGuardUnavailable(
                    "the gateway could not determine whether this is a replay, so the request was not executed; sign it again and retry",
                    reason=reason,
                )
        self._metrics.replay_claims[outcome] += 1
        try:
            claim.answered(refusal)
        except Exception as error:  # noqa: BLE001 - a defect of one claimant, for which no other may miss its answer
            _log.error("claimant_failed", exc_info=error)

    def _log_outage(self, reason: str, outcome: str) -> None:
        now_ms = clock.monotonic_ms()
        if now_ms - self._logged_ms >= LOG_EVERY_MS:
            self._logged_ms = now_ms
            _log.error("replay_guard_unavailable", outcome=outcome, reason=reason)


def _replayed() -> ReplayedRequest:
    return ReplayedRequest(
        "a request with this signature was already accepted, and this one was not executed: check the outcome of the first request "
        "(query the order or the open orders) before you continue"
    )


def _named(reply: object) -> str:
    return str(reply) if isinstance(reply, Exception) else type(reply).__name__


def _commands(claims: list[_Claim], *, pack: bool) -> list[Command]:
    commands: list[Command] = []
    for claim in claims:
        if pack:
            commands.append(packed_set(claim.name.encode(), _READ if claim.shared else _TRADE, claim.ttl_ms))
        else:
            commands.append(_set(claim.name, claim.ttl_ms, shared=claim.shared))
        if claim.shared:
            commands.append(("GET", claim.name))
    return commands


def _set(name: str, ttl_ms: int, *, shared: bool) -> tuple[str | bytes | int, ...]:
    return ("SET", name, _READ if shared else _TRADE, "PX", ttl_ms, "NX")


def _passed(name: str, ttl_ms: int, *, shared: bool) -> tuple[str | bytes | int, ...]:
    """The command that records a signature that has passed: a trade overwrites any entry, a read is recorded only where there is none."""
    return _set(name, ttl_ms, shared=True) if shared else ("SET", name, _TRADE, "PX", ttl_ms)


def _by_claim(claims: list[_Claim], replies: Sequence[object]) -> list[object]:
    """One reply for each claim: ``True`` for the first use, ``None`` for a replay, an exception for neither."""
    found: list[object] = []
    rest = iter(replies)
    for claim in claims:
        reply = next(rest)
        if reply == b"OK":  # which redis-py's pipeline returns as True
            reply = True
        if claim.shared:
            used_by = next(rest)
            if reply is None:
                reply = True if used_by == _READ else used_by if isinstance(used_by, Exception) else None
        found.append(reply)
    return found
