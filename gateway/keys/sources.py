"""Redis and PostgreSQL as sources of a lookup, each with a short back-off after a failure; one late answer of Redis is no failure yet.

No memory of keys here, and no decision on what may be believed.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from gateway.errors import StoreUnavailable
from gateway.keys.codec import DatedRecord
from gateway.keys.shared import SharedRecords
from gateway.keys.store import Found
from gateway.runtime.tasks import StallTolerantTimeout
from gateway.telemetry.metrics import Metrics

REST_MS = 250
REDIS_SECONDS = 0.25
_SILENT_MS = 500
"""A Redis that has answered since is late, not away: keys that are asked for next are not sent to PostgreSQL for that."""
P = ParamSpec("P")
R = TypeVar("R")


class Finds(Protocol):
    """What a look-up needs of :class:`store.KeyStore`."""

    async def find(self, key_ids: Sequence[str]) -> Found:
        """See :meth:`store.KeyStore.find`."""


class Sources:
    """Redis and PostgreSQL.

    :param monotonic_ms: the clock of the rests
    """

    def __init__(self, store: Finds, shared: SharedRecords, metrics: Metrics, monotonic_ms: Callable[[], int]) -> None:
        self._store = store
        self._shared = shared
        self._metrics = metrics
        self._now_ms = monotonic_ms
        self._redis_rests_until_ms = 0
        self._redis_answered_ms = -_SILENT_MS
        self._postgres_rests_until_ms = 0

    async def shared(self, key_ids: Sequence[str]) -> dict[str, DatedRecord]:
        """The records that Redis holds; none when it does not answer."""
        try:
            records = await self._of_redis(self._shared.read, key_ids)
        except StoreUnavailable:
            return {}
        self._metrics.key_fetches["redis", "found"] += len(records)
        self._metrics.key_fetches["redis", "absent"] += len(key_ids) - len(records)
        return records

    async def share(self, records: Sequence[DatedRecord], *, now_ms: int) -> bool:
        """Put records into Redis; whether it took them."""
        return await self._done(self._shared.write, records, now_ms=now_ms)

    async def forget(self, key_ids: Sequence[str]) -> bool:
        """Remove records from Redis; whether it did. Whoever reads one that is left does not believe it once the feed is read."""
        return await self._done(self._shared.forget, key_ids)

    async def purge(self, key_ids: Sequence[str], is_old: Callable[[DatedRecord], bool]) -> bool:
        """Remove such records from Redis; whether it answered."""
        try:
            held = await self._of_redis(self._shared.read, key_ids)
        except StoreUnavailable:
            return False
        return await self.forget([key_id for key_id, dated in held.items() if is_old(dated)])

    async def find(self, key_ids: Sequence[str]) -> Found:
        """The keys by PostgreSQL.

        :raises StoreUnavailable: PostgreSQL does not answer
        """
        if self._now_ms() < self._postgres_rests_until_ms:
            raise StoreUnavailable("PostgreSQL did not answer recently; not retried yet")
        try:
            found = await self._store.find(key_ids)
        except StoreUnavailable:
            self._postgres_rests_until_ms = self._now_ms() + REST_MS
            self._metrics.key_fetches["postgres", "unavailable"] += 1
            raise
        self._metrics.key_fetches["postgres", "found"] += len(found.records)
        self._metrics.key_fetches["postgres", "absent"] += len(key_ids) - len(found.records)
        return found

    async def _done(self, ask: Callable[P, Awaitable[None]], *args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            await self._of_redis(ask, *args, **kwargs)
        except StoreUnavailable:
            return False
        return True

    async def _of_redis(self, ask: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._now_ms() < self._redis_rests_until_ms:
            raise StoreUnavailable("Redis did not answer recently; not retried yet")
        try:
            async with StallTolerantTimeout(REDIS_SECONDS):
                answer = await ask(*args, **kwargs)
        except (StoreUnavailable, TimeoutError) as error:
            now_ms = self._now_ms()
            if not isinstance(error, TimeoutError) or now_ms - self._redis_answered_ms >= _SILENT_MS:
                self._redis_rests_until_ms = now_ms + REST_MS
            self._metrics.key_fetches["redis", "unavailable"] += 1
            raise StoreUnavailable("Redis did not answer") from None
        self._redis_answered_ms = self._now_ms()
        return answer
