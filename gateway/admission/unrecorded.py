"""Signatures that passed while the replay guard could not record them. Pure.

A read may go on while Redis is away. Its signature must not become a trade, neither now nor once Redis is back: so this process remembers
it, refuses what may not follow it, and tells Redis as soon as it answers. Between its return and that moment another process does not know.
"""

from typing import Final

MOST: Final = 50_000
"""Signatures that are remembered at once; beyond, the oldest is forgotten."""
AT_ONCE: Final = 256
"""Signatures named to Redis in one round trip."""


class Unrecorded:
    """By their names in Redis: by what they were used, and until when they could pass every other check."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: dict[str, tuple[bool, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._used)

    def add(self, name: str, until_ms: int, *, shared: bool) -> None:
        """It has passed.

        :param until_ms: of the monotonic clock
        :param shared: as a read
        """
        while len(self._used) >= MOST:
            del self._used[next(iter(self._used))]
        self._used[name] = (shared, until_ms)

    def refuses(self, name: str, now_ms: int, *, shared: bool) -> bool:
        """Whether a signature has passed that only reads may use again, and only after a read."""
        used = self._used.get(name)
        return used is not None and now_ms < used[1] and not (shared and used[0])

    def due(self, now_ms: int) -> list[tuple[str, bool, int]]:
        """What Redis has to be told next: name, whether it was a read, and for how many milliseconds it counts. Forgets what is past."""
        found: list[tuple[str, bool, int]] = []
        past: list[str] = []
        for name, (shared, until_ms) in self._used.items():
            if until_ms <= now_ms:
                past.append(name)
                continue
            found.append((name, shared, until_ms - now_ms))
            if len(found) == AT_ONCE:
                break
        for name in past:
            del self._used[name]
        return found

    def recorded(self, name: str) -> None:
        """Redis knows of it."""
        self._used.pop(name, None)
