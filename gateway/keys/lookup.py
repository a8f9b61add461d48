"""Key lookup: process memory, then Redis, then PostgreSQL. Entries are refreshed when a key changes, not when they age.

What is promised, and how (``trust`` decides what is believed, ``invalidation`` reads the feed and hears the messages):

* Memory is believed as long as the feed of changes has been read within ``local_ttl``: what it did not tell of has not changed. A change
  drops its key from memory at once, whoever tells of it first: a message, or the feed within a second.
* A look-up that is under way while its key changes is run again: what it read may be the past.
* A record of Redis is believed for its whole validity when this process knows every change since the record was true.
* While the feed cannot be read, memory goes on as long as the messages of Redis have come without a gap, else until ``stale_limit``; a
  key that is not in memory is taken from Redis while its seal is valid. A key that is known to have changed never is.
* When changes may have been missed, everything in memory is in doubt: each key is used for another ``local_ttl`` while it is read anew.
* An unknown id is never written to Redis, and waits in a line of its own for PostgreSQL, which sees a bounded number of rows a second.
* Who has waited too long is told to try again. The look-up stays in line, so that whoever tries again finds the key, or is nearer to it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple

import structlog

from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys.cache import ABSENT, Absent, Entry, KeyCache, T
from gateway.keys.codec import DatedRecord
from gateway.keys.lines import Line
from gateway.keys.record import KeyRecord
from gateway.keys.shared import REDIS_SECONDS, TOGETHER, SharedRecords, Source
from gateway.keys.snapshot import Snapshot
from gateway.keys.store import Found
from gateway.keys.trust import Now, Trust
from gateway.runtime import clock
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Cache

ROWS_PER_SECOND = 5_000
"""Of PostgreSQL, for keys that were seen to exist; and as many for ids of which nobody knows."""
PATIENCE_MS = 2_000
"""How long a request waits for a look-up before it is told to try again."""
PLACES = 12_000
"""Look-ups under way at once, but for keys that are in memory and in doubt. What cannot be done while a request waits is refused at once:
later, thousands of requests would be refused in one turn of the loop, and keep it from everything else.
"""
_REDIS_BATCH, _POSTGRES_BATCH, _HANDS = 100, 250, 4
_UNKNOWN_PLACES = PATIENCE_MS * ROWS_PER_SECOND // 1_000
_RETRY_MS, _GOES_ON_MS = 1_000, 3_000
"""A key in doubt is asked for again this often; one from Redis while PostgreSQL is away is used for so long."""
_RENEWED_AT = 0.75
"""The share of its validity after which a record in Redis is replaced, if its key was used meanwhile."""
_ATTEMPTS = 5
_log = structlog.get_logger(__name__)


class _Failure(NamedTuple):
    """Neither store can say."""

    reason: str


class _Flight(Generic[T]):
    """One look-up under way."""

    __slots__ = ("attempts", "dated", "is_outdated", "outcome")

    def __init__(self) -> None:
        self.attempts = 0
        self.is_outdated = False
        """Whether the key has changed since PostgreSQL was asked."""
        self.dated: DatedRecord | None = None
        """What Redis holds."""
        self.outcome: asyncio.Future[T | Absent | _Failure] = asyncio.get_running_loop().create_future()

    async def waited_for(self) -> T | Absent | _Failure:
        await asyncio.wait((self.outcome,), timeout=PATIENCE_MS / 1_000)
        return self.outcome.result() if self.outcome.done() else _Failure("the line of key look-ups does not move fast enough")


def _now() -> Now:
    return Now(clock.monotonic_ms(), clock.now_ms())


class KeyLookup(Generic[T]):
    """Keys by id, as values of ``T`` that ``prepare`` makes of a record once and that stay the same object until the record changes.

    :param find: :meth:`store.KeyStore.find`
    :param prepare: may raise ``ValueError`` for a record that cannot be used: that key is refused, no other
    :param trust: kept by the :class:`InvalidationListener` that calls the methods of the section on changes
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
        self._valid_until_ms = 0
        self._flights: dict[str, _Flight[T]] = {}
        self._first = Line(self._ask_redis, batch=_REDIS_BATCH, hands=_HANDS)
        self._known = Line(self._ask_postgres, batch=_POSTGRES_BATCH, hands=_HANDS // 2, per_second=ROWS_PER_SECOND)
        self._unknown = Line(
            self._ask_postgres, batch=_POSTGRES_BATCH, hands=_HANDS // 2, places=_UNKNOWN_PLACES, per_second=ROWS_PER_SECOND
        )
        self._removals = Line(self._remove, batch=TOGETHER, hands=1)
        self._to_renew: deque[tuple[int, str, Entry[T]]] = deque()
        self._renewing = False

    def peek(self, key_id: str, now_ms: int) -> T | Absent | None:
        """What memory says, for the hot path: a value, ``ABSENT``, or ``None``: call :meth:`fetch`.

        :param now_ms: monotonic milliseconds
        """
        entry = self._present.get(key_id)
        if entry is not None and now_ms < self._valid_until_ms and not entry.in_doubt:
            entry.used = True
            return entry.value
        return self._peek_further(key_id, entry, now_ms)

    def _peek_further(self, key_id: str, entry: Entry[T] | None, now_ms: int) -> T | Absent | None:
        if now_ms >= self._valid_until_ms:
            self._valid_until_ms = self._trust.memory_valid_until_ms(self._settings, now_ms)
            if now_ms < self._valid_until_ms and not self._trust.is_feed_current(self._settings, now_ms):
                self._metrics.stale_served += 1
        believed = now_ms < self._valid_until_ms
        if entry is None:
            until_ms, in_doubt = self._cache.absent.get(key_id, (0, True))
            return ABSENT if now_ms < until_ms or (believed and not in_doubt) else None
        entry.used = True
        if entry.in_doubt and entry.retry_ms <= now_ms < entry.until_ms and key_id not in self._flights:  # read anew while it is used
            entry.retry_ms = now_ms + _RETRY_MS
            self._metrics.key_rereads += 1
            self._begin(key_id)
        return entry.value if now_ms < entry.until_ms or (believed and not entry.in_doubt) else None

    async def fetch(self, key_id: str) -> T | None:
        """The key's value; ``None`` when there is no such key. Waits for a look-up of the same key that is under way, and not for ever.

        Whoever gives up waiting does not disturb the look-up.

        :param key_id: well-formed (``ids.is_key_id``); others are never asked for
        :raises KeyStoreUnavailable: neither store can say
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
        """Take over new settings."""
        self._settings = settings
        self._valid_until_ms = 0
        self._cache.resize(settings.local_entries)

    def sizes(self) -> dict[str, int]:
        """How many keys and absent ids are remembered, and how many look-ups are under way."""
        return {"present": len(self._present), "absent": len(self._cache.absent), "flights": len(self._flights)}

    async def aclose(self) -> None:
        """Give up the look-ups under way."""
        for line in (self._first, self._known, self._unknown, self._removals):
            await line.aclose()
        for key_id, flight in list(self._flights.items()):
            self._land(key_id, flight, _Failure("the gate is stopping"))

    # -- what has changed ----------------------------------------------------------------------------------------------

    def invalidate(self, key_id: str, xid: int | None = None) -> bool:
        """Something about this key has changed: forget it.

        :param xid: by this transaction, when that is known
        :returns: whether it was in memory, so that this process may have put it into Redis
        """
        if key_id in self._flights:
            self._flights[key_id].is_outdated = True
        entry = self._present.get(key_id)
        if entry is not None and xid is not None and not entry.in_doubt and entry.position.sees(xid):
            return False
        return self._cache.drop(key_id) is not None

    def server_changed(self, position: Snapshot) -> None:
        """PostgreSQL has another server now, which has what this position saw: whatever saw more is forgotten."""
        self._cache.go_back(position)
        self._outdate_flights()

    def invalidate_all(self, *, gradually: bool) -> None:
        """Anything may have changed: everything in memory is in doubt.

        :param gradually: what was believed until now is used while it is read anew
        """
        now_ms = self.now().ms
        believed = now_ms < self._trust.memory_valid_until_ms(self._settings, now_ms)
        self._cache.doubt(now_ms + self._settings.local_ttl_ms if gradually and believed else 0)
        self._outdate_flights()

    def _outdate_flights(self) -> None:
        for flight in self._flights.values():
            flight.is_outdated = True

    async def renew(self) -> None:
        """Let Redis hold a valid record of each key that this process has put there and that was used since. After a read of the feed."""
        now_ms, read, at = self.now().ms, self._trust.read, self._trust.read_at
        if read is None or self._renewing:
            return
        self._renewing, is_there = True, True
        try:
            while is_there and self._is_due(now_ms):
                is_there = await self._share(self._due(now_ms), at, read.position, read.server)
                await asyncio.sleep(0)
        finally:
            self._renewing = False

    def _is_due(self, now_ms: int) -> bool:
        return bool(self._to_renew) and self._to_renew[0][0] <= now_ms

    def _due(self, now_ms: int) -> dict[str, Entry[T]]:
        """Some of those whose records are to be written now; most of what is looked through may be of keys that have changed since."""
        due: dict[str, Entry[T]] = {}
        for _ in range(10 * _REDIS_BATCH):
            if len(due) == _REDIS_BATCH or not self._is_due(now_ms):
                break
            _, key_id, entry = self._to_renew.popleft()
            if entry.used and self._holds(key_id, entry):
                due[key_id] = entry
        return due

    def _holds(self, key_id: str, entry: Entry[T]) -> bool:
        """Whether that is still what memory says."""
        return self._present.get(key_id) is entry and not entry.in_doubt

    def forget(self, key_ids: Iterable[str]) -> None:
        """Remove the records of these keys from Redis, in the background. Whoever reads one that is left does not believe it."""
        for key_id in key_ids:
            self._removals.add(key_id)

    async def _remove(self, key_ids: Sequence[str]) -> None:
        with suppress(StoreUnavailable):
            await self._redis.ask(self._shared.forget, key_ids)

    async def purge(self) -> None:
        """Remove from Redis what a fail-over may have brought back: records from before a change."""
        changed = list(self._trust.changes)
        while changed:
            try:
                held, now = await self._redis.ask(self._shared.read, changed[-TOGETHER:]), self.now()
                old = [key_id for key_id, dated in held.items() if self._trust.fallback_valid_until_ms(dated, now) <= now.ms]
                await self._redis.ask(self._shared.forget, old)
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_MS / 1_000)
            else:
                del changed[-TOGETHER:]

    # -- look-ups ------------------------------------------------------------------------------------------------------

    def _begin(self, key_id: str) -> _Flight[T]:
        self._flights[key_id] = flight = _Flight[T]()
        self._first.add(key_id)
        return flight

    def _land(self, key_id: str, flight: _Flight[T], outcome: T | Absent | _Failure) -> None:
        self._flights.pop(key_id, None)
        if not flight.outcome.done():
            flight.outcome.set_result(outcome)

    async def _ask_redis(self, key_ids: list[str]) -> None:
        """The ids that Redis cannot answer for go on to PostgreSQL: those that were seen to exist before the others."""
        records: dict[str, DatedRecord] = {}
        try:
            records = await self._redis.ask(self._shared.read, key_ids)
            self._redis.count(found=len(records), asked=len(key_ids))
        except StoreUnavailable:
            pass
        except Exception:  # noqa: BLE001  # a defect must strand nobody
            _log.exception("key_lookup_defect")
        now = self.now()
        for key_id in key_ids:
            flight = self._flights[key_id]
            dated = flight.dated = records.get(key_id)
            if dated is not None and self._trust.is_valid(dated, self._settings, now):
                self._conclude(key_id, flight, dated.record, dated.position)
            elif dated is not None or key_id in self._present:
                self._known.add(key_id)
            elif not self._unknown.add(key_id):
                self._land(key_id, flight, _Failure("too many unknown key ids are being looked up"))

    async def _ask_postgres(self, key_ids: list[str]) -> None:
        """Whatever goes wrong, nobody is left waiting."""
        try:
            await self._read(key_ids)
        except Exception:  # noqa: BLE001  # whoever waits is told
            _log.exception("key_lookup_defect")
            for key_id in key_ids:
                if key_id in self._flights:
                    self._land(key_id, self._flights[key_id], _Failure("the look-up failed"))

    async def _read(self, key_ids: list[str]) -> None:
        """Those that change meanwhile are asked for again: what was read may be the past."""
        at = self.now()
        for key_id in key_ids:
            self._flights[key_id].is_outdated = False
        try:
            found = await self._postgres.ask(self._find, key_ids)
        except StoreUnavailable as error:
            for key_id in key_ids:
                self._without_postgres(key_id, self._flights[key_id], str(error))
            return
        self._postgres.count(found=len(found.records), asked=len(key_ids))
        is_followed = self._trust.is_current_server(found.server)
        for key_id in key_ids:
            flight = self._flights[key_id]
            if not flight.is_outdated:  # of a server whose feed is not read here, it is used for a moment only
                self._conclude(key_id, flight, found.records.get(key_id), found.position, in_doubt=not is_followed)
            elif flight.attempts == _ATTEMPTS:
                self._land(key_id, flight, _Failure("the key changes faster than it can be read"))
            else:
                flight.attempts += 1
                self._known.add(key_id)
        held = {key_id: entry for key_id in found.records if (entry := self._present.get(key_id)) is not None}
        # One that was read earlier, and whose look-up is run again, may not contain what this position sees.
        entries = {key_id: entry for key_id, entry in held.items() if entry.position == found.position}
        if is_followed and entries:
            self._first.spawn(self._share(entries, at, found.position, found.server))

    def _without_postgres(self, key_id: str, flight: _Flight[T], reason: str) -> None:
        """What Redis holds may be used for a while."""
        now, dated = self.now(), flight.dated
        until_ms = 0 if dated is None else self._trust.fallback_valid_until_ms(dated, now)
        if dated is None or until_ms <= now.ms:
            self._land(key_id, flight, _Failure(reason))
        else:
            self._metrics.stale_served += 1
            until_ms = min(now.ms + _GOES_ON_MS, until_ms)
            self._conclude(key_id, flight, dated.record, dated.position, in_doubt=True, until_ms=until_ms)

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def _conclude(
        self, key_id: str, flight: _Flight[T], record: KeyRecord | None, position: Snapshot, *, in_doubt: bool = False, until_ms: int = 0
    ) -> None:
        """Remember what a store says, and give it to who waits. A defect in one key's preparation concerns no other.

        :param until_ms: how long it may be used in doubt, or while memory is not valid; by default for a moment
        """
        soon_ms = self.now().ms + _RETRY_MS
        value: T | Absent | _Failure = ABSENT if record is None else self._prepared(key_id, record)
        if isinstance(value, Absent):
            self._cache.put_absent(key_id, soon_ms, in_doubt=in_doubt)
        elif record is not None and not isinstance(value, _Failure):
            self._cache.put(key_id, Entry(record, value, position, until_ms=until_ms or soon_ms, retry_ms=soon_ms, in_doubt=in_doubt))
        self._land(key_id, flight, value)

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
        """Put into Redis what is in memory, true at that position, and see to it that it is renewed while it is in use; again after the
        next read of the feed if Redis does not take it. Whether it did.
        """
        entries, ttl_ms = {key_id: entry for key_id, entry in entries.items() if self._holds(key_id, entry)}, self._settings.redis_ttl_ms
        records = [DatedRecord(entry.record, at.wall_ms, ttl_ms, position, server) for entry in entries.values()]
        if not records:
            return True
        is_there = True
        try:
            await self._redis.ask(self._shared.write, records, now_ms=self.now().wall_ms)
        except StoreUnavailable:  # again before those that are due later, or it would wait for them
            is_there = False
            self._to_renew.extendleft((self.now().ms, key_id, entry) for key_id, entry in entries.items())
        else:
            due_ms = self.now().ms + int(ttl_ms * _RENEWED_AT)
            self._to_renew.extend((due_ms, key_id, entry) for key_id, entry in entries.items())
            for entry in entries.values():
                entry.used = False
        if len(self._to_renew) > 2 * len(self._present) + _REDIS_BATCH:  # most of them are of keys that memory has let go since
            self._to_renew = deque(each for each in self._to_renew if self._holds(each[1], each[2]))
        self.forget(key_id for key_id, entry in entries.items() if not self._holds(key_id, entry))  # it may have come after the removal
        return is_there
