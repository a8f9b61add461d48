"""Remembers signatures that passed while the replay guard could not record them. Pure.

Reads may continue while Redis is unavailable. Their signatures must not be reused by a trade, now or later: so this process remembers
them, refuses what may not follow, and records them as soon as Redis answers. Until then, other processes do not know of them.

Memory for them is bounded, and shared by keys: when it is full, the key with the most signatures loses its oldest.
So a key that floods the memory loses its own entries, never those of a key with fewer.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

MOST: Final = 50_000
"""Maximum number of remembered signatures."""
AT_ONCE: Final = 256
"""Signatures recorded in one round trip."""


class _Passed(NamedTuple):
    """A remembered signature."""

    key_id: str
    until_ms: int
    shared: bool


class Unrecorded:
    """Remembered signatures by their names in Redis."""

    __slots__ = ("_by_size", "_largest", "_of", "_used")

    def __init__(self) -> None:
        self._used: OrderedDict[str, _Passed] = OrderedDict()
        self._of: dict[str, OrderedDict[str, None]] = {}
        """The names of each key, oldest first."""
        self._by_size: dict[int, dict[str, None]] = {}
        """The keys with each number of signatures."""
        self._largest = 0
        """The largest number of signatures that any key has."""

    def __bool__(self) -> bool:
        return bool(self._used)

    def add(self, name: str, key_id: str, until_ms: int, *, shared: bool) -> None:
        """Remember a signature that has passed.

        :param key_id: the key that signed, to which the entry is charged
        :param until_ms: when it could no longer pass the other checks, in monotonic milliseconds
        :param shared: whether it was used by a read
        """
        if name in self._used:
            self._forget(name)
        while len(self._used) >= MOST:
            largest = next(iter(self._by_size[self._largest]))
            self._forget(next(iter(self._of[largest])))
        self._used[name] = _Passed(key_id, until_ms, shared)
        names = self._of.setdefault(key_id, OrderedDict())
        names[name] = None
        self._resized(key_id, len(names) - 1, len(names))

    def refuses(self, name: str, now_ms: int, *, shared: bool) -> bool:
        """Whether a remembered signature rules out this use: only a read may follow, and only a read."""
        used = self._used.get(name)
        return used is not None and now_ms < used.until_ms and not (shared and used.shared)

    def due(self, now_ms: int) -> list[tuple[str, bool, int]]:
        """The next signatures to record: name, whether it was a read, and milliseconds left. Drops expired ones."""
        found: list[tuple[str, bool, int]] = []
        past: list[str] = []
        for name, used in self._used.items():
            if used.until_ms <= now_ms:
                past.append(name)
                continue
            found.append((name, used.shared, used.until_ms - now_ms))
            if len(found) == AT_ONCE:
                break
        for name in past:
            self._forget(name)
        return found

    def recorded(self, name: str) -> None:
        """Forget a signature that Redis has recorded."""
        if name in self._used:
            self._forget(name)

    def _forget(self, name: str) -> None:
        key_id = self._used.pop(name).key_id
        names = self._of[key_id]
        del names[name]
        if not names:
            del self._of[key_id]
        self._resized(key_id, len(names) + 1, len(names))

    def _resized(self, key_id: str, before: int, after: int) -> None:
        """Update the index after a key's number of signatures has changed."""
        if before:
            same = self._by_size[before]
            del same[key_id]
            if not same:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[key_id] = None
        if after > self._largest or (before == self._largest and before not in self._by_size):
            self._largest = after
