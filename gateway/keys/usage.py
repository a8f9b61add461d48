"""Counts the usage of each key in memory: requests per minute, last use, recent refusals. ``usage_store`` writes it to Redis.

One dict operation a request. Each key is due to be written at its own moment: what is news (a first use, another address, a refusal after
a quiet time) within seconds, more of the same once a minute.
"""

import secrets
from collections import defaultdict, deque
from typing import Final, NamedTuple

ADMITTED: Final = "admitted"
MINUTE_MS: Final = 60_000
SOON_MS: Final = 4_000
"""What is news is written after this time, together with what follows it until then."""
PERIOD_MS: Final = 60_000
REFUSALS_KEPT: Final = 50
NONE_EARLIER: Final[list[tuple[int, str, int]]] = []
_SPREAD_MS: Final = 10_000
_FAR_S: Final = 2 * PERIOD_MS // 1_000
_NOTHING: Final[dict[str, int]] = {}


class Refused(NamedTuple):
    """One refused request of a key: when (Unix ms), the contract's code, the address the gate saw, and the route as written."""

    at_ms: int
    code: str
    client_ip: str
    call: str = ""


class Entry:
    """One key that is in use. What most keys do not need, room for refusals, is made with the first of them."""

    __slots__ = (
        "admitted", "client_ip", "due_ms", "earlier", "last_ms", "minute", "recent", "refused",
        "refused_until_ms", "turn_ms", "written_hour", "written_ip",
    )  # fmt: skip

    def __init__(self) -> None:
        self.admitted = 0
        self.refused: dict[str, int] = _NOTHING
        self.minute = 0
        """Of which both are the counts, since the epoch."""
        self.turn_ms = 0
        """Its end."""
        self.earlier: list[tuple[int, str, int]] = NONE_EARLIER
        """Minute, outcome and count of earlier minutes."""
        self.last_ms = 0
        self.client_ip = ""
        self.recent: deque[Refused] | None = None
        self.due_ms = 0
        """When this is to be written; 0 while there is nothing new."""
        self.refused_until_ms = 0
        """Until then a refusal is more of the same."""
        self.written_hour = 0
        """Whose hash in Redis has its expiry."""
        self.written_ip = ""
        """What Redis has as the latest address."""

    def turn(self, now_ms: int) -> None:
        """Begin another minute."""
        counts = [(ADMITTED, self.admitted), *self.refused.items()]
        self.earlier = [*self.earlier, *((self.minute, outcome, count) for outcome, count in counts if count)]
        self.admitted = 0
        self.refused = _NOTHING
        self.minute = now_ms // MINUTE_MS
        self.turn_ms = (self.minute + 1) * MINUTE_MS


class UsageCounts:
    """Counts in memory, for keys that exist: callers never pass a key id that was not found, so strangers cannot fill this.

    :param limit: keys in use at once; a use of further keys is only counted in :attr:`dropped`
    """

    __slots__ = ("_due", "_entries", "_limit", "dropped")

    def __init__(self, *, limit: int = 100_000) -> None:
        self._entries: dict[str, Entry] = {}
        self._due: defaultdict[int, list[str]] = defaultdict(list)
        """Keys by the second in which they may be due."""
        self._limit = limit
        self.dropped = 0

    def admitted(self, key_id: str, client_ip: str, now_ms: int) -> None:
        """Count an admitted request; on the hot path."""
        entry = self._entries.get(key_id) or self._enter(key_id)
        if entry is not None:
            if now_ms >= entry.turn_ms:
                entry.turn(now_ms)
            entry.admitted += 1
            entry.last_ms = now_ms
            if client_ip != entry.client_ip:
                entry.client_ip = client_ip
                self._write_by(key_id, entry, now_ms + SOON_MS)

    def refused(  # noqa: PLR0917  # on the hot path
        self, key_id: str, code: str, client_ip: str, now_ms: int, call: str = "", proven: bool = True
    ) -> None:  # fmt: skip
        """Count a request that was refused for one of the contract's codes.

        :param call: its route's pattern
        :param proven: whether the key had signed it. Only such a refusal is kept itself: anybody who knows a key's id could push the others
            out, and put any address in their place.
        """
        entry = self._entries.get(key_id) or self._enter(key_id)
        if entry is not None:
            if now_ms >= entry.turn_ms:
                entry.turn(now_ms)
            if entry.refused is _NOTHING:
                entry.refused = defaultdict(int)
            entry.refused[code] += 1
            if proven:
                if entry.recent is None:
                    entry.recent = deque(maxlen=REFUSALS_KEPT)
                entry.recent.append(Refused(now_ms, code, client_ip, call))
            if now_ms >= entry.refused_until_ms:
                entry.refused_until_ms = now_ms + PERIOD_MS
                self._write_by(key_id, entry, now_ms + SOON_MS)

    def _enter(self, key_id: str) -> Entry | None:
        if len(self._entries) >= self._limit:
            self.dropped += 1
            return None
        entry = self._entries[key_id] = Entry()
        return entry

    def _write_by(self, key_id: str, entry: Entry, due_ms: int) -> None:
        if not entry.due_ms or due_ms < entry.due_ms:
            entry.due_ms = due_ms
            self._due[due_ms // 1_000].append(key_id)

    def take(self, now_ms: int | None = None) -> dict[str, Entry]:
        """What is to be written at this time; everything when none is given. Each is due again in a minute, if it is used until then."""
        if now_ms is None:
            entries, self._entries = self._entries, {}
            self._due.clear()
            return entries
        taken: dict[str, Entry] = {}
        now_s = now_ms // 1_000
        # What is due in hours was written down before the clock was set back.
        for second in sorted(second for second in self._due if second <= now_s or second > now_s + _FAR_S):
            for key_id in self._due.pop(second):
                entry = self._entries.get(key_id)
                if entry is None or not entry.due_ms or entry.due_ms // 1_000 != second:
                    continue
                entry.due_ms = 0
                if entry.admitted or entry.refused or entry.earlier:
                    taken[key_id] = entry
                    self._write_by(key_id, entry, now_ms + PERIOD_MS - secrets.randbelow(_SPREAD_MS))
                else:  # not used for a while
                    del self._entries[key_id]
        return taken
