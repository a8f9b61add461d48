"""Key lookup: process memory, then Redis, then PostgreSQL. Entries are refreshed when a key changes, not when they age.

Guarantees (``trust`` decides which entries are valid, ``invalidation`` reads the feed and receives the messages):

* Memory is valid as long as the change feed has been read within ``local_ttl``: keys without a change in it have not changed. A change
removes its key from memory at once, as announced by a message or, within a second, by the feed.
* A look-up that is in progress while its key changes is repeated: it may have read the previous state.
* A record in Redis is used for its whole validity if this process knows every change made since the record was read.
* While the feed cannot be read, memory stays valid as long as Redis messages have been received without a gap, otherwise until
``stale_limit``; a key that is not in memory is taken from Redis while its seal is valid, unless it is known to have changed.
* When changes may have been missed (they were pruned unread, or PostgreSQL restarted, failed over or was restored), everything in memory
is in doubt: each key is used for another ``local_ttl``, and for twice as long as reading all of them takes, while it is read again.
* An unknown id is never written to Redis. It waits in a separate queue for PostgreSQL, with a bounded number of rows a second.
* A request that has waited too long is answered "try again". Its look-up stays queued, so that the retry finds the key or waits less.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple

import structlog

from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys.cache import ABSENT, NEVER_MS, Absent, Entry, KeyCache, T
from gateway.keys.codec import DatedRecord
from gateway.keys.lookup_queue import LookupQueue
from gateway.keys.record import KeyRecord
from gateway.keys.shared import REDIS_SECONDS, SharedRecords, Source
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
"""Maximum look-ups in progress, except of keys in doubt. Beyond it requests are refused: thousands would time out in one turn."""
_REDIS_BATCH, _POSTGRES_BATCH, _WORKERS = 100, 250, 4
CONCLUDED_AT_ONCE, _EXAMINED_AT_ONCE = 10, 1_000
"""Limits of one turn of the event loop: look-ups of a batch that are concluded (who waits goes on in the next turn), keys looked at."""
_UNKNOWN_QUEUED = PATIENCE_MS * ROWS_PER_SECOND // 1_000
BRIEFLY_MS = 1_000
"""How long a key is used that was read from Redis while PostgreSQL is unavailable, or from a server whose feed is not read here."""
_RENEWED_AT, _EXAMINED_EACH, _EXAMINED_AFTER_FAILURE_MS = 0.75, 0.125, 5_000
"""Fractions of its validity: after which a record in Redis is rewritten, if its key was used meanwhile, and between two looks at it."""
_log = structlog.get_logger(__name__)


class _Failure(NamedTuple):
    """The outcome if neither store answered."""

    reason: str


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
        self.settings = settings
        self._prepare = prepare
        self._metrics = metrics or Metrics()
        self._trust = trust
        self._find = find
        self._shared = shared
        self._redis = Source("redis", self._metrics, lambda: now().ms, seconds=REDIS_SECONDS)
        self.postgres = Source("postgres", self._metrics, lambda: now().ms)
        self.cache: KeyCache[T] = KeyCache(settings.local_entries)
        self._present = self.cache.present
        self._valid_until_ms = 0
        """Until when memory is valid, as last determined by ``trust``."""
        self._flights: dict[str, asyncio.Future[T | Absent | _Failure]] = {}
        """The look-ups in progress: all requests for a key wait for one."""
        self._unchanged: set[str] = set()
        """Ids that PostgreSQL is asked for and that have not changed since."""
        self._first = LookupQueue(self._ask_redis, batch=_REDIS_BATCH, workers=_WORKERS)
        rows = partial(LookupQueue, self._ask_postgres, batch=_POSTGRES_BATCH, workers=_WORKERS // 2, per_second=ROWS_PER_SECOND)
        self._known, self._unknown = rows(), rows(max_queued=_UNKNOWN_QUEUED)
        self._due = LookupQueue(self._write, batch=_REDIS_BATCH, workers=1)
        """Keys whose records are to be written to Redis."""
        self._examined_ms = 0
        """When records in Redis are next examined."""

    def peek(self, key_id: str, now_ms: int) -> T | Absent | None:
        """The key as held in memory, for the hot path: a value, ``ABSENT``, or ``None``: call :meth:`fetch`.

        :param now_ms: monotonic milliseconds
        """
        entry = self._present.get(key_id)
        if entry is not None and entry.epoch == self.cache.epoch and now_ms < entry.until_ms and now_ms < self._valid_until_ms:
            entry.used = True
            return entry.value
        return self._peek_further(key_id, entry or self.cache.absent.get(key_id), now_ms)

    def _peek_further(self, key_id: str, entry: Entry[T] | None, now_ms: int) -> T | Absent | None:
        if entry is None:
            return None
        until_ms = entry.until_ms
        if entry.epoch != self.cache.epoch:
            if not self.cache.is_in_doubt(entry, now_ms):
                return None
            if key_id not in self._flights:
                self._metrics.key_rereads += 1
                self._begin(key_id)
        elif until_ms == NEVER_MS:
            if now_ms >= self._valid_until_ms:
                self._valid_until_ms = self._trust.memory_valid_until_ms(self.settings, now_ms)
                if now_ms < self._valid_until_ms and not self._trust.is_feed_current(self.settings, now_ms):
                    self._metrics.stale_served += 1
            until_ms = self._valid_until_ms
        entry.used = True
        return entry.value if now_ms < until_ms else None

    async def fetch(self, key_id: str) -> T | None:
        """The key's value; ``None`` if it does not exist. Joins a look-up of the same key in progress; the wait is bounded.

        Cancelling the wait does not cancel the look-up.

        :param key_id: well-formed (``ids.is_key_id``); others are never looked up
        :raises KeyStoreUnavailable: neither store answered
        """
        found: T | Absent | _Failure | None = self.peek(key_id, self.now().ms)
        if found is None:
            found = _Failure("too many keys are being looked up")
            if key_id in self._flights or len(self._flights) < PLACES:
                outcome = self._flights.get(key_id) or self._begin(key_id)
                await asyncio.wait((outcome,), timeout=PATIENCE_MS / 1_000)
                found = outcome.result() if outcome.done() else _Failure("the queue of key look-ups does not move fast enough")
        if isinstance(found, _Failure):
            raise KeyStoreUnavailable("The key cannot be looked up at the moment; try again shortly.", reason=found.reason)
        return None if found is ABSENT else found

    def configure(self, settings: "Cache") -> None:
        """Apply new settings."""
        self.settings, self._valid_until_ms = settings, 0
        self.cache.size = settings.local_entries

    async def aclose(self) -> None:
        """Cancel the look-ups in progress."""
        for line in (self._first, self._known, self._unknown, self._due):
            await line.aclose()
        for key_id in list(self._flights):
            self._finish(key_id, _Failure("the gate is stopping"))

    # -- changes -------------------------------------------------------------------------------------------------------

    def invalidate(self, key_id: str) -> None:
        """Invalidate a key that has changed, or every key."""
        if key_id == EVERY_KEY:
            self.invalidate_all()
        self._unchanged.discard(key_id)
        self.cache.drop(key_id)

    def invalidate_all(self, *, gap_ms: int | None = None) -> None:
        """Invalidate everything in memory, because every key has changed or changes may have been missed.

        :param gap_ms: when that was found out: keys that may be used now are used for a while after it, in which they are read again
        """
        now_ms, until_ms = self.now().ms, 0
        if gap_ms is not None and now_ms < self._trust.memory_valid_until_ms(self.settings, now_ms):
            until_ms = gap_ms + self.settings.local_ttl_ms + 2_000 * len(self._present) // ROWS_PER_SECOND
        self.cache.doubt(until_ms)
        self._unchanged.clear()

    async def renew(self) -> None:
        """Write those records to Redis that this process has read from PostgreSQL, and that are expiring or were refused, while their keys
        are used. Call after a read of the feed; memory is examined a few times while a record is valid.
        """
        now_ms = self.now().ms
        if now_ms >= self._examined_ms:
            self._examined_ms = now_ms + int(self.settings.redis_ttl_ms * _EXAMINED_EACH)
            async for key_id in in_steps(list(self._present), _EXAMINED_AT_ONCE):
                entry = self._present.get(key_id)
                if entry is not None and entry.used and entry.due_ms <= now_ms:
                    self._due.add((key_id,))

    async def _write(self, key_ids: Sequence[str]) -> None:
        """Write the records that are due to Redis, as of the last read of the feed.

        A change may overtake this: what is written then, no reader uses that knows of the change, and the admin service removes it.
        """
        await asyncio.sleep(0)  # of many in a row, none may be due any longer
        now, read, ttl_ms = self.now(), self._trust.read, self.settings.redis_ttl_ms
        entries, records = [], []
        for entry in filter(None, map(self._present.get, key_ids)):
            if entry.used and entry.due_ms <= now.ms and entry.epoch == self.cache.epoch and entry.record and read:
                entries.append(entry)
                records.append(DatedRecord(entry.record, read.at.wall_ms, ttl_ms, read.position, read.server))
        if not records:
            return
        try:
            await self._redis.ask(self._shared.write, records, now_ms=now.wall_ms)
        except StoreUnavailable:  # they remain due, and are found again
            self._examined_ms = min(self._examined_ms, now.ms + _EXAMINED_AFTER_FAILURE_MS)
            return
        for entry in entries:
            entry.used, entry.due_ms = False, now.ms + int(ttl_ms * _RENEWED_AT)

    # -- look-ups ------------------------------------------------------------------------------------------------------

    def _begin(self, key_id: str) -> asyncio.Future[T | Absent | _Failure]:
        self._flights[key_id] = outcome = asyncio.get_running_loop().create_future()
        self._first.add((key_id,))
        return outcome

    def _finish(self, key_id: str, outcome: T | Absent | _Failure) -> None:
        self._unchanged.discard(key_id)
        flight = self._flights.pop(key_id, None)
        if flight is not None and not flight.done():
            flight.set_result(outcome)

    async def _ask_redis(self, key_ids: list[str]) -> None:
        """Look ids up in Redis, and queue those it does not have for PostgreSQL: ids that were seen to exist first."""
        records, concluded = await self._held(key_ids), 0
        for key_id in key_ids:
            dated = records.get(key_id)
            if dated is not None and self._trust.is_valid(dated, self.settings, self.now()):
                self._conclude(key_id, dated.record)
                concluded += 1
                if concluded % CONCLUDED_AT_ONCE == 0:  # the others are queued together
                    await asyncio.sleep(0)
            elif dated is not None or key_id in self._present:
                self._known.add((key_id,))
            elif not self._unknown.add((key_id,)):
                self._finish(key_id, _Failure("too many unknown key ids are being looked up"))

    async def _held(self, key_ids: list[str]) -> dict[str, DatedRecord]:
        """The records in Redis; none if it does not answer."""
        try:
            records = await self._redis.ask(self._shared.read, key_ids)
        except Exception as error:  # noqa: BLE001  # a defect must strand nobody
            if not isinstance(error, StoreUnavailable):
                _log.exception("key_lookup_defect")
            return {}
        self._redis.count(found=len(records), asked=len(key_ids))
        return records

    async def _ask_postgres(self, key_ids: list[str]) -> None:
        """Look ids up in PostgreSQL; those that change meanwhile are queued again. Every waiter gets an outcome, even after an error."""
        self._unchanged.update(key_ids)
        try:
            await self._read(key_ids)
        except Exception:  # noqa: BLE001  # whoever waits is told
            _log.exception("key_lookup_defect")
            for key_id in key_ids:
                self._finish(key_id, _Failure("the look-up failed"))

    async def _read(self, key_ids: list[str]) -> None:
        """Conclude with what PostgreSQL has: for a moment if it is of a server whose feed is not read here, or if memory is not valid."""
        try:
            found = await self.postgres.ask(self._find, key_ids)
        except StoreUnavailable as error:
            await self._go_on(key_ids, str(error))
            return
        self.postgres.count(found=len(found.records), asked=len(key_ids))
        async for key_id in in_steps(key_ids, CONCLUDED_AT_ONCE):
            now_ms, record, feed = self.now().ms, found.records.get(key_id), self._trust.read
            if key_id not in self._unchanged:
                self._known.add((key_id,))
            elif feed and feed.server == found.server and now_ms < self._trust.memory_valid_until_ms(self.settings, now_ms):
                self._conclude(key_id, record, due_ms=now_ms)
            else:
                self._conclude(key_id, record, until_ms=now_ms + BRIEFLY_MS)
        self._due.add(found.records)

    async def _go_on(self, key_ids: list[str], reason: str) -> None:
        """Conclude with the records in Redis, while PostgreSQL is unavailable: they may be used for a while."""
        records = await self._held(key_ids)
        async for key_id in in_steps(key_ids, CONCLUDED_AT_ONCE):
            now, dated = self.now(), records.get(key_id)
            if dated is not None and (until_ms := self._trust.fallback_valid_until_ms(dated, now)) > now.ms:
                self._metrics.stale_served += 1
                self._conclude(key_id, dated.record, until_ms=min(now.ms + BRIEFLY_MS, until_ms))
            else:
                self._finish(key_id, _Failure(reason))

    def _conclude(self, key_id: str, record: KeyRecord | None, *, until_ms: int = NEVER_MS, due_ms: int = NEVER_MS) -> None:
        """Store the outcome in memory and hand it to the waiters. An error in preparing one key does not affect others.

        :param until_ms: until when it is used, if the feed will not tell of its changes
        :param due_ms: when its record is to be written to Redis
        """
        value: T | Absent | _Failure = ABSENT if record is None else self._prepared(key_id, record)
        if not isinstance(value, _Failure):
            self.cache.put(key_id, Entry(record, value, self.cache.epoch, until_ms, due_ms))
        self._finish(key_id, value)

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
