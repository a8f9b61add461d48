"""The in-process key cache: bounded, with negative entries; whether an entry is still valid is decided in ``trust``. No I/O, no clock.

Keys and absent ids are kept in separate maps, so that looking up made-up ids never evicts keys that exist. Each map evicts its oldest
entry first. Keys whose validity is in doubt are kept in a third map, each with the time until which it may still be used.
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
"""PostgreSQL has no such key, or none that can be used."""


class Entry(Generic[T]):
    """One key in memory. Times are monotonic milliseconds."""

    __slots__ = ("position", "record", "retry_ms", "until_ms", "used", "value")

    def __init__(self, record: KeyRecord, value: T, position: Snapshot, *, until_ms: int = 0, retry_ms: int = 0) -> None:
        self.record = record
        self.value = value
        """The value prepared from the record."""
        self.position = position
        """Every change that this snapshot sees is in ``value``."""
        self.used = True
        """Whether the key was used since this process last wrote its record to Redis."""
        self.until_ms = until_ms
        """In doubt, or while memory is not valid: from then on a use waits for the stores."""
        self.retry_ms = retry_ms
        """In doubt: from then on a use queries the stores in the background."""


class KeyCache(Generic[T]):
    """The three maps. The hot path reads ``present`` directly.

    :param size: maximum number of keys, and of absent ids
    """

    def __init__(self, size: int) -> None:
        self.present: OrderedDict[str, Entry[T]] = OrderedDict()
        self.doubted: OrderedDict[str, Entry[T]] = OrderedDict()
        self._absent: OrderedDict[str, int] = OrderedDict()
        self._size = size

    def __len__(self) -> int:
        return len(self.present) + len(self.doubted)

    @property
    def absent_count(self) -> int:
        """How many ids are remembered as absent."""
        return len(self._absent)

    def known(self, key_id: str) -> Entry[T] | None:
        """The entry of a key, in doubt or not."""
        return self.present.get(key_id) or self.doubted.get(key_id)

    def put(self, key_id: str, entry: Entry[T]) -> None:
        """Store a key, replacing its previous entry."""
        self.drop(key_id)
        self.present[key_id] = entry
        _trim(self.present, self._size - len(self.doubted))

    def put_doubted(self, key_id: str, entry: Entry[T]) -> None:
        """Store a key whose validity cannot be confirmed at the moment."""
        self.drop(key_id)
        self.doubted[key_id] = entry
        _trim(self.doubted, self._size)
        _trim(self.present, self._size - len(self.doubted))

    def put_absent(self, key_id: str, until_ms: int) -> None:
        """Store that there is no such key.

        :param until_ms: until when this may be used even while memory is not valid
        """
        self.drop(key_id)
        self._absent[key_id] = until_ms
        _trim(self._absent, self._size)

    def absent_until_ms(self, key_id: str) -> int:
        """See :meth:`put_absent`; 0 when the id is not known to be absent."""
        return self._absent.get(key_id, 0)

    def drop(self, key_id: str) -> Entry[T] | None:
        """Remove an id from all maps; returns its entry if it was a key."""
        self._absent.pop(key_id, None)
        return self.present.pop(key_id, None) or self.doubted.pop(key_id, None)

    def doubt(self, until_ms: int) -> None:
        """Put every key in doubt, usable until then, and clear the absent ids."""
        for entry in self.doubted.values():
            entry.until_ms = min(entry.until_ms, until_ms)
        for entry in self.present.values():
            entry.until_ms = until_ms
            entry.retry_ms = 0
        self.doubted.update(self.present)
        self.present.clear()
        self._absent.clear()

    def go_back(self, position: Snapshot) -> None:
        """Another server has what this position of the last one saw: remove keys that were read later or are in doubt, and absent ids.

        The position of an entry that remains says nothing about the changes of the new server, which may use transaction ids again.
        """
        for key_id, entry in list(self.present.items()):
            if position.includes(entry.position):
                entry.position = BEGINNING
            else:
                del self.present[key_id]
        self.doubted.clear()
        self._absent.clear()

    def resize(self, size: int) -> None:
        """Change the maximum size; the oldest entries are evicted first."""
        self._size = size
        _trim(self.doubted, size)
        _trim(self.present, size - len(self.doubted))
        _trim(self._absent, size)


def _trim(entries: OrderedDict[str, Any], size: int) -> None:
    while len(entries) > max(0, size):
        entries.popitem(last=False)
