"""Cache validity: which cached key records may still be used, given the changes this process has seen. Pure: no I/O, no clock.

The change feed is read every second. A change committed before the last read is in that read, so entries in memory are valid for
``local_ttl`` after it. A record in Redis is valid when this process has read every change committed after the record was written, and none
of them concerns its key. A Redis message announces a change before the feed does, but without its transaction id: until the feed has been
read once more, no Redis record of that key is used.

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
"""Greatest tolerated difference between the clocks of two machines. They date the records in Redis, and nothing else."""
EVERY_KEY = "*"
_MOST = 200_000
_MOST_HEARD = 20_000
_NO_END = 1 << 62
_EXTENSION_MS = 250


class Now(NamedTuple):
    """One moment by both clocks."""

    ms: int
    wall_ms: int


class FeedRead(NamedTuple):
    """One read of the feed."""

    position: Snapshot
    server: int
    """Identifies the server and its start: transaction ids are comparable within one of them alone."""
    floor: int
    """Entries of transactions below it may have been pruned."""
    mark: str | None
    """The newest mark."""
    mark_is_there: bool
    """The newest mark of the read before."""
    changes: list[tuple[str, int]]
    """Key id, or :data:`EVERY_KEY`, and transaction."""


class _Marks:
    """Keys with a pending change, each with the number of its latest one. Bounded: once full, every key counts as changed."""

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
        """Drop marks up to this number."""
        self._of = {key_id: heard for key_id, heard in self._of.items() if heard > number}
        self._all = self._all if self._all > number else 0


class Trust:
    """The changes this process has seen, and which cached records are valid in view of them."""

    def __init__(self) -> None:
        self.read: FeedRead | None = None
        """The last read of the feed."""
        self.read_at = Now(0, 0)
        """When it began."""
        self.redis_up_ms: int | None = None
        """Since when the Redis subscription has been up without a gap; ``None`` while it is down."""
        self.number = 0
        """Number of changes and messages seen so far."""
        self.seen: dict[int, Snapshot] = {}
        """Last position read from each server, as long as no change since can have been missed; includes the current server."""
        self._floor = _NO_END
        """Every change with this transaction id or a later one is in ``_changed``."""
        self._changed: dict[str, tuple[int, ...]] = {}
        """As long as the feed itself holds them: a database that was restored from before them is known by their absence."""
        self._told = _Marks(_MOST)
        self._heard = _Marks(_MOST_HEARD)

    # -- changes seen

    def hear(self, key_id: str, *, told: bool = False) -> None:
        """Note that this key has changed.

        :param told: by a Redis message, so that the transaction id is not known
        """
        self.number += 1
        self._heard.note(key_id, self.number)
        if told:
            self._told.note(key_id, self.number)

    def hear_all(self) -> None:
        """Note that any key may have changed."""
        self.number += 1
        self._heard.note_all(self.number)

    def heard_since(self, key_id: str, number: int) -> bool:
        """Whether this key has changed since :attr:`number` had this value: a record read before then may be outdated."""
        return self._heard.since(key_id, number)

    def news(self, read: FeedRead) -> list[tuple[str, int]]:
        """The changes of a read that no earlier read contained."""
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
        """Record a read of the feed.

        :param at: when the read began
        :param number: :attr:`number` when the read began: changes announced by messages until then are in this read
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
        """Keys whose last change is still in the feed: a record from before it could be within its validity."""
        return [key_id for key_id in self._changed if key_id != EVERY_KEY]

    # -- validity

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
            return now_ms + _EXTENSION_MS
        return min(now_ms + _EXTENSION_MS, self.read_at.ms + settings.stale_limit_ms)

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
        """Until when a record from Redis may be used while PostgreSQL is unavailable; a time in the past when it may not."""
        return 0 if self._is_unknown_past(dated) or self._changed_after(dated) else _valid_until(dated, now)

    def _is_unknown_past(self, dated: DatedRecord) -> bool:
        """Whether this process cannot know the changes since: they may have been pruned, or their server's feed was never read."""
        if self.read is None:
            return False
        seen = self.seen.get(dated.server)
        return dated.position.xmin < self._floor or (not self.is_ours(dated.server) and (seen is None or not seen.includes(dated.position)))

    def _changed_after(self, dated: DatedRecord) -> bool:
        """Whether this key has a known change that the record may not contain."""
        key_id = dated.record.key_id
        changes: Iterable[int] = (*self._changed.get(key_id, ()), *self._changed.get(EVERY_KEY, ()))
        return self._told.since(key_id, 0) or not all(map(dated.position.sees, changes))


def _valid_until(dated: DatedRecord, now: Now) -> int:
    """When a record's seal expires; one dated in the future is not valid at all."""
    age_ms = now.wall_ms - dated.read_ms
    return now.ms + dated.ttl_ms - max(0, age_ms) if age_ms >= -CLOCKS_DIFFER_MS else 0
