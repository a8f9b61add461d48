"""The in-process key cache: bounded, with negative entries. No I/O, no clock.

When changes may have been missed, a new epoch begins. No entry is visited: each is judged by the number of its epoch when it is next used.

Keys and absent ids are kept in separate maps, so that made-up ids never evict keys that exist. Each map evicts its oldest entry first.
"""

from collections import OrderedDict
from enum import Enum
from typing import Final, Generic, TypeVar

from gateway.keys.record import KeyRecord

T = TypeVar("T")
NEVER_MS: Final = 1 << 62


class Absent(Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""PostgreSQL has no such key, or no usable one."""


class Entry(Generic[T]):
    """One id in memory. Times are monotonic milliseconds."""

    __slots__ = ("due_ms", "epoch", "record", "until_ms", "used", "value")

    def __init__(self, record: KeyRecord | None, value: T | Absent, epoch: int, until_ms: int = NEVER_MS, due_ms: int = NEVER_MS) -> None:
        self.record = record
        self.value = value
        """The value prepared from the record, or :data:`ABSENT`."""
        self.epoch = epoch
        self.until_ms = until_ms
        """Until when it is used, if the feed will not tell of its changes; else :data:`NEVER_MS`."""
        self.due_ms = due_ms
        """From when this process writes its record to Redis, if it is used."""
        self.used = True
        """Whether the key was used since this process last wrote its record to Redis."""


class KeyCache(Generic[T]):
    """The two maps. The hot path reads ``present`` directly.

    :param size: maximum number of keys, and of absent ids
    """

    def __init__(self, size: int) -> None:
        self.present: OrderedDict[str, Entry[T]] = OrderedDict()
        self.absent: OrderedDict[str, Entry[T]] = OrderedDict()
        self.epoch = 0
        """The number of times that changes may have been missed."""
        self.doubt_ends_ms = 0
        """Until when keys of the epoch before are used, while they are read again. What is older, and absent ids, are not used."""
        self.size = size

    def doubt(self, until_ms: int) -> None:
        """Begin an epoch: changes may have been missed. Keys in memory are used until ``until_ms`` at most."""
        self.epoch, self.doubt_ends_ms = self.epoch + 1, until_ms

    def is_in_doubt(self, entry: Entry[T], now_ms: int) -> bool:
        """Whether an entry of an earlier epoch may still be used."""
        return entry.epoch == self.epoch - 1 and entry.value is not ABSENT and now_ms < min(entry.until_ms, self.doubt_ends_ms)

    def put(self, key_id: str, entry: Entry[T]) -> None:
        """Store an entry, replacing the previous one; the oldest are evicted if they become too many."""
        self.drop(key_id)
        entries = self.absent if entry.value is ABSENT else self.present
        entries[key_id] = entry
        while len(entries) > self.size:
            entries.popitem(last=False)

    def drop(self, key_id: str) -> None:
        """Remove an id."""
        self.absent.pop(key_id, None)
        self.present.pop(key_id, None)
