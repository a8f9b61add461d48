"""The two stores that a look-up asks, each left alone for a moment after it did not answer, so that an outage costs one wait.

No memory of keys here, and no decision on what may be believed beyond asking :mod:`trust` whether Redis may be asked at all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from gateway.errors import StoreUnavailable
from gateway.keys.codec import DatedRecord
from gateway.keys.record import KeyRecord
from gateway.keys.shared import SharedRecords
from gateway.keys.store import StoreBusy
from gateway.keys.trust import Now, Shared, Trust
from gateway.telemetry.metrics import Metrics

REST_MS = 250
REDIS_SECONDS = 0.25
P = ParamSpec("P")
R = TypeVar("R")


class Finds(Protocol):
    """What a look-up needs of :class:`store.KeyStore`."""

    async def find(self, key_id: str, *, known: bool = False) -> KeyRecord | None:
        """See :meth:`store.KeyStore.find`."""

    async def find_many(self, key_ids: Sequence[str]) -> dict[str, KeyRecord]:
        """See :meth:`store.KeyStore.find_many`."""


class Sources:
    """Redis and PostgreSQL."""

    def __init__(self, store: Finds, shared: SharedRecords, trust: Trust, metrics: Metrics, now: Callable[[], Now]) -> None:
        self._store = store
        self._shared = shared
        self._trust = trust
        self._metrics = metrics
        self._now = now
        self._redis_rests_until_ms = 0
        self._postgres_rests_until_ms = 0

    async def shared(self, key_id: str) -> Shared | None:
        """What Redis holds; ``None`` when it does not answer, or is not believed for this key for now."""
        if not self._trust.may_share(key_id, self._now().ms):
            return None
        try:
            shared = await self._of_redis(self._shared.read, key_id)
        except StoreUnavailable:
            return None
        self._metrics.key_fetches["redis", shared.kind] += 1
        return shared

    async def changed(self, key_ids: Sequence[str]) -> dict[str, int]:
        """When each key changed (Unix ms) over which a tombstone stands, as far as Redis answers."""
        try:
            return await self._of_redis(self._shared.changed, key_ids)
        except StoreUnavailable:
            return {}

    async def share(self, key_id: str, record: KeyRecord | None, read: Now, *, ttl_ms: int) -> None:
        """Bring Redis up to date with PostgreSQL's answer. A change that happened meanwhile has its tombstone in the way."""
        now = self._now()
        if not self._trust.may_share(key_id, now.ms):
            return
        try:
            if record is None:
                await self._of_redis(self._shared.entomb, key_id, now_ms=now.wall_ms)
            else:
                await self._of_redis(self._shared.write, DatedRecord(record, read.wall_ms, ttl_ms), now_ms=now.wall_ms)
        except StoreUnavailable:
            return  # the next refresh tries again

    async def find(self, key_id: str, *, known: bool) -> KeyRecord | None:
        """The key by PostgreSQL.

        :raises StoreUnavailable: PostgreSQL does not answer
        :raises RecordUnreadable: see :meth:`store.KeyStore.find`
        """
        record = await self._of_postgres(self._store.find, key_id, known=known)
        self._metrics.key_fetches["postgres", "absent" if record is None else "found"] += 1
        return record

    async def find_many(self, key_ids: Sequence[str]) -> dict[str, KeyRecord]:
        """Known keys by PostgreSQL; what is missing is none that can be used.

        :raises StoreUnavailable: PostgreSQL does not answer
        """
        records = await self._of_postgres(self._store.find_many, key_ids)
        self._metrics.key_fetches["postgres", "found"] += len(records)
        self._metrics.key_fetches["postgres", "absent"] += len(key_ids) - len(records)
        return records

    async def _of_redis(self, ask: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._now().ms < self._redis_rests_until_ms:
            raise StoreUnavailable("Redis did not answer a moment ago")
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                return await ask(*args, **kwargs)
        except (StoreUnavailable, TimeoutError):
            self._redis_rests_until_ms = self._now().ms + REST_MS
            self._metrics.key_fetches["redis", "unavailable"] += 1
            raise StoreUnavailable("Redis did not answer") from None

    async def _of_postgres(self, ask: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._now().ms < self._postgres_rests_until_ms:
            raise StoreUnavailable("PostgreSQL did not answer a moment ago")
        try:
            return await ask(*args, **kwargs)
        except StoreBusy:
            raise  # PostgreSQL itself is well
        except StoreUnavailable:
            self._postgres_rests_until_ms = self._now().ms + REST_MS
            self._metrics.key_fetches["postgres", "unavailable"] += 1
            raise
