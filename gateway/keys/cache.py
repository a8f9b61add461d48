"""The in-process key cache: bounded, with negative entries; whether an entry is still valid is decided in ``trust``. No I/O, no clock.

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


class Entry(Generic[T]):
    """One key in memory. Times are monotonic milliseconds."""

    __slots__ = ("in_doubt", "position", "record", "retry_ms", "until_ms", "used", "value")

    def __init__(
        self, record: KeyRecord, value: T, position: Snapshot, *, until_ms: int = 0, retry_ms: int = 0, in_doubt: bool = False
    ) -> None:
        self.record = record
        self.value = value
        """The value prepared from the record."""
        self.position = position
        """Every change that this snapshot sees is in ``value``."""
        self.used = True
        """Whether the key was used since this process last wrote its record to Redis."""
        self.in_doubt = in_doubt
        """Whether its validity cannot be confirmed at the moment."""
        self.until_ms = until_ms
        """In doubt, or while memory is not valid: from then on a use waits for the stores."""
        self.retry_ms = retry_ms
        """In doubt: from then on a use queries the stores in the background."""


class KeyCache(Generic[T]):
    """The two maps. The hot path reads ``present`` directly.

    :param size: maximum number of keys, and of absent ids
    """

    def __init__(self, size: int) -> None:
        self.present: OrderedDict[str, Entry[T]] = OrderedDict()
        self.absent: OrderedDict[str, tuple[int, bool]] = OrderedDict()
        """Ids of which there is no key, each with ``until_ms`` and ``in_doubt`` as of an entry."""
        self._size = size

    def put(self, key_id: str, entry: Entry[T]) -> None:
        """Store a key, replacing its previous entry."""
        self.drop(key_id)
        self.present[key_id] = entry
        _trim(self.present, self._size)

    def put_absent(self, key_id: str, until_ms: int, *, in_doubt: bool = False) -> None:
        """Store that there is no such key."""
        self.drop(key_id)
        self.absent[key_id] = until_ms, in_doubt
        _trim(self.absent, self._size)

    def drop(self, key_id: str) -> Entry[T] | None:
        """Remove an id; returns its entry if it was a key."""
        self.absent.pop(key_id, None)
        return self.present.pop(key_id, None)

    def doubt(self, until_ms: int) -> None:
        """Put every key in doubt, usable until then, and clear the absent ids."""
        for entry in self.present.values():
            entry.until_ms = min(entry.until_ms, until_ms) if entry.in_doubt else until_ms
            entry.retry_ms = entry.retry_ms if entry.in_doubt else 0
            entry.in_doubt = True
        self.absent.clear()

    def go_back(self, position: Snapshot) -> None:
        """After a change of servers: remove keys that were read after ``position`` or are in doubt, and all absent ids.

        The positions of the remaining entries cannot be compared with the new server's changes, whose transaction ids may repeat.
        """
        for key_id, entry in list(self.present.items()):
            if position.includes(entry.position) and not entry.in_doubt:
                entry.position = BEGINNING
            else:
                del self.present[key_id]
        self.absent.clear()

    def resize(self, size: int) -> None:
        """Change the maximum size; the oldest entries are evicted first."""
        self._size = size
        _trim(self.present, size)
        _trim(self.absent, size)


def _trim(entries: OrderedDict[str, Any], size: int) -> None:
    while len(entries) > size:
        entries.popitem(last=False)
