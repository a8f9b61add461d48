"""Load balancing: which server of an upstream receives a request, and which servers are in use. Pure; the time is an argument.

Two mechanisms can take a server out of use:

- active checks (``health.py``) determine whether it is up;
- passive ejection: several consecutive failures take it out for a while, then one request is let through (half open): its success brings
the server back, its failure doubles the time. A lone server is never ejected, since there is no other.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

FAILURES_TO_EJECT = 3
FIRST_EJECTION_MS = 1_000
LONGEST_EJECTION_MS = 30_000


class Condition:
    """The state of one server."""

    __slots__ = ("_ejection_ms", "_out_until_ms", "failures", "up")

    def __init__(self) -> None:
        self.up = True
        """The result of the active checks; true if there are none."""
        self.failures = 0
        """Consecutive failures."""
        self._ejection_ms = 0
        self._out_until_ms = 0

    def ejected(self, now_ms: int) -> bool:
        return now_ms < self._out_until_ms

    def usable(self, now_ms: int) -> bool:
        return self.up and now_ms >= self._out_until_ms

    def chosen(self, now_ms: int) -> None:
        """Note that a request is sent to it. After an ejection it is the probe: no other is sent until it is answered."""
        if self._ejection_ms:
            self._out_until_ms = now_ms + self._ejection_ms

    def succeeded(self) -> None:
        """Note a complete response."""
        if self.failures:
            self.failures = self._ejection_ms = self._out_until_ms = 0

    def failed(self, now_ms: int) -> None:
        """Note a failure: a connection refused or lost, no answer in time, or a response that cannot be framed."""
        self.failures += 1
        if self._ejection_ms:
            self._ejection_ms = min(self._ejection_ms * 2, LONGEST_EJECTION_MS)
        elif self.failures >= FAILURES_TO_EJECT:
            self._ejection_ms = FIRST_EJECTION_MS
        if self._ejection_ms:
            self._out_until_ms = now_ms + self._ejection_ms

    def checked(self, *, up: bool) -> None:
        """Note the result of an active check. Recovery also ends an ejection."""
        if up and not self.up:
            self.succeeded()
        self.up = up

    def taken_over(self, *, checked: bool, alone: bool) -> "Condition":
        """The state with which another pool begins to use this server. A copy: each pool has checks and failures of its own.

        :param checked: whether that pool has active checks, without which it would never find the server up again
        :param alone: whether it has no other server, so that this one is not ejected
        """
        condition = Condition()
        condition.up = self.up or not checked
        if not alone:
            condition.failures, condition._ejection_ms, condition._out_until_ms = self.failures, self._ejection_ms, self._out_until_ms
        return condition


class Candidate(Protocol):
    """A server, as :func:`choose` sees it."""

    active: int
    """Its current requests, including waiting ones."""
    condition: Condition


CandidateT = TypeVar("CandidateT", bound=Candidate)


def choose(servers: Sequence[CandidateT], tried: Collection[CandidateT], now_ms: int, turn: int) -> CandidateT | None:
    """The usable server with the fewest requests, among those that this request has not tried; ``None``: there is none.

    :param turn: the index to start at, so that equally loaded servers alternate
    """
    best: CandidateT | None = None
    for index in range(turn, turn + len(servers)):
        server = servers[index % len(servers)]
        if (best is None or server.active < best.active) and server not in tried and server.condition.usable(now_ms):
            best = server
    if best is not None:
        best.condition.chosen(now_ms)
    return best
