"""Cache validity: which cached key records may still be used, given the changes this process knows of. Pure: no I/O, no clock.

The change feed is read every second. A change committed before the last read is in that read, so entries in memory are valid for
``local_ttl`` after it, once its changes have been applied to them. A record in Redis is valid when this process has read every change
committed after the record was written, and none of them concerns its key. A Redis message announces a change before the feed does, but
without its transaction id: until the feed has been read once more, no Redis record of that key is used.

Times are monotonic milliseconds of this process, unless the name says ``wall``.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.keys.codec import DatedRecord
from gateway.keys.snapshot import Snapshot

if TYPE_CHECKING:
    from gateway.config.settings import Cache

MAX_RECORD_TTL_MS = 300_000
"""No record in Redis is valid for longer (``cache.redis_ttl_ms``)."""
CLOCKS_DIFFER_MS = 2_000
"""Greatest tolerated difference between the clocks of two machines. They date the records in Redis, and nothing else."""
EVERY_KEY = "*"
Change: TypeAlias = tuple[str, int]
"""Key id, or :data:`EVERY_KEY`, and transaction id."""
_MAX_CHANGES = 200_000
"""Number of keys whose changes are remembered."""
_PRUNED_AT_ONCE, _COMPARED_AT_ONCE = 10_000, 50_000
"""Limits of what is done in one turn of the event loop."""
_NO_END = 1 << 62
_EXTENSION_MS = 250


class Now(NamedTuple):
    """One moment by both clocks."""

    ms: int
    wall_ms: int


class FeedRead(NamedTuple):
    """One read of the feed."""

    at: Now
    """When it began: what was announced before is in it."""
    position: Snapshot
    server: int
    """Identifies the server and its start: transaction ids are comparable within one of them alone."""
    floor: int
    """Entries of transactions below it may have been pruned."""
    mark: str | None
    """The newest mark."""
    mark_is_there: bool
    """Whether the newest mark of the previous read still exists."""
    pages: Sequence[Iterable[Change]] | None
    """The changes, in pages that are short enough for one turn of the event loop; each can be read once. ``None``: they are too many to be
    read, and ``floor`` is above all of them.
    """


class KnownChanges:
    """The changes of one server that this process has read, complete from transaction ``floor`` on.

    They are kept for as long as the feed itself keeps them: a database restored to an earlier state is recognized by their absence.
    """

    __slots__ = ("_of", "floor")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._of: dict[str, tuple[int, ...]] = {}

    def __iter__(self) -> Iterator[str]:
        """What has changed."""
        return iter(self._of)

    def add(self, page: Iterable[Change], read: FeedRead) -> Iterator[Change]:
        """Add some of the changes of a read: those that are new, each after it was yielded. If they become too many, all are forgotten."""
        for key_id, xid in page:
            known = self._of.get(key_id, ())
            if xid not in known:
                yield key_id, xid
                self._of.pop(key_id, None)  # and put back at the end: see `prune`
                self._of[key_id] = (*(earlier for earlier in known if earlier >= read.floor), xid)
        if len(self._of) > _MAX_CHANGES:
            self._of.clear()
            self.floor = read.position.xmax

    def prune(self, floor: int) -> None:
        """Drop changes of transactions below the feed's floor: a bounded number, least recently read first. Those that remain do no harm.

        This floor may be above the feed's. What was under way when it was raised, and committed since, is kept as the feed keeps it.
        """
        self.floor = max(self.floor, floor)
        outdated = takewhile(lambda key_id: max(self._of[key_id]) < floor, islice(self._of, _PRUNED_AT_ONCE))
        for key_id in list(outdated):
            del self._of[key_id]

    def all_in(self, position: Snapshot, key_id: str) -> bool:
        """Whether this position sees every known change of a key."""
        return all(map(position.sees, (*self._of.get(key_id, ()), *self._of.get(EVERY_KEY, ()))))

    def includes(self, other: "KnownChanges", floor: int) -> bool:
        """Whether another server's changes of transactions from ``floor`` on are all known and few enough to compare, and are here too."""
        theirs = other._of.items()  # noqa: SLF001  # of the same class
        if max(self.floor, other.floor) > floor or len(theirs) > _COMPARED_AT_ONCE:
            return False
        return all(xid < floor or xid in self._of.get(key_id, ()) for key_id, xids in theirs for xid in xids)


