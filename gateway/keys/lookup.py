"""Finding a key: process memory, then Redis, then PostgreSQL. One look-up per key at a time, refreshed before it is missed.

What is promised, and how:

* What is used was read from PostgreSQL, by whatever gate, at most ``local_ttl`` ago. A record of Redis counts by the age in its seal.
  So with every notice of a change lost, the change still takes effect within ``local_ttl`` (and what clocks differ by).
* A change that is noticed takes effect at once. A look-up that is under way then is run again: what it read may be the past.
  From then on, for as long as an old record could be valid, this process does not believe Redis for that key.
* A record of Redis that was read before this process could hear of changes is used only when PostgreSQL cannot answer.
* When PostgreSQL cannot answer, a key goes on from memory as long as the messages of Redis have come without a gap since it was read,
  otherwise until ``stale_limit``; and from Redis while its seal is valid. A key that is known to have changed never does.
* An unknown id is never written to Redis, and waits in a line of its own for PostgreSQL.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol

import structlog

from gateway import clock
from gateway.config import Cache
from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys.cache import ABSENT, Absent, Entry, KeyCache, T
from gateway.keys.codec import DatedRecord, RecordUnreadable
from gateway.keys.invalidation import Channels
from gateway.keys.record import KeyRecord
from gateway.keys.shared import TOMBSTONE_TTL_MS, Shared, SharedRecords
from gateway.keys.store import StoreBusy
from gateway.tasks import cancel, spawn
from gateway.telemetry.metrics import Metrics

CLOCKS_DIFFER_MS = 2_000
"""How far the clocks of two machines may be apart. Signed requests are refused at a few seconds, so they are kept."""
_YOUNG = 0.6
"""Share of ``local_ttl`` up to which a record of Redis is used as it is; from here on a key in use is refreshed."""
_SPREAD = 0.2
"""Share of ``local_ttl`` over which workers spread their refreshes: the first asks PostgreSQL, the others find its record in Redis."""
_RETRY_MS = 1_000
"""During an outage a key in use is asked for again this often."""
_REST_MS = 250
"""How long a store that did not answer is left alone: an outage costs one wait, not one per request."""
_REDIS_SECONDS = 0.25
_ATTEMPTS = 5
_MOST_DISTRUSTED = 100_000
_log = structlog.get_logger(__name__)


class Finds(Protocol):
    """What a look-up needs of :class:`store.KeyStore`."""

    async def find(self, key_id: str, *, known: bool = False) -> KeyRecord | None:
        """See :meth:`store.KeyStore.find`."""


class _Aged(NamedTuple):
    """A record and when it was read from PostgreSQL, in this process's monotonic milliseconds."""

    record: KeyRecord
    read_ms: int


class _Answer(NamedTuple):
    """What the stores say. ``record`` is ``None`` for a key that does not exist or cannot be used."""

    record: KeyRecord | None
    read_ms: int
    shared: Shared | None = None
    """What stood in Redis, when PostgreSQL's answer may take its place."""
    read_wall_ms: int = 0
    outage: bool = False
    """PostgreSQL did not answer: usable for a moment, whatever its age."""


class _Failure(NamedTuple):
    """Neither store can say."""

    reason: str


class _Flight(Generic[T]):
    """One look-up under way."""

    __slots__ = ("dirty", "task")

    def __init__(self) -> None:
        self.dirty = False
        """The key changed since the stores were asked."""
        self.task: asyncio.Task[T | Absent | _Failure]


