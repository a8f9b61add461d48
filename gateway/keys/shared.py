"""The shared key cache in Redis: sealed key records for all workers and machines. Also bounds queries to a store that may be unavailable.

    gerbang:{<key id>}:record    a sealed record (``codec``), until its validity ends

An outdated record does no harm: its seal binds the position in the change feed at which it was true, and a reader uses it only if it
has seen all later changes (``trust``). The admin service removes it as well, for gateways that cannot read the feed (``admin.feed``).
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar

import structlog
from redis.asyncio import Redis, RedisCluster

from gateway.errors import StoreUnavailable
from gateway.keys.codec import DatedRecord, RecordUnreadable, open_record, seal_record
from gateway.keys.redis_client import translated
from gateway.keys.vault import Vault
from gateway.runtime.tasks import StallTolerantTimeout, in_steps
from gateway.telemetry.metrics import Metrics

TOGETHER = 500
"""Records that one command removes."""
SEALED_AT_ONCE = 25
"""Records that are sealed or opened in one turn of the event loop: about half a millisecond."""
REST_MS = 250
REDIS_SECONDS = 0.25
_SILENT_MS = 500
"""A store that has answered within this time is slow, not unavailable: a single time-out does not divert the next look-ups."""
P = ParamSpec("P")
R = TypeVar("R")
_log = structlog.get_logger(__name__)


class SharedRecords:
    """Reads and writes records. Every method raises :class:`StoreUnavailable` when Redis does not answer."""

    def __init__(self, redis: Redis, vault: Vault) -> None:
        self._redis = redis
        self._vault = vault

    async def read(self, key_ids: Sequence[str]) -> dict[str, DatedRecord]:
        """The stored records, in one round trip. One that does not open is logged and treated as missing."""
        names = [record_key(key_id) for key_id in key_ids]
        get: Any = self._redis.mget_nonatomic if isinstance(self._redis, RedisCluster) else self._redis.mget
        with translated():
            held: list[bytes | None] = await get(names)
        found = {}
        there = [(key_id, sealed) for key_id, sealed in zip(key_ids, held, strict=True) if sealed is not None]
        async for key_id, sealed in in_steps(there, SEALED_AT_ONCE):
            try:
                found[key_id] = open_record(sealed, self._vault, expected_key_id=key_id)
            except RecordUnreadable as error:
                _log.warning("shared_record_unreadable", key_id=key_id, reason=str(error))
        return found

    async def write(self, records: Iterable[DatedRecord], *, now_ms: int) -> None:
        """Store records, each until its validity ends, in one round trip."""
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                async for dated in in_steps(records, SEALED_AT_ONCE):
                    remaining_ms = dated.read_ms + dated.ttl_ms - now_ms
                    if remaining_ms > 0:
                        pipeline.set(record_key(dated.record.key_id), seal_record(dated, self._vault), px=remaining_ms)
                await pipeline.execute()


async def forget(redis: Redis, key_ids: Sequence[str]) -> None:
    """Remove the records of these keys.

    :raises StoreUnavailable: Redis did not accept all of it
    """
    with translated():
        for start in range(0, len(key_ids), TOGETHER):
            await redis.unlink(*map(record_key, key_ids[start : start + TOGETHER]))  # one command per slot of a Cluster


def record_key(key_id: str) -> str:
    """The record's name in Redis; the hash tag in braces puts all names of a key into one slot of a Cluster."""
    return f"gerbang:{{{key_id}}}:record"


class Source:
    """A store with a circuit breaker: after a failure it is not queried for a moment, unless it has answered since the query began; a
    single late answer is not a failure.

    :param name: its name in the metrics
    :param seconds: time limit for an answer; ``None``: the store has its own
    """

    def __init__(self, name: str, metrics: Metrics, now_ms: Callable[[], int], *, seconds: float | None = None) -> None:
        self._name = name
        self._metrics = metrics
        self._now_ms = now_ms
        self._seconds = seconds
        self._rests_until_ms = 0
        self._answered_ms = -_SILENT_MS

    def answered(self) -> None:
        """It has answered somebody: it is queried from now on."""
        self._answered_ms, self._rests_until_ms = self._now_ms(), 0

    async def ask(self, work: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of ``work``.

        :raises StoreUnavailable: the store did not answer, now or a moment ago
        """
        began_ms = self._now_ms()
        if began_ms < self._rests_until_ms:
            raise StoreUnavailable(f"{self._name} did not answer recently; not retried yet")
        try:
            async with StallTolerantTimeout(self._seconds) if self._seconds else nullcontext():
                answer = await work(*args, **kwargs)
        except (StoreUnavailable, TimeoutError) as error:
            now_ms = self._now_ms()
            if self._answered_ms <= (now_ms - _SILENT_MS if isinstance(error, TimeoutError) else began_ms):
                self._rests_until_ms = now_ms + REST_MS
            self._metrics.key_fetches[self._name, "unavailable"] += 1
            raise StoreUnavailable(str(error) or f"{self._name} did not answer") from None
        self.answered()
        return answer

    def count(self, *, found: int, asked: int) -> None:
        """Count in the metrics how many of the requested keys were found."""
        self._metrics.key_fetches[self._name, "found"] += found
        self._metrics.key_fetches[self._name, "absent"] += asked - found
