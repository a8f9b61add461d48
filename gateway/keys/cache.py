"""The process's own memory of keys: hit, known-absent and miss apart, bounded, each answer with its age. No I/O, no clock.

Two maps, so that ids which do not exist never push out keys that do: an attacker who makes up well-formed ids fills the map of
absent ids only, and every entry of it is worth one look-up in PostgreSQL at most. In each, the entry that was loaded longest ago
goes first; a key in use is loaded again and again, so what goes is what nobody uses.
"""

from collections import OrderedDict
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from gateway.keys.record import KeyRecord

T = TypeVar("T")


class Absent(Enum):
    """The type of :data:`ABSENT`."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
"""PostgreSQL was asked, and there is no such key (or none that can be used)."""


class Entry(Generic[T]):
    """One key in memory. Times are monotonic milliseconds."""

    __slots__ = ("fresh_until_ms", "read_ms", "record", "refresh_from_ms", "shared_ms", "value")

    def __init__(self, record: KeyRecord, value: T, *, read_ms: int, refresh_from_ms: int, fresh_until_ms: int, shared_ms: int) -> None:
        self.record = record
        self.value = value
        """What was prepared from the record."""
        self.read_ms = read_ms
        """Every change committed before this is in ``value``."""
        self.refresh_from_ms = refresh_from_ms
        """From here on a use starts a refresh in the background. The hot path compares with this and nothing else."""
        self.fresh_until_ms = fresh_until_ms
        """From here on a use waits for the stores."""
        self.shared_ms = shared_ms
        """When this process last put the record into Redis."""


class KeyCache(Generic[T]):
    """The two maps. ``present`` is read by the hot path directly.

    :param size: most keys, and most absent ids, remembered at once
    """

    def __init__(self, size: int) -> None:
        self.present: OrderedDict[str, Entry[T]] = OrderedDict()
        self._absent: OrderedDict[str, int] = OrderedDict()
        self._size = size

    def __len__(self) -> int:
        return len(self.present)

    @property
    def absent_count(self) -> int:
        """How many ids are remembered as absent."""
        return len(self._absent)

    def put(self, key_id: str, entry: Entry[T]) -> None:
        """Remember a key, in place of what was known of it."""
        self._absent.pop(key_id, None)
        self.present[key_id] = entry
        self.present.move_to_end(key_id)
        _trim(self.present, self._size)

    def put_absent(self, key_id: str, until_ms: int) -> None:
        """Remember that there is no such key."""
        self.present.pop(key_id, None)
        self._absent[key_id] = until_ms
        self._absent.move_to_end(key_id)
        _trim(self._absent, self._size)

    def is_absent(self, key_id: str, now_ms: int) -> bool:
        """Whether the id is known, and freshly so, not to exist."""
        return now_ms < self._absent.get(key_id, 0)

    def drop(self, key_id: str) -> None:
        """Forget whatever is known of an id."""
        self.present.pop(key_id, None)
        self._absent.pop(key_id, None)

    def expire(self) -> None:
        """Make every key wait for the stores before its next use. It stays for the case that none answers."""
        for entry in self.present.values():
            entry.refresh_from_ms = entry.fresh_until_ms = 0
        self._absent.clear()

    def resize(self, size: int) -> None:
        """Change the bound; the longest unused go first."""
        self._size = size
        _trim(self.present, size)
        _trim(self._absent, size)


def _trim(entries: OrderedDict[str, Any], size: int) -> None:
    while len(entries) > size:
        entries.popitem(last=False)
