"""The in-process key cache: bounded, with negative entries and generations. No I/O, no clock.

A generation is what was read from one PostgreSQL server without a gap in its change feed. When it ends, no entry is visited: each refers to
its generation, and is judged by it when it is next used.

Keys and absent ids are kept in separate maps, so that looking up made-up ids never evicts keys that exist. Each map evicts its oldest
entry first.
"""

from collections import OrderedDict
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from gateway.keys.record import KeyRecord
from gateway.keys.snapshot import BEGINNING, Snapshot

T = TypeVar("T")


class Absent(Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""PostgreSQL has no such key, or no usable one."""


class Generation:
    """See the module. Times are monotonic milliseconds."""

    __slots__ = ("resumed_at", "successor", "until_ms", "valid_until_ms")

    def __init__(self) -> None:
        self.valid_until_ms = 0
        """Until when its entries are valid, as last determined by ``trust``; 0 once it has ended."""
        self.until_ms = 0
        """Once it has ended: until when its keys are used while they are read again."""
        self.successor = self
        """Once it has ended: the generation after it."""
        self.resumed_at: Snapshot | None = None
        """Entries read at or before this position belong to its successor: nothing has been missed."""

    def resume(self, position: Snapshot) -> None:
        """Let its successor have the entries that were read at or before this position, and no one the others."""
        self.resumed_at, self.until_ms = position, 0

    def used_until_ms(self) -> int:
        """Once it has ended: until when its keys are used, the generations that have ended since considered."""
        until_ms, generation = self.until_ms, self.successor
        while generation.successor is not generation:
            until_ms, generation = min(until_ms, generation.until_ms), generation.successor
        return until_ms


class Entry(Generic[T]):
    """One id in memory. Times are monotonic milliseconds."""

    __slots__ = ("generation", "position", "record", "renewal_ms", "retry_ms", "until_ms", "used", "value")

    def __init__(
        self,
        record: KeyRecord | None,
        value: T | Absent,
        position: Snapshot,
        generation: Generation,
        *,
        until_ms: int = 0,
        retry_ms: int = 0,
    ) -> None:
        self.record = record
        self.value = value
        """The value prepared from the record, or :data:`ABSENT`."""
        self.position = position
        """Every change that this snapshot sees is in ``value``."""
        self.generation = generation
        self.used = True
        """Whether the key was used since this process last wrote its record to Redis."""
        self.renewal_ms = 0
        """When its record is to be written to Redis again, if it was used; 0 if this process does not renew it."""
        self.until_ms = until_ms
        """While its generation is not valid, and has not ended: from then on a use waits for the stores."""
        self.retry_ms = retry_ms
        """In doubt: from then on a use queries the stores in the background."""


class KeyCache(Generic[T]):
    """The two maps. The hot path reads ``present`` directly.

    :param size: maximum number of keys, and of absent ids
    """

    def __init__(self, size: int) -> None:
        self.present: OrderedDict[str, Entry[T]] = OrderedDict()
        self.absent: OrderedDict[str, Entry[T]] = OrderedDict()
        self.generation = Generation()
        self.in_doubt = Generation()
        """Of entries that cannot be confirmed at the moment: never valid, and ends with the generation beside it."""
        self._size = size

    def end_generation(self, until_ms: int = 0) -> Generation:
        """Begin another generation, and clear the absent ids. Returns the one that has ended.

        :param until_ms: until when the keys in memory are used while they are read again
        """
        ended, self.generation, self.in_doubt = self.generation, Generation(), Generation()
        ended.valid_until_ms, ended.until_ms, ended.successor = 0, until_ms, self.generation
        self.absent.clear()
        return ended

    def generation_of(self, entry: Entry[T]) -> Generation:
        """The generation that an entry belongs to by now."""
        generation = entry.generation
        while generation.resumed_at is not None and generation.resumed_at.includes(entry.position):
            generation = entry.generation = generation.successor
            entry.position = BEGINNING  # transaction ids of two servers cannot be compared: that of any change may repeat
        return generation

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
