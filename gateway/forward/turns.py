"""Fair sharing of an upstream server's connections between clients. Pure: no I/O, the time is an argument.

Clients are told apart by address (IPv6 by /64). An eighth of a server's connections is the most that one client's requests hold of those
that were opened or waited for; idle connections are anybody's. When requests must wait, clients take turns, not requests, and when too
many wait, one of the client that waits for most is refused. What is kept is bounded by the number of connections.
"""

from collections import deque

from gateway.forward.ports import Waiter
from gateway.net.addresses import customer_network

SMALLEST_SHARE = 8
"""Connections that every client may hold, however few there are."""


class Turns:
    """See the module.

    :param connections: of the server, at the most; as many may wait
    """

    __slots__ = ("_held", "_most", "_share", "_waiting", "count")

    def __init__(self, connections: int) -> None:
        self.count = 0
        """How many wait."""
        self._most = connections
        self._share = max(SMALLEST_SHARE, connections // 8)
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[Waiter]] = {}
        """By client, in the order of their turns."""

    def take(self, call: Waiter) -> bool:
        """Hold one more connection, unless its client holds its share."""
        owner = customer_network(call.client)
        held = self._held.get(owner, 0)
        if held >= self._share:
            return False
        self._held[owner] = held + 1
        call.held = True
        return True

    def leave(self, call: Waiter) -> None:
        """It holds its connection no longer."""
        if call.held:
            call.held = False
            owner = customer_network(call.client)
            held = self._held[owner] - 1
            if held:
                self._held[owner] = held
            else:
                del self._held[owner]

    def wait(self, call: Waiter) -> Waiter | None:
        """Wait for a turn.

        :return: who is to be refused for it: itself, or one of a client that waits for more
        """
        owner = customer_network(call.client)
        refused = None
        if self.count >= self._most:
            longest = max(self._waiting, key=lambda each: len(self._waiting[each]))
            if len(self._waiting[longest]) <= len(self._waiting.get(owner, ())) + 1:
                return call
            refused = self._waiting[longest][-1]
            self.forget(refused)
        self._waiting.setdefault(owner, deque()).append(call)
        self.count += 1
        return refused

    def next(self) -> Waiter | None:
        """The one whose turn it is; it holds a connection from now on. ``None`` when every client that waits holds its share."""
        for owner, calls in self._waiting.items():
            call = calls[0]
            if self.take(call):
                self.forget(call)
                if calls:
                    self._waiting[owner] = self._waiting.pop(owner)  # behind all others
                return call
        return None

    def forget(self, call: Waiter) -> None:
        """It does not wait any more, if it did."""
        owner = customer_network(call.client)
        calls = self._waiting.get(owner)
        if calls is None or call not in calls:
            return
        calls.remove(call)
        self.count -= 1
        if not calls:
            del self._waiting[owner]

    def late(self, now_ms: int) -> list[Waiter]:
        """Those that have waited for too long; they wait no more."""
        late = [call for calls in self._waiting.values() for call in calls if call.waiting_until_ms <= now_ms] if self.count else []
        for call in late:
            self.forget(call)
        return late