class Trust:
    """The changes this process knows of, and which cached records are valid in view of them."""

    def __init__(self) -> None:
        self.read: FeedRead | None = None
        """The last read of the feed whose changes have all been applied to memory."""
        self.redis_up_ms: int | None = None
        """Since when the Redis subscription has been up without a gap; ``None`` while it is down."""
        self.changes = KnownChanges(_NO_END)
        """Those of the server of that read, and of later reads as far as they have been applied."""
        self._announced: dict[str, int] = {}
        """Keys whose changes have been announced, each with the time of the last."""

    # -- changes

    def announce(self, key_id: str, now_ms: int) -> None:
        """This key has changed, as a Redis message says, or a read of another server's feed that began just after ``now_ms``."""
        if len(self._announced) >= _MAX_CHANGES:
            self._announced, key_id = {}, EVERY_KEY
        self._announced[key_id] = max(now_ms, self._announced.get(key_id, 0))

    def gap(self, read: FeedRead, changes: KnownChanges) -> str | None:
        """Why changes may have been missed between the last read and this one; ``None`` when none can have been.

        :param changes: all that are known of this read's server
        """
        before = self.read
        if before is None:
            return None
        if read.position.xmax < before.position.xmax:
            return "the database is in a state from before the last read"
        if before.mark is not None and not read.mark_is_there:
            return "the database has another history, or the feed was read too long ago"
        if read.floor > before.position.xmin:
            return "changes were pruned before they were read, or were too many to be read"
        if changes is not self.changes and not changes.includes(self.changes, read.floor):
            return "another server has taken over without the latest changes, or with too many to compare them"
        return None

    def accept(self, read: FeedRead, changes: KnownChanges, *, has_gap: bool) -> None:
        """Record a read whose changes have all been applied to memory, and are known."""
        changes.prune(read.floor)
        if has_gap:  # what was missed is not known, so that records from before look unchanged
            changes.floor = read.position.xmax
        self.read, self.changes = read, changes

    # -- validity

    def is_feed_current(self, settings: "Cache", now_ms: int) -> bool:
        """Whether the feed has been read lately."""
        return self.read is not None and now_ms < self.read.at.ms + settings.local_ttl_ms

    def memory_valid_until_ms(self, settings: "Cache", now_ms: int) -> int:
        """Until when memory is valid; in the past when it is not.

        While the feed cannot be read: for as long as Redis has announced every change since the last read, else until ``stale_limit``.

        A process that resumes from a stop (SIGSTOP) has yet to receive what came meanwhile: it uses memory for the rest of ``local_ttl``,
        or :data:`_EXTENSION_MS`, at most. If the monotonic clock stood still as well, as in a paused machine, for a whole ``local_ttl``.
        """
        if self.read is None:
            return 0
        read_ms = self.read.at.ms
        if now_ms < read_ms + settings.local_ttl_ms:
            return read_ms + settings.local_ttl_ms
        if self.redis_up_ms is not None and self.redis_up_ms < read_ms:
            return now_ms + _EXTENSION_MS
        return min(now_ms + _EXTENSION_MS, read_ms + settings.stale_limit_ms)

    def is_current_server(self, server: int) -> bool:
        """Whether this start of this server is the one whose feed is read: what it says may be remembered."""
        return self.read is not None and self.read.server == server

    def is_valid(self, dated: DatedRecord, settings: "Cache", now: Now) -> bool:
        """Whether a record in Redis is as good as PostgreSQL's."""
        return self.is_feed_current(settings, now.ms) and self.fallback_valid_until_ms(dated, now) > now.ms

    def fallback_valid_until_ms(self, dated: DatedRecord, now: Now) -> int:
        """Until when a record in Redis may be used while PostgreSQL is unavailable; a time in the past when it may not.

        That of its seal, unless its key may have changed since. Before the first read of the feed no change is known; later, none of a
        time before the feed's floor, or of another server. A record dated in the future is never used.
        """
        key_id, age_ms = dated.record.key_id, now.wall_ms - dated.read_ms
        is_known = self.read is None or (self.is_current_server(dated.server) and dated.position.xmin >= self.changes.floor)
        announced_ms = max(self._announced.get(key_id, -1), self._announced.get(EVERY_KEY, -1))
        read_ms = 0 if self.read is None else self.read.at.ms
        if not is_known or announced_ms >= read_ms or not self.changes.all_in(dated.position, key_id) or age_ms < -CLOCKS_DIFFER_MS:
            return 0
        return now.ms + dated.ttl_ms - max(0, age_ms)
