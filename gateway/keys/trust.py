"""Cache validity: which cached key records may still be used, given the changes this process has seen. Pure: no I/O, no clock.

The feed of changes is read every second. What it has not told of cannot have changed before its last read: so memory is believed for
``local_ttl`` after a read, and a record of Redis is believed when this process knows every change that the record may lack, and knows of
none to its key. A message of Redis tells of a change before the feed does, without its transaction's number: until the feed has been read
once more, Redis is not believed for that key at all.

Times are monotonic milliseconds of this process, unless the name says ``wall``.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from gateway.keys.codec import DatedRecord
from gateway.keys.snapshot import Snapshot

if TYPE_CHECKING:
    from gateway.config.settings import Cache

MAX_RECORD_TTL_MS = 300_000
"""No record in Redis is valid for longer (``cache.redis_ttl_ms``)."""
CLOCKS_DIFFER_MS = 2_000
"""How far the clocks of two machines may be apart: they date the records in Redis, and nothing else."""
EVERY_KEY = "*"
_MOST = 200_000
_MOST_HEARD = 20_000
_NO_END = 1 << 62
_GOES_ON_MS = 250


class Now(NamedTuple):
    """One moment by both clocks."""

    ms: int
    wall_ms: int


class FeedRead(NamedTuple):
    """One read of the feed."""

    position: Snapshot
    server: int
    """Which start of which server answered: transactions' numbers mean nothing to another history of the database."""
    floor: int
    """Entries of transactions below it may have been pruned."""
    mark: str | None
    """The newest mark."""
    mark_is_there: bool
    """The newest mark of the read before."""
    changes: list[tuple[str, int]]
    """Key id, or :data:`EVERY_KEY`, and transaction."""


class _Marks:
    """Keys that something was heard of, each with the number of that hearing. Bounded: beyond it, something was heard of every key."""

    __slots__ = ("_all", "_most", "_of")

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, int] = {}
        self._all = 0

    def note(self, key_id: str, number: int) -> None:
        if len(self._of) >= self._most:
            self._of.clear()
            self._all = number
        self._of[key_id] = number

    def note_all(self, number: int) -> None:
        self._all = number

    def since(self, key_id: str, number: int) -> bool:
        return self._all > number or self._of.get(key_id, 0) > number

    def forget(self, number: int) -> None:
        """Those up to this number."""
        self._of = {key_id: heard for key_id, heard in self._of.items() if heard > number}
        self._all = self._all if self._all > number else 0


