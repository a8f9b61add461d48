"""Signatures that passed while the replay guard could not record them. Pure.

A read may go on while Redis is away. Its signature must not become a trade, neither now nor once Redis is back: so this process remembers
it, refuses what may not follow it, and tells Redis as soon as it answers. Between its return and that moment another process does not know.

Memory for them is bounded, and shared by keys: when it is full, the key that holds the most forgets its oldest signature for the new one.
So a key that floods it forgets its own, and nothing of one that holds less.
"""

from collections import OrderedDict
from typing import Final

MOST: Final = 50_000
"""Signatures that are remembered at once."""
AT_ONCE: Final = 256
"""Signatures named to Redis in one round trip."""


class _Passed:
    """What is remembered of one."""

    __slots__ = ("key_id", "shared", "until_ms")

    def __init__(self, key_id: str, until_ms: int, *, shared: bool) -> None:
        self.key_id = key_id
        self.until_ms = until_ms
        self.shared = shared


class Unrecorded:
    """By their names in Redis: by what they were used, and until when they could pass every other check."""

    __slots__ = ("_by_size", "_largest", "_of", "_used")

    def __init__(self) -> None:
        self._used: OrderedDict[str, _Passed] = OrderedDict()
        self._of: dict[str, OrderedDict[str, None]] = {}
        """The names of each key, oldest first."""
        self._by_size: dict[int, dict[str, None]] = {}
        """The keys that hold so many."""
        self._largest = 0
        """How many the key holds that holds the most."""

    def __bool__(self) -> bool:
        return bool(self._used)

    def add(self, name: str, key_id: str, until_ms: int, *, shared: bool) -> None:
        """It has passed.

        :param key_id: of the key that signed, whose share it takes
        :param until_ms: of the monotonic clock
        :param shared: as a read
        """
        if name in self._used:
            self._forget(name)
        while len(self._used) >= MOST:
            largest = next(iter(self._by_size[self._largest]))
            self._forget(next(iter(self._of[largest])))
        self._used[name] = _Passed(key_id, until_ms, shared=shared)
        names = self._of.setdefault(key_id, OrderedDict())
        names[name] = None
        self._resized(key_id, len(names) - 1, len(names))

    def refuses(self, name: str, now_ms: int, *, shared: bool) -> bool:
        """Whether a signature has passed that only reads may use again, and only after a read."""
        used = self._used.get(name)
        return used is not None and now_ms < used.until_ms and not (shared and used.shared)

    def due(self, now_ms: int) -> list[tuple[str, bool, int]]:
        """What Redis has to be told next: name, whether it was a read, and for how many milliseconds it counts. Forgets what is past."""
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
        """Redis knows of it."""
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
        """This key holds one more, or one less."""
        if before:
            same = self._by_size[before]
            del same[key_id]
            if not same:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[key_id] = None
        if after > self._largest or (before == self._largest and before not in self._by_size):
            self._largest = after
