"""Finding a key: process memory, then Redis, then PostgreSQL. One look-up per key at a time; a key in use is read anew before it is due.

What is promised, and how:

* What is used was read from PostgreSQL, by whatever gate, at most ``local_ttl`` ago. A record of Redis counts by the age in its seal.
  So with every notice of a change lost, the change still takes effect within ``local_ttl`` (and what clocks differ by).
* A change that is noticed takes effect at once. A look-up that is under way then is run again: what it read may be the past.
  From then on, for as long as an old record could be valid, this process does not believe Redis for that key.
* A record of Redis that was read before this process could hear of changes is used only when PostgreSQL cannot answer.
* When PostgreSQL cannot answer, a key goes on from memory as long as the messages of Redis have come without a gap since it was read,
  otherwise until ``stale_limit``; and from Redis while its seal is valid. A key that is known to have changed never does.
* An unknown id is never written to Redis, and waits in a line of its own for PostgreSQL.

Keys that are known are read anew many at a time, from PostgreSQL directly; Redis is for keys this process does not know, and for outages.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, NamedTuple

import structlog

from gateway.config.settings import Cache
from gateway.errors import KeyStoreUnavailable, StoreUnavailable
from gateway.keys.cache import ABSENT, Absent, Entry, KeyCache, T
from gateway.keys.codec import RecordUnreadable
from gateway.keys.record import KeyRecord
from gateway.keys.shared import SharedRecords
from gateway.keys.sources import Finds, Sources
from gateway.keys.trust import YOUNG, Channels, Now, Shared, Trust
from gateway.runtime import clock
from gateway.runtime.tasks import cancel, spawn
from gateway.telemetry.metrics import Metrics

_SPREAD = 0.15
"""From ``YOUNG`` on, over this share of ``local_ttl``, keys in use become due for a refresh, each at a moment of its own."""
_GATHER_SECONDS = 0.05
"""How long refreshes that nobody waits for are gathered."""
_BATCH = 500
_RETRY_MS, _GOES_ON_MS = 1_000, 3_000
"""During an outage a key in use is asked for again this often, and used for so long: longer than a store takes to time out."""
_ATTEMPTS = 5
_log = structlog.get_logger(__name__)


class _Answer(NamedTuple):
    """What the stores say. ``record`` is ``None`` for a key that does not exist or cannot be used."""

    record: KeyRecord | None
    read: Now
    share: bool = False
    """Redis may be brought up to date with it."""
    until_ms: int | None = None
    """PostgreSQL did not answer: usable past its freshness, until then."""


class _GoesOn(NamedTuple, Generic[T]):
    """PostgreSQL did not answer, and what is in memory may be used until then."""

    entry: Entry[T]
    until_ms: int


class _Failure(NamedTuple):
    """Neither store can say."""

    reason: str


class _Flight(Generic[T]):
    """One look-up under way."""

    __slots__ = ("dirty", "landed")

    def __init__(self) -> None:
        self.dirty = False
        """The key changed since the stores were asked."""
        self.landed: asyncio.Future[T | Absent | _Failure] = asyncio.get_running_loop().create_future()


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
        self._settings = settings
        self._prepare = prepare
        self._metrics = metrics or Metrics()
        self._trust = Trust(channels)
        self._sources = Sources(store, shared, self._trust, self._metrics, self._now)
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._cache: KeyCache[T] = KeyCache(settings.local_entries)
        self._present = self._cache.present
        self._flights: dict[str, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._due: dict[str, _Flight[T]] = {}
        self._hurry = asyncio.Event()
        self._refreshing = False

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
            self._begin(key_id)
        return entry.value

    async def fetch(self, key_id: str) -> T | None:
        """The key's value; ``None`` when there is no such key. Waits for a look-up of the same key that is under way.

        Whoever gives up waiting does not disturb the look-up.

        :param key_id: well-formed (``ids.is_key_id``); others are never asked for
        :raises KeyStoreUnavailable: neither store can say
        """
        found: T | Absent | _Failure | None = self.peek(key_id, self._monotonic_ms())
        if found is None:
            flight = self._flights.get(key_id) or self._begin(key_id)
            if key_id in self._due:
                self._hurry.set()
            found = await asyncio.shield(flight.landed)
        if isinstance(found, _Failure):
            raise KeyStoreUnavailable("The key cannot be looked up at the moment; try again shortly.", reason=found.reason)
        return None if found is ABSENT else found

    def invalidate(self, key_id: str | None) -> None:
        """Believe nothing read before now: of one key, or (``None``) of any, because a notice may have been missed."""
        now_ms = self._monotonic_ms()
        if key_id is None:
            self._trust.missed(now_ms)
            self._cache.expire()
            for flight in self._flights.values():
                flight.dirty = True
            return
        self._trust.heard(key_id, now_ms)
        self._cache.drop(key_id)
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
        await cancel(*self._tasks)
        self._due.clear()
        for key_id, flight in list(self._flights.items()):
            self._conclude(key_id, flight, _Failure("the gate is stopping"))

    # -- flights -------------------------------------------------------------------------------------------------------

    def _begin(self, key_id: str) -> _Flight[T]:
        """A known key goes with the next batch; an unknown one by itself."""
        self._flights[key_id] = flight = _Flight[T]()
        if key_id not in self._present:
            self._spawn(self._fly(key_id, flight))
            return flight
        self._due[key_id] = flight
        if not self._refreshing:
            self._refreshing = True
            self._hurry.clear()
            self._spawn(self._refresh())
        return flight

    def _conclude(self, key_id: str, flight: _Flight[T], answer: _Answer | _GoesOn[T] | _Failure) -> None:
        """Remember the answer and give it to who waits. Whatever goes wrong, nobody is left waiting."""
        outcome: T | Absent | _Failure = _Failure("the look-up failed")
        try:
            outcome = answer if isinstance(answer, _Failure) else self._remember(key_id, answer)
        except Exception:  # noqa: BLE001  # a defect in one key's preparation must not strand the others of its batch
            _log.exception("key_lookup_defect", key_id=key_id)
        self._flights.pop(key_id, None)
        if not flight.landed.done():
            flight.landed.set_result(outcome)

    async def _fly(self, key_id: str, flight: _Flight[T]) -> None:
        """One key by the long way. A failure is an outcome: nobody may be waiting for it."""
        answer: _Answer | _GoesOn[T] | _Failure = _Failure("the look-up failed")
        try:
            for _ in range(_ATTEMPTS):
                flight.dirty = False
                said = await self._ask(key_id)
                if not flight.dirty:
                    answer = said
                    break
            else:
                answer = _Failure("the key changes faster than it can be read")
        except StoreUnavailable as error:
            answer = _Failure(str(error))
        finally:
            self._conclude(key_id, flight, answer)

    async def _refresh(self) -> None:
        """Known keys that are due, in batches, until none is left."""
        try:
            while self._due:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GATHER_SECONDS):
                        await self._hurry.wait()
                self._hurry.clear()
                await self._fly_together({key_id: self._due.pop(key_id) for key_id in list(self._due)[:_BATCH]})
        finally:
            self._refreshing = False

    async def _fly_together(self, batch: dict[str, _Flight[T]]) -> None:
        now = self._now()
        answers: dict[str, _Answer | _GoesOn[T]] = {}
        try:
            records = await self._sources.find_many(list(batch))
            for key_id in batch:
                record = records.get(key_id)
                answers[key_id] = _Answer(record, now, share=record is None or self._sharing_due(key_id, now.ms))
        except StoreUnavailable:
            changed = await self._sources.changed(list(batch))
            going_on = {key_id: self._goes_on(key_id, changed.get(key_id)) for key_id in batch}
            answers.update({key_id: answer for key_id, answer in going_on.items() if answer is not None})
        except Exception:  # noqa: BLE001  # whoever waits is told by the long way
            _log.exception("key_lookup_defect")
        for key_id, flight in batch.items():
            if flight.dirty or key_id not in answers:
                self._spawn(self._fly(key_id, flight))
            else:
                self._conclude(key_id, flight, answers[key_id])

    def _goes_on(self, key_id: str, changed_wall_ms: int | None) -> _GoesOn[T] | None:
        now, entry = self._now(), self._present.get(key_id)
        if entry is None:
            return None
        until_ms = self._trust.goes_on_until(entry.read_ms, changed_wall_ms, self._settings, now)
        return _GoesOn(entry, until_ms) if now.ms < until_ms else None

    # -- asking --------------------------------------------------------------------------------------------------------

    async def _ask(self, key_id: str) -> _Answer | _GoesOn[T]:
        shared = await self._sources.shared(key_id)
        now = self._now()
        aged = self._trust.aged(shared, now)
        if aged is not None and self._trust.believed(aged, self._settings, now.ms):
            return _Answer(aged.record, Now(aged.read_ms, 0))
        try:
            record = await self._sources.find(key_id, known=key_id in self._present or aged is not None)
        except StoreUnavailable as error:
            return self._without_postgres(key_id, shared, error)
        except RecordUnreadable as error:
            _log.error("key_record_unreadable", key_id=key_id, reason=str(error))
            self._metrics.key_fetches["postgres", "unreadable"] += 1
            return _Answer(None, now)
        # An unknown id leaves no trace in Redis; a record of a key that is no more gets its tombstone.
        return _Answer(record, now, share=shared is not None and (record is not None or shared.dated is not None))

    def _without_postgres(self, key_id: str, shared: Shared | None, error: StoreUnavailable) -> _Answer | _GoesOn[T]:
        """What may be used all the same.

        :raises StoreUnavailable: nothing
        """
        going_on = self._goes_on(key_id, None if shared is None else shared.changed_ms)
        if going_on is not None:
            return going_on
        aged = self._trust.aged(shared, self._now())
        if aged is not None:
            return _Answer(aged.record, Now(aged.read_ms, 0), until_ms=aged.until_ms)
        raise error

    def _now(self) -> Now:
        return Now(self._monotonic_ms(), self._wall_ms())

    # -- what comes of it ----------------------------------------------------------------------------------------------

    def _remember(self, key_id: str, answer: _Answer | _GoesOn[T]) -> T | Absent:
        now_ms, ttl_ms = self._monotonic_ms(), self._settings.local_ttl_ms
        if isinstance(answer, _GoesOn):
            self._metrics.stale_served += 1
            going_on: Entry[T] = answer.entry
            going_on.fresh_until_ms = min(now_ms + _GOES_ON_MS, answer.until_ms)
            going_on.refresh_from_ms = min(now_ms + _RETRY_MS, going_on.fresh_until_ms)
            return going_on.value
        if answer.share:
            self._spawn(self._sources.share(key_id, answer.record, answer.read, ttl_ms=self._settings.redis_ttl_ms))
        record, read_ms = answer.record, answer.read.ms
        value = None if record is None else self._prepared(key_id, record)
        if record is None or value is None:
            self._cache.put_absent(key_id, read_ms + ttl_ms)
            return ABSENT
        refresh_from_ms = read_ms + int(ttl_ms * (YOUNG + _SPREAD * secrets.randbelow(1_000) / 1_000))
        fresh_until_ms = read_ms + ttl_ms
        if answer.until_ms is not None:
            self._metrics.stale_served += 1
            fresh_until_ms = min(now_ms + _GOES_ON_MS, answer.until_ms)
            refresh_from_ms = min(now_ms + _RETRY_MS, fresh_until_ms)
        known = self._present.get(key_id)
        shared_ms = now_ms if answer.share else 0 if known is None else known.shared_ms
        entry = Entry(record, value, read_ms=read_ms, refresh_from_ms=refresh_from_ms, fresh_until_ms=fresh_until_ms, shared_ms=shared_ms)
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

    def _sharing_due(self, key_id: str, now_ms: int) -> bool:
        """Whether Redis should have the record anew, so that it holds a valid one for as long as the key is in use."""
        entry = self._present.get(key_id)
        return entry is not None and now_ms - entry.shared_ms >= self._settings.redis_ttl_ms // 2

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = spawn(work, name="key-lookup")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