class Trust:
    """See the module."""

    def __init__(self) -> None:
        self.read: FeedRead | None = None
        """The last read of the feed."""
        self.read_at = Now(0, 0)
        """When it began."""
        self.redis_up_ms: int | None = None
        """Since when the messages of Redis have come without a gap; ``None`` while they do not."""
        self.number = 0
        """How many changes and messages were heard of so far."""
        self.seen: dict[int, Snapshot] = {}
        """The last position at each server whose changes are all in this history, the present one's included."""
        self._floor = _NO_END
        """Changes from here on are all in ``_changed``."""
        self._changed: dict[str, tuple[int, ...]] = {}
        """As long as the feed itself holds them: a database that was restored from before them is known by their absence."""
        self._told = _Marks(_MOST)
        self._heard = _Marks(_MOST_HEARD)

    # -- what is heard

    def hear(self, key_id: str, *, told: bool = False) -> None:
        """Something about this key has changed.

        :param told: by a message of Redis
        """
        self.number += 1
        self._heard.note(key_id, self.number)
        if told:
            self._told.note(key_id, self.number)

    def hear_all(self) -> None:
        """Anything may have changed."""
        self.number += 1
        self._heard.note_all(self.number)

    def heard_since(self, key_id: str, number: int) -> bool:
        """Whether something was heard of this key after :attr:`number` was that: what was read before may be the past."""
        return self._heard.since(key_id, number)

    def news(self, read: FeedRead) -> list[tuple[str, int]]:
        """The changes of a read that no read before has told."""
        same = self.read is not None and self.read.server == read.server
        return [change for change in read.changes if not same or change[1] not in self._changed.get(change[0], ())]

    def gap(self, read: FeedRead) -> str | None:
        """Why changes may have been missed between the last read and this one; ``None`` when none can have been."""
        before = self.read
        if before is None:
            return None
        if read.position.xmax < before.position.xmax:
            return "the database is in a state from before the last read"
        if before.mark is not None and not read.mark_is_there:
            return "the database has another history, or the feed was read too long ago"
        if read.floor > before.position.xmin:
            return "changes were pruned before they were read"
        if read.server != before.server and not self._known_since(read.floor) <= set(read.changes):
            return "another server has taken over without the latest changes"
        return None

    def _known_since(self, floor: int) -> set[tuple[str, int]]:
        return {(key_id, xid) for key_id, xids in self._changed.items() for xid in xids if xid >= floor}

    def learn(self, read: FeedRead, at: Now, number: int) -> None:
        """Take over a read. Its news have been acted upon.

        :param at: when it began
        :param number: :attr:`number` when it began: what messages had told by then, this read knows better
        """
        if self.gap(read) is not None:
            self.seen.clear()
        if self.read is None or self.read.server != read.server:
            self._changed.clear()
            self._floor = read.floor
        for key_id, xid in read.changes:
            known = self._changed.get(key_id, ())
            if xid not in known:
                self._changed[key_id] = (*known, xid)
        self.read, self.read_at, self.seen[read.server] = read, at, read.position
        self._told.forget(number)
        if read.floor > self._floor:
            self._floor = read.floor
            self._changed = {key_id: xids for key_id, xids in self._changed.items() if max(xids) >= self._floor}
        if len(self._changed) > _MOST:
            self._changed.clear()
            self._floor = read.position.xmax

    def recent(self) -> list[str]:
        """Keys that changed as lately as the feed tells of: a record from before could be valid."""
        return [key_id for key_id in self._changed if key_id != EVERY_KEY]

    # -- what follows

    def is_current(self, settings: "Cache", now_ms: int) -> bool:
        """Whether the feed has been read lately."""
        return self.read is not None and now_ms < self.read_at.ms + settings.local_ttl_ms

    def until_ms(self, settings: "Cache", now_ms: int) -> int:
        """Until when memory may be believed; in the past when it may not.

        While the feed cannot be read: for as long as Redis has told of every change since the last read, else until ``stale_limit``.
        """
        if self.read is None:
            return 0
        if now_ms < self.read_at.ms + settings.local_ttl_ms:
            return self.read_at.ms + settings.local_ttl_ms
        if self.redis_up_ms is not None and self.redis_up_ms <= self.read_at.ms:
            return now_ms + _GOES_ON_MS
        return min(now_ms + _GOES_ON_MS, self.read_at.ms + settings.stale_limit_ms)

    def is_ours(self, server: int) -> bool:
        """Whether this start of this server is the one whose feed is read: what it says may be remembered."""
        return self.read is not None and self.read.server == server

    def believes(self, dated: DatedRecord, settings: "Cache", now: Now) -> bool:
        """Whether a record of Redis is as good as PostgreSQL's."""
        return (
            self.is_current(settings, now.ms)
            and self.is_ours(dated.server)
            and dated.position.xmin >= self._floor
            and _valid_until(dated, now) > now.ms
            and not self._changed_after(dated)
        )

    def usable_until_ms(self, dated: DatedRecord, now: Now) -> int:
        """Until when a record of Redis may be used while PostgreSQL does not answer; in the past when it may not."""
        seen = self.seen.get(dated.server)
        foreign = self.read is not None and not self.is_ours(dated.server) and (seen is None or not seen.includes(dated.position))
        return 0 if foreign or self._changed_after(dated) else _valid_until(dated, now)

    def _changed_after(self, dated: DatedRecord) -> bool:
        """Whether a change of this key is known that the record may lack."""
        key_id = dated.record.key_id
        changes: Iterable[int] = (*self._changed.get(key_id, ()), *self._changed.get(EVERY_KEY, ()))
        return self._told.since(key_id, 0) or not all(map(dated.position.sees, changes))


def _valid_until(dated: DatedRecord, now: Now) -> int:
    """The end of a seal's validity; a record from the future has none."""
    age_ms = now.wall_ms - dated.read_ms
    return now.ms + dated.ttl_ms - max(0, age_ms) if age_ms >= -CLOCKS_DIFFER_MS else 0
