"""Key lookup: process memory, then Redis, then PostgreSQL. Entries are refreshed when a key changes, not when they age.

Guarantees (``trust`` decides which entries are valid, ``invalidation`` reads the feed and receives the messages):

* Memory is valid as long as the change feed has been read within ``local_ttl``: keys without a change in it have not changed. A change
removes its key from memory at once, as announced by a message or, within a second, by the feed.
* A look-up that is in progress while its key changes is repeated: it may have read the previous state.
* A record in Redis is used for its whole validity if this process knows every change made since the record was read.
* While the feed cannot be read, memory stays valid as long as Redis messages have been received without a gap, otherwise until
``stale_limit``; a key that is not in memory is taken from Redis while its seal is valid, unless it is known to have changed.
* When another PostgreSQL server takes over that has every change read so far, what was read by then remains valid. When changes may have
been missed, everything in memory is in doubt: each key is used for another ``local_ttl`` while it is read again.
* An unknown id is never written to Redis. It waits in a separate queue for PostgreSQL, with a bounded number of rows a second.
* A request that has waited too long is answered "try again". Its look-up stays queued, so that the retry finds the key or waits less.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple

import structlog

from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys.cache import ABSENT, Absent, Entry, Generation, KeyCache, T
from gateway.keys.codec import DatedRecord
from gateway.keys.lookup_queue import LookupQueue
from gateway.keys.record import KeyRecord
from gateway.keys.shared import REDIS_SECONDS, SharedRecords, Source
from gateway.keys.snapshot import Snapshot
from gateway.keys.store import Found
from gateway.keys.trust import EVERY_KEY, Now, Trust
from gateway.runtime import clock
from gateway.runtime.tasks import in_steps
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Cache

ROWS_PER_SECOND = 5_000
"""Concurrent PostgreSQL queries for keys that were seen to exist, and as many again for unknown ids."""
PATIENCE_MS = 2_000
"""How long a request waits for a look-up before it is refused with "try again"."""
PLACES = 12_000
"""Maximum look-ups in progress, except for keys that are in memory and in doubt. Beyond it requests are refused immediately: otherwise
thousands could time out together and block the event loop.
"""
_REDIS_BATCH, _POSTGRES_BATCH, _WORKERS = 100, 250, 4
CONCLUDED_AT_ONCE = 10
"""Look-ups concluded in one turn of the event loop: those who wait for them go on in the next one, each with its whole request."""
_UNKNOWN_QUEUED = PATIENCE_MS * ROWS_PER_SECOND // 1_000
_RENEWALS_QUEUED = 200_000
"""Beyond it, and beyond twice the keys in memory, those of further keys are not renewed: most are of keys that memory has let go."""
_REMOVALS_QUEUED = 200_000
"""While Redis is down; as many as there are known changes, whose records are removed when it is back."""
_RETRY_MS, _GOES_ON_MS = 1_000, 3_000
"""Interval between look-ups of a key in doubt; also how long one from Redis is used while PostgreSQL is unavailable."""
_RENEWED_AT = 0.75
"""Fraction of its validity after which a record in Redis is rewritten, if its key was used meanwhile."""
_ATTEMPTS = 5
"""Attempts to look up a key that changes meanwhile."""
_log = structlog.get_logger(__name__)


class _Failure(NamedTuple):
    """The outcome if neither store answered."""

    reason: str


class _Flight(Generic[T]):
    """One look-up in progress (single-flight: all requests for the key wait for it)."""

    __slots__ = ("attempts", "dated", "is_outdated", "outcome")

    def __init__(self) -> None:
        self.attempts = 0
        self.is_outdated = False
        """Whether the key has changed since PostgreSQL was queried."""
        self.dated: DatedRecord | None = None
        """The record in Redis."""
        self.outcome: asyncio.Future[T | Absent | _Failure] = asyncio.get_running_loop().create_future()

    async def waited_for(self) -> T | Absent | _Failure:
        await asyncio.wait((self.outcome,), timeout=PATIENCE_MS / 1_000)
        return self.outcome.result() if self.outcome.done() else _Failure("the queue of key look-ups does not move fast enough")


def _now() -> Now:
    return Now(clock.monotonic_ms(), clock.now_ms())


class KeyLookup(Generic[T]):
    """Keys by id, as values of type ``T``: ``prepare`` creates a value from a record, which is then kept until the record changes.

    :param find: :meth:`store.KeyStore.find`
    :param prepare: may raise ``ValueError`` for an unusable record, which refuses that key alone
    :param trust: maintained by the :class:`InvalidationListener`, which also calls the methods in the section on changes
    """

    def __init__(
        self,
        find: Callable[[Sequence[str]], Awaitable[Found]],
        shared: SharedRecords,
        trust: Trust,
        settings: "Cache",
        *,
        prepare: Callable[[KeyRecord], T],
        metrics: Metrics | None = None,
        now: Callable[[], Now] = _now,
    ) -> None:
        self.now = now
        self._settings = settings
        self._prepare = prepare
        self._metrics = metrics or Metrics()
        self._trust = trust
        self._find = find
        self._shared = shared
        self._redis = Source("redis", self._metrics, lambda: now().ms, seconds=REDIS_SECONDS)
        self._postgres = Source("postgres", self._metrics, lambda: now().ms)
        self._cache: KeyCache[T] = KeyCache(settings.local_entries)
        self._present = self._cache.present
        self._flights: dict[str, _Flight[T]] = {}
        self._first = LookupQueue(self._ask_redis, batch=_REDIS_BATCH, workers=_WORKERS)
        self._known = LookupQueue(self._ask_postgres, batch=_POSTGRES_BATCH, workers=_WORKERS // 2, per_second=ROWS_PER_SECOND)
        self._unknown = LookupQueue(
            self._ask_postgres, batch=_POSTGRES_BATCH, workers=_WORKERS // 2, max_queued=_UNKNOWN_QUEUED, per_second=ROWS_PER_SECOND
        )
        self._removals = LookupQueue(self._remove, batch=_REDIS_BATCH, workers=1, max_queued=_REMOVALS_QUEUED)
        self._to_renew: deque[tuple[int, str]] = deque()
        self._renewing = False

    def peek(self, key_id: str, now_ms: int) -> T | Absent | None:
        """The key as held in memory, for the hot path: a value, ``ABSENT``, or ``None``: call :meth:`fetch`.

        :param now_ms: monotonic milliseconds
        """
        entry = self._present.get(key_id)
        if entry is not None and now_ms < entry.generation.valid_until_ms:
            entry.used = True
            return entry.value
        return self._peek_further(key_id, entry or self._cache.absent.get(key_id), now_ms)

    def _peek_further(self, key_id: str, entry: Entry[T] | None, now_ms: int) -> T | Absent | None:
        if entry is None:
            return None
        entry.used, cache = True, self._cache
        generation = cache.generation_of(entry)
        is_current = generation is cache.generation
        if is_current and now_ms >= generation.valid_until_ms:
            generation.valid_until_ms = self._trust.memory_valid_until_ms(self._settings, now_ms)
            if now_ms < generation.valid_until_ms and not self._trust.is_feed_current(self._settings, now_ms):
                self._metrics.stale_served += 1
        if now_ms < generation.valid_until_ms:
            return entry.value
        if now_ms >= (entry.until_ms if is_current or generation is cache.in_doubt else generation.used_until_ms()):
            return None
        if not is_current and entry.retry_ms <= now_ms and key_id not in self._flights:  # refreshed while it is used
            entry.retry_ms = now_ms + _RETRY_MS
            self._metrics.key_rereads += 1
            self._begin(key_id)
        return entry.value

    async def fetch(self, key_id: str) -> T | None:
        """The key's value; ``None`` if it does not exist. Joins a look-up of the same key in progress; the wait is bounded.

        Cancelling the wait does not cancel the look-up.

        :param key_id: well-formed (``ids.is_key_id``); others are never looked up
        :raises KeyStoreUnavailable: neither store answered
        """
        found: T | Absent | _Failure | None = self.peek(key_id, self.now().ms)
        if found is None:
            flight = self._flights.get(key_id)
            if flight is None and len(self._flights) < PLACES:
                flight = self._begin(key_id)
            found = _Failure("too many keys are being looked up") if flight is None else await flight.waited_for()
        if isinstance(found, _Failure):
            raise KeyStoreUnavailable("The key cannot be looked up at the moment; try again shortly.", reason=found.reason)
        return None if found is ABSENT else found

    def configure(self, settings: "Cache") -> None:
        """Apply new settings."""
        self._settings = settings
        self._cache.generation.valid_until_ms = 0
        self._cache.resize(settings.local_entries)

    def sizes(self) -> dict[str, int]:
        """Numbers of keys and absent ids in memory, and of look-ups in progress."""
        return {"present": len(self._present), "absent": len(self._cache.absent), "flights": len(self._flights)}

    async def aclose(self) -> None:
        """Cancel the look-ups in progress."""
        for line in (self._first, self._known, self._unknown, self._removals):
            await line.aclose()
        for key_id, flight in list(self._flights.items()):
            self._finish(key_id, flight, _Failure("the gate is stopping"))

    # -- changes -------------------------------------------------------------------------------------------------------

    def postgres_answered(self) -> None:
        """The feed has been read. A server that has started is asked at once for the keys that its changes invalidate."""
        self._postgres.answered()

    def invalidate(self, key_id: str, xid: int | None = None) -> None:
        """Invalidate a key that has changed, or every key.

        :param xid: the transaction that changed it, if known
        """
        if key_id == EVERY_KEY:
            self.invalidate_all()
        if key_id in self._flights:
            self._flights[key_id].is_outdated = True
        entry = self._present.get(key_id)
        if entry is None or xid is None or entry.generation is not self._cache.generation or not entry.position.sees(xid):
            self._cache.drop(key_id)

    def invalidate_all(self, *, gradually: bool = False) -> Generation:
        """Invalidate everything in memory, because every key has changed or changes may have been missed.

        :param gradually: whether keys may still be used while they are read again
        :returns: what has ended, to be resumed if nothing has been missed
        """
        now_ms = self.now().ms
        believed = now_ms < self._trust.memory_valid_until_ms(self._settings, now_ms)
        return self._cache.end_generation(now_ms + self._settings.local_ttl_ms if gradually and believed else 0)

    async def renew(self) -> None:
        """Rewrite expiring records in Redis that this process has written and whose keys were used since. Call after a read of the feed.

        If Redis has failed, first remove outdated records again: those that could not be, and those that a failover has brought back. In a
        Cluster the subscription is at one node and does not notice the failure of another.
        """
        if self._redis.has_returned():
            self.remove_outdated(self._trust.changes)
        now_ms, read, at = self.now().ms, self._trust.read, self._trust.read_at
        if read is None or self._renewing:
            return
        self._renewing, is_there = True, True
        try:
            while is_there and (due := self._due(now_ms)) is not None:
                is_there = await self._share(due, at, read.position, read.server)
                await asyncio.sleep(0)
        finally:
            self._renewing = False

    def _due(self, now_ms: int) -> dict[str, Entry[T]] | None:
        """A bounded number of entries whose records are due. Many that are examined may not be in use any more."""
        due: dict[str, Entry[T]] | None = None
        for _ in range(10 * _REDIS_BATCH):
            if not self._to_renew or self._to_renew[0][0] > now_ms or (due and len(due) == _REDIS_BATCH):
                break
            due = due or {}
            _, key_id = self._to_renew.popleft()
            entry = self._present.get(key_id)
            if entry is not None and entry.used and 0 < entry.renewal_ms <= now_ms:
                due[key_id] = entry
        return due

    def _holds(self, key_id: str, entry: Entry[T]) -> bool:
        """Whether memory still holds this entry, and it is in no doubt."""
        return self._present.get(key_id) is entry and self._cache.generation_of(entry) is self._cache.generation

    def remove_outdated(self, key_ids: Iterable[str]) -> None:
        """Remove from Redis those records of these keys that a change has outdated, in the background (see :meth:`renew`).

        One that remains, or that a failover of Redis brings back, is valid for no reader that knows of the change.
        """
        self._removals.add_all(key_ids)

    async def _remove(self, key_ids: Sequence[str]) -> None:
        try:
            held, now = await self._redis.ask(self._shared.read, key_ids), self.now()
            outdated = [key_id for key_id, dated in held.items() if self._trust.fallback_valid_until_ms(dated, now) <= now.ms]
            await self._redis.ask(self._shared.forget, outdated)
        except StoreUnavailable:
            self._removals.clear()  # all of them are tried again

    # -- look-ups ------------------------------------------------------------------------------------------------------

    def _begin(self, key_id: str) -> _Flight[T]:
        self._flights[key_id] = flight = _Flight[T]()
        self._first.add(key_id)
        return flight

    def _finish(self, key_id: str, flight: _Flight[T], outcome: T | Absent | _Failure) -> None:
        self._flights.pop(key_id, None)
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)

    async def _ask_redis(self, key_ids: list[str]) -> None:
        """Look ids up in Redis, and queue those it does not have for PostgreSQL: ids that were seen to exist first."""
        records: dict[str, DatedRecord] = {}
        try:
            records = await self._redis.ask(self._shared.read, key_ids)
            self._redis.count(found=len(records), asked=len(key_ids))
        except StoreUnavailable:
            pass
        except Exception:  # noqa: BLE001  # a defect must strand nobody
            _log.exception("key_lookup_defect")
        concluded = 0
        for key_id in key_ids:
            flight = self._flights[key_id]
            dated = flight.dated = records.get(key_id)
            if dated is not None and self._trust.is_valid(dated, self._settings, self.now()):
                self._conclude(key_id, flight, dated.record, dated.position)
                concluded += 1
                if concluded % CONCLUDED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            elif dated is not None or key_id in self._present:
                self._known.add(key_id)
            elif not self._unknown.add(key_id):
                self._finish(key_id, flight, _Failure("too many unknown key ids are being looked up"))

    async def _ask_postgres(self, key_ids: list[str]) -> None:
        """Look ids up in PostgreSQL. Every waiter gets an outcome, even after an error."""
        try:
            await self._read(key_ids)
        except Exception:  # noqa: BLE001  # whoever waits is told
            _log.exception("key_lookup_defect")
            for key_id in key_ids:
                if key_id in self._flights:
                    self._finish(key_id, self._flights[key_id], _Failure("the look-up failed"))

    async def _read(self, key_ids: list[str]) -> None:
        """Read ids from PostgreSQL; those that change meanwhile are read again."""
        at, generation = self.now(), self._cache.generation
        for key_id in key_ids:
            self._flights[key_id].is_outdated = False
        try:
            found = await self._postgres.ask(self._find, key_ids)
        except StoreUnavailable as error:
            for key_id in key_ids:
                self._without_postgres(key_id, self._flights[key_id], str(error))
            return
        self._postgres.count(found=len(found.records), asked=len(key_ids))
        async for key_id in in_steps(key_ids, CONCLUDED_AT_ONCE):
            flight = self._flights[key_id]
            is_followed = self._trust.is_current_server(found.server)
            if not flight.is_outdated and generation is self._cache.generation:  # used only briefly if its server's feed is not read here
                self._conclude(key_id, flight, found.records.get(key_id), found.position, in_doubt=not is_followed)
            elif flight.attempts == _ATTEMPTS:
                self._finish(key_id, flight, _Failure("the key changes faster than it can be read"))
            else:
                flight.attempts += 1
                self._known.add(key_id)
        held = {key_id: entry for key_id in found.records if (entry := self._present.get(key_id)) is not None}
        # One that was read earlier, and whose look-up is run again, may not contain what this position sees.
        entries = {key_id: entry for key_id, entry in held.items() if entry.position == found.position}
        if self._trust.is_current_server(found.server) and entries:
            self._first.spawn(self._share(entries, at, found.position, found.server))

    def _without_postgres(self, key_id: str, flight: _Flight[T], reason: str) -> None:
        """Conclude with the record in Redis, which may be used for a while."""
        now, dated = self.now(), flight.dated
        until_ms = 0 if dated is None else self._trust.fallback_valid_until_ms(dated, now)
        if dated is None or until_ms <= now.ms:
            self._finish(key_id, flight, _Failure(reason))
        else:
            self._metrics.stale_served += 1
            until_ms = min(now.ms + _GOES_ON_MS, until_ms)
            self._conclude(key_id, flight, dated.record, dated.position, in_doubt=True, until_ms=until_ms)

    # -- outcomes ------------------------------------------------------------------------------------------------------

    def _conclude(
        self, key_id: str, flight: _Flight[T], record: KeyRecord | None, position: Snapshot, *, in_doubt: bool = False, until_ms: int = 0
    ) -> None:
        """Store the outcome in memory and hand it to the waiters. An error in preparing one key does not affect others.

        :param until_ms: until when it may be used in doubt, or while memory is not valid; by default only briefly
        """
        soon_ms = self.now().ms + _RETRY_MS
        value: T | Absent | _Failure = ABSENT if record is None else self._prepared(key_id, record)
        if not isinstance(value, _Failure):
            generation = self._cache.in_doubt if in_doubt else self._cache.generation
            self._cache.put(
                key_id, Entry(record, value, position, generation, until_ms=until_ms or soon_ms, retry_ms=soon_ms if in_doubt else 0)
            )
        self._finish(key_id, flight, value)

    def _prepared(self, key_id: str, record: KeyRecord) -> T | Absent | _Failure:
        known = self._present.get(key_id)
        if known is not None and known.record == record:
            return known.value
        try:
            return self._prepare(record)
        except ValueError as error:
            _log.error("key_record_unusable", key_id=key_id, reason=str(error))
            return ABSENT
        except Exception:  # noqa: BLE001
            _log.exception("key_lookup_defect", key_id=key_id)
            return _Failure("the look-up failed")

    async def _share(self, entries: dict[str, Entry[T]], at: Now, position: Snapshot, server: int) -> bool:
        """Write entries in memory, read at ``position``, to Redis, and schedule their renewal while they are in use; a failed write is
        repeated after the next read of the feed. Returns whether it succeeded.
        """
        entries, ttl_ms = {key_id: entry for key_id, entry in entries.items() if self._holds(key_id, entry)}, self._settings.redis_ttl_ms
        records = [DatedRecord(entry.record, at.wall_ms, ttl_ms, position, server) for entry in entries.values() if entry.record]
        if not records:
            return True
        is_there = True
        try:
            await self._redis.ask(self._shared.write, records, now_ms=self.now().wall_ms)
        except StoreUnavailable:
            is_there = False
        renewal_ms = self.now().ms + int(ttl_ms * _RENEWED_AT if is_there else 0)
        is_full = len(self._to_renew) >= max(_RENEWALS_QUEUED, 2 * self._settings.local_entries)
        renewed = [key_id for key_id, entry in entries.items() if entry.renewal_ms or not is_full]  # who had a place keeps it
        for key_id in renewed:
            entries[key_id].renewal_ms = renewal_ms
        for entry in entries.values():
            entry.used = entry.used and not is_there
        # Those that are due now do not wait for those due later.
        (self._to_renew.extend if is_there else self._to_renew.extendleft)((renewal_ms, key_id) for key_id in renewed)
        self.remove_outdated(key_id for key_id, entry in entries.items() if not self._holds(key_id, entry))  # written too late
        return is_there
