"""Cache validity: which cached key records may still be used, given the changes this process knows of. Pure: no I/O, no clock.

The change feed is read every second. A change committed before the last read is in that read, so entries in memory are valid for
``local_ttl`` after it, once its changes have been applied to them. A record in Redis is valid when this process has read every change
committed after the record was written, and none of them concerns its key. A Redis message announces a change before the feed does, but
without its transaction id: until the feed has been read once more, no Redis record of that key is used.

Times are monotonic milliseconds of this process, unless the name says ``wall``.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
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
"""Instead of a key id."""
_MAX_CHANGES, _PRUNED_AT_ONCE = 200_000, 10_000
"""Number of keys whose changes are remembered, and that are dropped in one turn of the event loop."""
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
    """Identifies the server, its start and its tables: transaction ids are comparable within one of them alone."""
    floor: int
    """Entries of transactions below it may have been pruned."""
    pages: Sequence[Iterable[tuple[str, int]]] | None
    """The changes: key id and transaction id. In pages that are short enough for one turn of the event loop; each can be read once.
    ``None``: they are too many to be read, and ``floor`` is above all of them.
    """


class KnownChanges:
    """The changes of one server that this process has read, complete from transaction ``floor`` on."""

    __slots__ = ("_of", "floor", "server")

    def __init__(self, server: int = 0, floor: int = 0) -> None:
        self.server = server
        self.floor = floor
        self._of: dict[str, tuple[int, ...]] = {}

    def add(self, page: Iterable[tuple[str, int]]) -> Iterator[str]:
        """Add changes of a read: those that are new, each after its key was yielded."""
        for key_id, xid in page:
            known = self._of.get(key_id, ())
            if xid not in known:
                yield key_id
                self._of.pop(key_id, None)  # and put back at the end: see `prune`
                self._of[key_id] = (*(earlier for earlier in known if earlier >= self.floor), xid)

    def prune(self, read: FeedRead) -> None:
        """Drop changes of transactions below the feed's floor: a bounded number, least recently read first. If too many remain: all."""
        self.floor = max(self.floor, read.floor)
        outdated = takewhile(lambda key_id: max(self._of[key_id]) < self.floor, islice(self._of, _PRUNED_AT_ONCE))
        for key_id in list(outdated):
            del self._of[key_id]
        if len(self._of) > _MAX_CHANGES:
            self._of.clear()
            self.floor = read.position.xmax

    def all_in(self, position: Snapshot, key_id: str) -> bool:
        """Whether this position sees every known change of a key."""
        return all(map(position.sees, (*self._of.get(key_id, ()), *self._of.get(EVERY_KEY, ()))))


class Trust:
    """The changes this process knows of, and which cached records are valid in view of them."""

    def __init__(self) -> None:
        self.read: FeedRead | None = None
        """The last read of the feed whose changes have all been applied to memory."""
        self.redis_up_ms: int | None = None
        """Since when the Redis subscription has been up without a gap; ``None`` while it is down."""
        self.changes = KnownChanges()
        """Those of that read and of the next one, as far as it has been applied."""
        self._announced: dict[str, int] = {}
        """Keys whose changes have been announced, each with the time of the last."""

    def announce(self, key_id: str, now_ms: int) -> None:
        """This key has changed, as a Redis message says."""
        if len(self._announced) >= _MAX_CHANGES:
            self._announced, key_id = {}, EVERY_KEY
        self._announced[key_id] = max(now_ms, self._announced.get(key_id, 0))

    def expect(self, read: FeedRead) -> str | None:
        """Prepare for the changes of a read. Returns why others may have been missed since the last one, or ``None``."""
        before, reason = self.read, None
        if before is not None and read.server != before.server:
            reason = "PostgreSQL has restarted, failed over or been restored"
        elif before is not None and read.position.xmax < before.position.xmax:
            reason = "the database is in a state from before the last read"
        elif read.pages is None or (before is not None and read.floor > before.position.xmin):
            reason = "changes were pruned before they were read, or were too many to be read"
        if before is None or reason is not None:
            self.changes = KnownChanges(read.server, read.floor)
        return reason

    def accept(self, read: FeedRead) -> None:
        """Record a read whose changes have all been applied to memory, and are known."""
        self.changes.prune(read)
        self.read = read

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

    def is_valid(self, dated: DatedRecord, settings: "Cache", now: Now) -> bool:
        """Whether a record in Redis is as good as PostgreSQL's."""
        return self.is_feed_current(settings, now.ms) and self.fallback_valid_until_ms(dated, now) > now.ms

    def fallback_valid_until_ms(self, dated: DatedRecord, now: Now) -> int:
        """Until when a record in Redis may be used while PostgreSQL is unavailable; a time in the past when it may not.

        That of its seal, unless its key may have changed since. Before the first read of the feed no change is known; later, none of a
        time before the feed's floor, or of another server. A record dated in the future is never used.
        """
        key_id, age_ms = dated.record.key_id, now.wall_ms - dated.read_ms
        is_known = self.read is None or (dated.server == self.changes.server and dated.position.xmin >= self.changes.floor)
        announced_ms = max(self._announced.get(key_id, -1), self._announced.get(EVERY_KEY, -1))
        read_ms = 0 if self.read is None else self.read.at.ms
        if not is_known or announced_ms >= read_ms or not self.changes.all_in(dated.position, key_id) or age_ms < -CLOCKS_DIFFER_MS:
            return 0
        return now.ms + dated.ttl_ms - max(0, age_ms)
