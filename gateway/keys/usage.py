"""Counts the usage of each key in memory: requests per minute, last use, recent refusals. ``usage_store`` writes it to Redis.

One dict operation per request. Each key has its own due time: news (a first use, a new address, a refusal after
a quiet period) is written within seconds, anything else once a minute.
"""

import secrets
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Final, NamedTuple

ADMITTED: Final = "admitted"
MINUTE_MS: Final = 60_000
SOON_MS: Final = 4_000
"""Delay after which news is written, together with what follows it meanwhile."""
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
    """The counts of one key in use. Space for refusals is allocated with the first one."""

    __slots__ = (
        "admitted", "client_ip", "due_ms", "earlier", "last_ms", "minute", "recent", "refused",
        "refused_until_ms", "turn_ms", "written_hour", "written_ip",
    )  # fmt: skip

    def __init__(self) -> None:
        self.admitted = 0
        self.refused: dict[str, int] = _NOTHING
        self.minute = 0
        """The minute since the epoch to which both counts belong."""
        self.turn_ms = 0
        """Its end."""
        self.earlier: list[tuple[int, str, int]] = NONE_EARLIER
        """Minute, outcome and count of earlier minutes."""
        self.last_ms = 0
        self.client_ip = ""
        self.recent: deque[Refused] | None = None
        self.due_ms = 0
        """When this is due to be written; 0: there is nothing new."""
        self.refused_until_ms = 0
        """Until when a further refusal is not news."""
        self.written_hour = 0
        """The hour whose hash in Redis already has an expiry."""
        self.written_ip = ""
        """The latest address in Redis."""

    def turn(self, now_ms: int) -> None:
        """Begin a new minute."""
        counts = [(ADMITTED, self.admitted), *self.refused.items()]
        self.earlier = [*self.earlier, *((self.minute, outcome, count) for outcome, count in counts if count)]
        self.admitted = 0
        self.refused = _NOTHING
        self.minute = now_ms // MINUTE_MS
        self.turn_ms = (self.minute + 1) * MINUTE_MS


class UsageCounts:
    """Counts in memory, for existing keys: callers never pass an unknown key id, so unauthenticated clients cannot fill it.

    :param limit: maximum number of keys; uses of further keys are only counted in :attr:`dropped`
    """

    __slots__ = ("_due", "_entries", "_limit", "dropped")

    def __init__(self, *, limit: int = 100_000) -> None:
        self._entries: dict[str, Entry] = {}
        self._due: defaultdict[int, list[str]] = defaultdict(list)
        """Keys by the second in which they are due."""
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

        :param call: the route's pattern
        :param proven: whether the signature was verified. Only then is the refusal recorded in detail: otherwise anyone who knows a key id
        could displace the others, and forge any address.
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

    def take_all(self) -> dict[str, Entry]:
        """Every entry, due or not."""
        entries, self._entries = self._entries, {}
        self._due.clear()
        return entries

    def take_due(self, now_ms: int, *, at_once: int) -> Iterator[dict[str, Entry]]:
        """The entries due at this time. Each is due again in a minute, if it is used meanwhile.

        :param at_once: so many are looked at for each dict that is yielded; it can be empty
        """
        now_s = now_ms // 1_000
        # A due time hours ahead was set before the clock was set back.
        for second in sorted(second for second in self._due if second <= now_s or second > now_s + _FAR_S):
            key_ids = self._due[second]
            while key_ids:
                some = key_ids[-at_once:]
                del key_ids[-at_once:]
                yield self._take(some, second, now_ms)
            del self._due[second]

    def _take(self, key_ids: list[str], second: int, now_ms: int) -> dict[str, Entry]:
        """Those of these keys that are due in this second and have been used."""
        taken: dict[str, Entry] = {}
        for key_id in key_ids:
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
