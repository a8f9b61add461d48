"""What may be believed of a key record, by where it comes from and what has been heard since. Pure: no I/O, no clock.

Times are monotonic milliseconds of this process, unless the name says ``wall``. A record's age is all that the clocks of two machines
must agree on, within :data:`CLOCKS_DIFFER_MS`.
"""

from collections import OrderedDict
from typing import NamedTuple

from gateway.config.settings import Cache
from gateway.keys.codec import DatedRecord
from gateway.keys.record import KeyRecord

MAX_RECORD_TTL_MS = 300_000
"""No record is valid for longer (``cache.redis_ttl_ms``)."""
TOMBSTONE_TTL_MS = MAX_RECORD_TTL_MS + 60_000
"""Longer than any record that was read before the change, whatever held up its writer; the minute is for clocks that differ."""
CLOCKS_DIFFER_MS = 2_000
"""How far the clocks of two machines may be apart. Signed requests are refused at a few seconds, so they are kept."""
YOUNG = 0.6
"""Share of ``local_ttl`` up to which a record of Redis is used as it is."""
_MOST_CHANGED = 100_000
_NO_END = 1 << 62


class Shared(NamedTuple):
    """What Redis holds for a key."""

    raw: bytes | None = None
    """The bytes themselves; ``None`` when there is nothing."""
    dated: DatedRecord | None = None
    """The record, when the bytes are one that opens."""
    changed_ms: int | None = None
    """When a tombstone stands there: the Unix ms at which the key changed."""

    @property
    def kind(self) -> str:
        """In one word, for the metrics."""
        if self.changed_ms is not None:
            return "changed"
        if self.dated is not None:
            return "found"
        return "none" if self.raw is None else "unreadable"


class Channels:
    """Since when each invalidation channel has been up without a gap; ``None`` while it is down."""

    __slots__ = ("postgres_up_ms", "redis_up_ms")

    def __init__(self) -> None:
        self.postgres_up_ms: int | None = None
        self.redis_up_ms: int | None = None


class Now(NamedTuple):
    """One moment by both clocks."""

    ms: int
    wall_ms: int

    def earlier(self, wall_ms: int) -> int:
        """A moment of the wall clock, in monotonic milliseconds."""
        return self.ms - (self.wall_ms - wall_ms)


class Aged(NamedTuple):
    """A record, and when it was read from PostgreSQL."""

    record: KeyRecord
    read_ms: int
    until_ms: int
    """The end of its seal's validity."""


class Trust:
    """What this process has heard, and what follows from it."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._missed_until_ms = 0
        self._changed: OrderedDict[str, int] = OrderedDict()
        self._all_changed_until_ms = 0

    def heard(self, key_id: str, now_ms: int) -> None:
        """A key changed. For as long as an old record of it could be valid, Redis is not believed for this key."""
        self._changed[key_id] = now_ms + TOMBSTONE_TTL_MS
        self._changed.move_to_end(key_id)
        while next(iter(self._changed.values())) <= now_ms:
            self._changed.popitem(last=False)
        if len(self._changed) > _MOST_CHANGED:
            self._changed.clear()
            self._all_changed_until_ms = now_ms + TOMBSTONE_TTL_MS

    def missed(self, now_ms: int) -> None:
        """Any change before now may have been missed."""
        self._missed_until_ms = now_ms

    def may_share(self, key_id: str, now_ms: int) -> bool:
        """Whether Redis may be read and written for this key."""
        return now_ms >= max(self._all_changed_until_ms, self._changed.get(key_id, 0))

    def aged(self, shared: Shared | None, now: Now) -> Aged | None:
        """The record of Redis, if its seal is valid by the clock: what may be used when PostgreSQL cannot answer."""
        if shared is None or shared.dated is None:
            return None
        age_ms = now.wall_ms - shared.dated.read_ms
        if not -CLOCKS_DIFFER_MS <= age_ms < shared.dated.ttl_ms:
            return None
        read_ms = now.ms - max(0, age_ms)
        return Aged(shared.dated.record, read_ms, read_ms + shared.dated.ttl_ms)

    def believed(self, aged: Aged, settings: Cache, now_ms: int) -> bool:
        """Whether a record of Redis is as good as PostgreSQL's: young, and any later change would have been heard of here."""
        heard_from_ms = self._channels.postgres_up_ms
        return (
            heard_from_ms is not None
            and aged.read_ms > max(heard_from_ms, self._missed_until_ms) + CLOCKS_DIFFER_MS
            and now_ms - aged.read_ms <= YOUNG * settings.local_ttl_ms
        )

    def goes_on_until(self, read_ms: int, changed_wall_ms: int | None, settings: Cache, now: Now) -> int:
        """Until when a key in memory, read then, may be used past its freshness while PostgreSQL cannot answer; 0 is not at all.

        :param changed_wall_ms: when the key changed, by a tombstone in Redis
        """
        if changed_wall_ms is not None and read_ms <= now.earlier(changed_wall_ms) + CLOCKS_DIFFER_MS:
            return 0
        heard_from_ms = self._channels.redis_up_ms
        if heard_from_ms is not None and read_ms >= heard_from_ms:
            return _NO_END
        return read_ms + settings.stale_limit_ms
