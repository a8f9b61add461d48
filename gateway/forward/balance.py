"""Load balancing: which server of an upstream receives a request, and which servers are in use. Pure; the time is an argument.

Two judges, either of which can take a server out:

- active checks (``health.py``) say whether it is up;
- passive ejection: several failures in a row take it out for a while, then one request is let through (half open): its success brings
  the server back, its failure doubles the while. A lone server is never ejected: there is nowhere else to go.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

FAILURES_TO_EJECT = 3
FIRST_EJECTION_MS = 1_000
LONGEST_EJECTION_MS = 30_000


class Condition:
    """What is known of one server."""

    __slots__ = ("_ejection_ms", "_out_until_ms", "failures", "up")

    def __init__(self) -> None:
        self.up = True
        """What the active checks say; true while there are none."""
        self.failures = 0
        """In a row."""
        self._ejection_ms = 0
        self._out_until_ms = 0

    def ejected(self, now_ms: int) -> bool:
        return now_ms < self._out_until_ms

    def usable(self, now_ms: int) -> bool:
        return self.up and now_ms >= self._out_until_ms

    def chosen(self, now_ms: int) -> None:
        """A request goes there. On a server whose ejection has run out it is the one probe: others stay away until it has an answer."""
        if self._ejection_ms:
            self._out_until_ms = now_ms + self._ejection_ms

    def succeeded(self) -> None:
        """It gave a whole response."""
        if self.failures:
            self.failures = self._ejection_ms = self._out_until_ms = 0

    def failed(self, now_ms: int) -> None:
        """It refused a connection, broke one, did not answer in time, or answered what cannot be framed."""
        self.failures += 1
        if self._ejection_ms:
            self._ejection_ms = min(self._ejection_ms * 2, LONGEST_EJECTION_MS)
        elif self.failures >= FAILURES_TO_EJECT:
            self._ejection_ms = FIRST_EJECTION_MS
        if self._ejection_ms:
            self._out_until_ms = now_ms + self._ejection_ms

    def checked(self, *, up: bool) -> None:
        """An active check's result. Coming back up ends an ejection, too."""
        if up and not self.up:
            self.succeeded()
        self.up = up


class Candidate(Protocol):
    """What choosing looks at."""

    active: int
    """Requests now on it, waiting ones included."""
    condition: Condition


CandidateT = TypeVar("CandidateT", bound=Candidate)


def choose(servers: Sequence[CandidateT], tried: Collection[CandidateT], now_ms: int, turn: int) -> CandidateT | None:
    """Of several servers, the usable one with the fewest requests on it that this request has not tried; ``None`` when there is none.

    :param turn: where to begin looking, so that equals take turns
    """
    best: CandidateT | None = None
    for index in range(turn, turn + len(servers)):
        server = servers[index % len(servers)]
        if (best is None or server.active < best.active) and server not in tried and server.condition.usable(now_ms):
            best = server
    if best is not None:
        best.condition.chosen(now_ms)
    return best
