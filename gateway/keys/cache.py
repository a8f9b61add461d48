"""The in-process key cache: bounded, with negative entries. No I/O, no clock.

When changes may have been missed, no entry is visited: each refers to the validity that it has in common with others, and is judged by it
when it is next used.

Keys and absent ids are kept in separate maps, so that looking up made-up ids never evicts keys that exist. Each map evicts its oldest
entry first.
"""

from collections import OrderedDict
from enum import Enum
from itertools import takewhile
from typing import Any, Final, Generic, TypeVar

from gateway.keys.record import KeyRecord
from gateway.keys.snapshot import Snapshot

T = TypeVar("T")
NEVER_MS: Final = 1 << 62


class Absent(Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""PostgreSQL has no such key, or no usable one."""


class Validity:
    """What entries have in common. Times are monotonic milliseconds."""

    __slots__ = ("until_ms", "used_until_ms")

    def __init__(self) -> None:
        self.until_ms = 0
        """Until when they are valid, as last determined by ``trust``; 0 in doubt."""
        self.used_until_ms = NEVER_MS
        """In doubt: until when they are used at most, while they are read again."""


class Entry(Generic[T]):
    """One id in memory. Times are monotonic milliseconds."""

    __slots__ = ("due_ms", "number", "position", "record", "until_ms", "used", "validity", "value")

    def __init__(self, record: KeyRecord | None, value: T | Absent, validity: Validity, number: int, position: Snapshot) -> None:
        self.record = record
        self.value = value
        """The value prepared from the record, or :data:`ABSENT`."""
        self.validity = validity
        self.number = number
        """That of the last read of the feed that had begun when it was stored."""
        self.position = position
        """Every change that this snapshot sees is in ``value``."""
        self.until_ms = NEVER_MS
        """In doubt: until when it is used at most."""
        self.due_ms = NEVER_MS
        """From then on this process writes its record to Redis if it is used; in doubt, a use queries the stores in the background."""
        self.used = True
        """Whether the key was used since this process last wrote its record to Redis."""


class KeyCache(Generic[T]):
    """The two maps. The hot path reads ``present`` directly.

    :param size: maximum number of keys, and of absent ids
    """

    def __init__(self, size: int) -> None:
        self.present: OrderedDict[str, Entry[T]] = OrderedDict()
        self.absent: OrderedDict[str, Entry[T]] = OrderedDict()
        self.sure, self.in_doubt = Validity(), Validity()
        """Of what is stored now: the latter of what cannot be confirmed."""
        self._doubted: list[Validity] = []
        self.doubt_ends_ms = 0
        """Until when entries are used that have been doubted."""
        self.number = self._confirmed = 0
        """Of reads of the feed: the last that has begun, and the last that has been applied."""
        self._size = size

    def confirm(self, number: int, *, is_another_server: bool) -> None:
        """The changes of a read have been applied. What was stored since the read before may contain changes that another server lacks."""
        if is_another_server:
            for entry in takewhile(self.is_new, reversed(self.present.values())):
                entry.validity, entry.until_ms = self.in_doubt, 0
            self.absent.clear()
        self._confirmed = number

    def doubt(self, now_ms: int, until_ms: int) -> None:
        """Changes may have been missed: keys in memory are used until ``until_ms`` while they are read again; absent ids are forgotten."""
        self._doubted = [self.sure, self.in_doubt, *(one for one in self._doubted if one.used_until_ms > now_ms)]
        for one in self._doubted:
            one.until_ms, one.used_until_ms = 0, min(one.used_until_ms, until_ms)
        self.sure, self.in_doubt, self.doubt_ends_ms = Validity(), Validity(), until_ms
        self.absent.clear()

    def is_new(self, entry: Entry[T]) -> bool:
        """Whether an entry may contain changes that have not been read: it was stored after the last read began. The position of any other
        one says nothing of later changes: it may be of another server, which uses the numbers of its transactions again.
        """
        return entry.number >= self._confirmed

    def put(self, key_id: str, entry: Entry[T]) -> None:
        """Store an entry, replacing the previous one."""
        self.drop(key_id)
        entries = self.absent if entry.value is ABSENT else self.present
        entries[key_id] = entry
        _trim(entries, self._size)

    def drop(self, key_id: str) -> None:
        """Remove an id."""
        self.absent.pop(key_id, None)
        self.present.pop(key_id, None)

    def resize(self, size: int) -> None:
        """Change the maximum size; the oldest entries are evicted first."""
        self._size = size
        _trim(self.present, size)
        _trim(self.absent, size)


def _trim(entries: OrderedDict[str, Any], size: int) -> None:
    while len(entries) > size:
        entries.popitem(last=False)