class KeyLookup(Generic[T]):
    """Keys by id, as values of ``T`` that ``prepare`` makes of a record once and that stay the same object until the record changes.

    :param prepare: may raise ``ValueError`` for a record that cannot be used: that key is refused, no other
    :param channels: kept by the :class:`InvalidationListener` that calls :meth:`invalidate`
    """

    def __init__(
        self,
        store: Finds,
        shared: SharedRecords,
        channels: Channels,
        settings: Cache,
        *,
        prepare: Callable[[KeyRecord], T],
        metrics: Metrics | None = None,
        wall_ms: Callable[[], int] = clock.now_ms,
        monotonic_ms: Callable[[], int] = clock.monotonic_ms,
    ) -> None:
        self._store = store
        self._shared = shared
        self._channels = channels
        self._settings = settings
        self._prepare = prepare
        self._metrics = metrics or Metrics()
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._cache: KeyCache[T] = KeyCache(settings.local_entries)
        self._present = self._cache.present
        self._flights: dict[str, _Flight[T]] = {}
        self._believe_from_ms = 0
        self._distrusted: OrderedDict[str, int] = OrderedDict()
        self._distrust_all_until_ms = 0
        self._redis_rests_until_ms = 0
        self._postgres_rests_until_ms = 0

    def peek(self, key_id: str, now_ms: int) -> T | Absent | None:
        """What memory says, for the hot path: a value, ``ABSENT``, or ``None``: call :meth:`fetch`.

        :param now_ms: monotonic milliseconds
        """
        entry = self._present.get(key_id)
        if entry is not None and now_ms < entry.refresh_from_ms:
            return entry.value
        return self._peek_further(key_id, entry, now_ms)

    def _peek_further(self, key_id: str, entry: Entry[T] | None, now_ms: int) -> T | Absent | None:
        if entry is None:
            return ABSENT if self._cache.is_absent(key_id, now_ms) else None
        if now_ms >= entry.fresh_until_ms:
            return None
        entry.refresh_from_ms = entry.fresh_until_ms  # once
        if key_id not in self._flights:
            self._metrics.key_refreshes += 1
            self._start(key_id)
        return entry.value

    async def fetch(self, key_id: str) -> T | None:
        """The key's value; ``None`` when there is no such key. Waits for a look-up of the same key that is under way.

        Whoever gives up waiting does not disturb the look-up.

        :param key_id: well-formed (``ids.is_key_id``); others are never asked for
        :raises KeyStoreUnavailable: neither store can say
        """
        found: T | Absent | _Failure | None = self.peek(key_id, self._monotonic_ms())
        if found is None:
            self._metrics.cache_misses += 1
            flight = self._flights.get(key_id) or self._start(key_id)
            found = await asyncio.shield(flight.task)
        if isinstance(found, _Failure):
            raise KeyStoreUnavailable("The key cannot be looked up at the moment; try again shortly.", reason=found.reason)
        return None if found is ABSENT else found

    def invalidate(self, key_id: str | None) -> None:
        """Believe nothing read before now: of one key, or (``None``) of any, because a notice may have been missed."""
        now_ms = self._monotonic_ms()
        if key_id is None:
            self._believe_from_ms = now_ms
            self._cache.expire()
            for flight in self._flights.values():
                flight.dirty = True
            return
        self._cache.drop(key_id)
        self._distrust(key_id, now_ms)
        if key_id in self._flights:
            self._flights[key_id].dirty = True

    def configure(self, settings: Cache) -> None:
        """Take over new settings; they hold for whatever is looked up from now on."""
        self._settings = settings
        self._cache.resize(settings.local_entries)

    def sizes(self) -> dict[str, int]:
        """How many keys and absent ids are remembered, and how many look-ups are under way."""
        return {"present": len(self._cache), "absent": self._cache.absent_count, "flights": len(self._flights)}

    async def aclose(self) -> None:
        """Give up the look-ups under way."""
        await cancel(*(flight.task for flight in self._flights.values()))

    # -- one look-up ---------------------------------------------------------------------------------------------------

    def _start(self, key_id: str) -> _Flight[T]:
        self._flights[key_id] = flight = _Flight[T]()
        flight.task = spawn(self._fly(key_id, flight), name="key-lookup")
        return flight

    async def _fly(self, key_id: str, flight: _Flight[T]) -> T | Absent | _Failure:
        """The value, ``ABSENT``, or why neither store can say: returned, since the failure of a mere refresh is nobody's."""
        failure = "the key changes faster than it can be read"
        try:
            for _ in range(_ATTEMPTS):
                flight.dirty = False
                answer = await self._ask(key_id)
                if not flight.dirty:
                    return self._remember(key_id, answer)
        except StoreUnavailable as error:
            failure = str(error)
        finally:
            del self._flights[key_id]
        return _Failure(failure)

    async def _ask(self, key_id: str) -> _Answer | Entry[T]:
        shared = await self._read_shared(key_id)
        aged = self._aged(shared)
        if aged is not None and self._believed(aged):
            return _Answer(aged.record, aged.read_ms)
        known = key_id in self._present or aged is not None
        read_ms, read_wall_ms = self._monotonic_ms(), self._wall_ms()
        try:
            record = await self._find(key_id, known=known)
        except StoreUnavailable as error:
            return self._without_postgres(key_id, shared, aged, error)
        except RecordUnreadable as error:
            _log.error("key_record_unreadable", key_id=key_id, reason=str(error))
            self._metrics.key_fetches["postgres", "unreadable"] += 1
            return _Answer(None, read_ms)
        self._metrics.key_fetches["postgres", "absent" if record is None else "found"] += 1
        return _Answer(record, read_ms, shared, read_wall_ms)

    async def _read_shared(self, key_id: str) -> Shared | None:
        """What Redis holds; ``None`` when it does not answer, or is not believed for this key for now."""
        now_ms = self._monotonic_ms()
        if now_ms < self._redis_rests_until_ms or now_ms < max(self._distrust_all_until_ms, self._distrusted.get(key_id, 0)):
            return None
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                shared = await self._shared.read(key_id)
        except (StoreUnavailable, TimeoutError):
            self._redis_rests_until_ms = self._monotonic_ms() + _REST_MS
            self._metrics.key_fetches["redis", "unavailable"] += 1
            return None
        self._metrics.key_fetches["redis", shared.kind] += 1
        return shared

    def _aged(self, shared: Shared | None) -> _Aged | None:
        """The record of Redis, if its seal is still valid by the clock."""
        if shared is None or shared.dated is None:
            return None
        age_ms = self._wall_ms() - shared.dated.read_ms
        if not -CLOCKS_DIFFER_MS <= age_ms < shared.dated.ttl_ms:
            return None
        return _Aged(shared.dated.record, self._monotonic_ms() - max(0, age_ms))

    def _believed(self, aged: _Aged) -> bool:
        """Whether a record of Redis is young, and any later change of it would have been heard of here."""
        heard_from_ms = self._channels.postgres_up_ms
        return (
            heard_from_ms is not None
            and aged.read_ms > max(heard_from_ms, self._believe_from_ms) + CLOCKS_DIFFER_MS
            and self._monotonic_ms() - aged.read_ms <= _YOUNG * self._settings.local_ttl_ms
        )

    async def _find(self, key_id: str, *, known: bool) -> KeyRecord | None:
        if self._monotonic_ms() < self._postgres_rests_until_ms:
            raise StoreUnavailable("PostgreSQL did not answer a moment ago")
        try:
            return await self._store.find(key_id, known=known)
        except StoreBusy:
            raise
        except StoreUnavailable:
            self._postgres_rests_until_ms = self._monotonic_ms() + _REST_MS
            self._metrics.key_fetches["postgres", "unavailable"] += 1
            raise

    def _without_postgres(self, key_id: str, shared: Shared | None, aged: _Aged | None, error: StoreUnavailable) -> _Answer | Entry[T]:
        """What may be used all the same.

        :raises StoreUnavailable: nothing
        """
        entry = self._present.get(key_id)
        if entry is not None and (aged is None or aged.read_ms <= entry.read_ms) and self._goes_on(entry, shared):
            return entry
        if aged is not None:
            return _Answer(aged.record, aged.read_ms, outage=True)
        raise error

    def _goes_on(self, entry: Entry[T], shared: Shared | None) -> bool:
        now_ms = self._monotonic_ms()
        if shared is not None and shared.changed_ms is not None:
            changed_ms = now_ms - (self._wall_ms() - shared.changed_ms)
            if entry.read_ms <= changed_ms + CLOCKS_DIFFER_MS:
                return False
        heard_from_ms = self._channels.redis_up_ms
        return (heard_from_ms is not None and entry.read_ms >= heard_from_ms) or now_ms < entry.read_ms + self._settings.stale_limit_ms

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def _remember(self, key_id: str, answer: _Answer | Entry[T]) -> T | Absent:
        now_ms, ttl_ms = self._monotonic_ms(), self._settings.local_ttl_ms
        if isinstance(answer, Entry):
            self._metrics.stale_served += 1
            answer.refresh_from_ms = now_ms + _RETRY_MS // 2
            answer.fresh_until_ms = now_ms + _RETRY_MS
            return answer.value
        if answer.shared is not None:
            spawn(self._share(key_id, answer), name="key-share")
        value = None if answer.record is None else self._prepared(key_id, answer.record)
        if answer.record is None or value is None:
            self._cache.put_absent(key_id, answer.read_ms + ttl_ms)
            return ABSENT
        refresh_from_ms = answer.read_ms + int(ttl_ms * (_YOUNG + _SPREAD * secrets.randbelow(1_000) / 1_000))
        fresh_until_ms = answer.read_ms + ttl_ms
        if answer.outage:
            self._metrics.stale_served += 1
            refresh_from_ms, fresh_until_ms = now_ms + _RETRY_MS // 2, now_ms + _RETRY_MS
        entry = Entry(answer.record, value, read_ms=answer.read_ms, refresh_from_ms=refresh_from_ms, fresh_until_ms=fresh_until_ms)
        self._cache.put(key_id, entry)
        return value

    def _prepared(self, key_id: str, record: KeyRecord) -> T | None:
        known = self._present.get(key_id)
        if known is not None and known.record == record:
            return known.value
        try:
            return self._prepare(record)
        except ValueError as error:
            _log.error("key_record_unusable", key_id=key_id, reason=str(error))
            return None

    async def _share(self, key_id: str, answer: _Answer) -> None:
        """Put PostgreSQL's answer where the look-up found nothing, or something old. A change meanwhile has a tombstone in its way."""
        if answer.shared is None or key_id in self._distrusted:
            return
        try:
            async with asyncio.timeout(_REDIS_SECONDS):
                if answer.record is not None:
                    dated = DatedRecord(answer.record, answer.read_wall_ms, self._settings.redis_ttl_ms)
                    await self._shared.write(dated, replacing=answer.shared, now_ms=self._wall_ms())
                elif answer.shared.dated is not None:  # a deletion of which every notice was lost
                    await self._shared.entomb(key_id, now_ms=self._wall_ms())
        except (StoreUnavailable, TimeoutError):
            self._redis_rests_until_ms = self._monotonic_ms() + _REST_MS

    def _distrust(self, key_id: str, now_ms: int) -> None:
        self._distrusted[key_id] = now_ms + TOMBSTONE_TTL_MS
        self._distrusted.move_to_end(key_id)
        while next(iter(self._distrusted.values())) <= now_ms:
            self._distrusted.popitem(last=False)
        if len(self._distrusted) > _MOST_DISTRUSTED:
            self._distrusted.clear()
            self._distrust_all_until_ms = now_ms + TOMBSTONE_TTL_MS
