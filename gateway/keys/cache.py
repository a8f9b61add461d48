"""The in-process key cache: bounded, with negative entries; whether an entry is still valid is decided in ``trust``. No I/O, no clock.

Keys and absent ids apart, so that ids which do not exist never push out keys that do: an attacker who makes up well-formed ids fills the
map of absent ids only. In each, what was loaded longest ago goes first. Keys that are in doubt are kept apart from the others, each with
the moment until which it may be used all the same.
"""

from collections import OrderedDict
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from gateway.keys.record import KeyRecord
from gateway.keys.snapshot import Snapshot

T = TypeVar("T")


class Absent(Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""PostgreSQL was asked, and there is no such key (or none that can be used)."""


class Entry(Generic[T]):
    """One key in memory. Times are monotonic milliseconds."""

    __slots__ = ("position", "record", "retry_ms", "until_ms", "used", "value")

    def __init__(self, record: KeyRecord, value: T, position: Snapshot, *, until_ms: int = 0, retry_ms: int = 0) -> None:
        self.record = record
        self.value = value
        """What was prepared from the record."""
        self.position = position
        """Every change that this snapshot sees is in ``value``."""
        self.used = True
        """Since this process last put the record into Redis."""
        self.until_ms = until_ms
        """In doubt, or while memory is not believed: from here on a use waits for the stores."""
        self.retry_ms = retry_ms
        """In doubt: from here on a use asks the stores in the background."""


class KeyCache(Generic[T]):
    """The three maps. ``present`` is read by the hot path directly.

    :param size: most keys, and most absent ids, remembered at once
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
        """What is remembered of a key, in doubt or not."""
        return self.present.get(key_id) or self.doubted.get(key_id)

    def put(self, key_id: str, entry: Entry[T]) -> None:
        """Remember a key, in place of what was known of it."""
        self.drop(key_id)
        self.present[key_id] = entry
        _trim(self.present, self._size - len(self.doubted))

    def put_doubted(self, key_id: str, entry: Entry[T]) -> None:
        """Remember a key that nobody can confirm at the moment."""
        self.drop(key_id)
        self.doubted[key_id] = entry
        _trim(self.doubted, self._size)
        _trim(self.present, self._size - len(self.doubted))

    def put_absent(self, key_id: str, until_ms: int) -> None:
        """Remember that there is no such key.

        :param until_ms: until when that may be used also when memory is not believed
        """
        self.drop(key_id)
        self._absent[key_id] = until_ms
        _trim(self._absent, self._size)

    def absent_until_ms(self, key_id: str) -> int:
        """See :meth:`put_absent`; 0 when the id is not known to be absent."""
        return self._absent.get(key_id, 0)

    def drop(self, key_id: str) -> Entry[T] | None:
        """Forget whatever is known of an id; returns what was remembered as a key."""
        self._absent.pop(key_id, None)
        return self.present.pop(key_id, None) or self.doubted.pop(key_id, None)

    def doubt(self, until_ms: int) -> None:
        """Put every key in doubt, usable until then, and forget which ids are absent."""
        for entry in self.present.values():
            entry.until_ms = until_ms
            entry.retry_ms = 0
        self.doubted.update(self.present)
        self.present.clear()
        self._absent.clear()

    def go_back(self, position: Snapshot) -> None:
        """Forget what may not be so at that position: keys that were read later or are in doubt, and which ids are absent."""
        for key_id in [key_id for key_id, entry in self.present.items() if not position.includes(entry.position)]:
            del self.present[key_id]
        self.doubted.clear()
        self._absent.clear()

    def resize(self, size: int) -> None:
        """Change the bound; what was loaded longest ago goes first."""
        self._size = size
        _trim(self.doubted, size)
        _trim(self.present, size - len(self.doubted))
        _trim(self._absent, size)


def _trim(entries: OrderedDict[str, Any], size: int) -> None:
    while len(entries) > max(0, size):
        entries.popitem(last=False)
