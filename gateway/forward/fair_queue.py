"""Fair sharing of an upstream server's connections between clients. Pure: no I/O, the time is an argument.

A client is an address (IPv6: a /64). One client's requests hold at most an eighth of the connections that were opened or queued for; idle
connections are available to every client. Queued requests are served round-robin by client; when the queue is full, a request of the client
with the most queued requests is refused. Memory is bounded by the number of connections.
"""

from collections import deque

from gateway.forward.ports import Waiter
from gateway.net.addresses import customer_network

SMALLEST_SHARE = 8
"""Connections that every client may hold, even of a small total."""


class FairQueue:
    """See the module.

    :param connections: the server's maximum; the queue is as long
    """

    __slots__ = ("_held", "_most", "_share", "_waiting", "count")

    def __init__(self, connections: int) -> None:
        self.count = 0
        """Queued requests."""
        self._most = connections
        self._share = max(SMALLEST_SHARE, connections // 8)
        self._held: dict[str, int] = {}
        self._waiting: dict[str, deque[Waiter]] = {}
        """The queued calls of each client, in the order in which clients are served."""

    def take(self, call: Waiter) -> bool:
        """Count one more connection for this call's client. ``False``: the client already holds its share."""
        owner = customer_network(call.client)
        held = self._held.get(owner, 0)
        if held >= self._share:
            return False
        self._held[owner] = held + 1
        call.held = True
        return True

    def release(self, call: Waiter) -> None:
        """Release the connection that a call holds."""
        if call.held:
            call.held = False
            owner = customer_network(call.client)
            held = self._held[owner] - 1
            if held:
                self._held[owner] = held
            else:
                del self._held[owner]

    def enqueue(self, call: Waiter) -> Waiter | None:
        """Add a call to the queue.

        :return: the call to refuse if the queue is full: this one, or one of a client with more queued calls
        """
        owner = customer_network(call.client)
        refused = None
        if self.count >= self._most:
            longest = max(self._waiting, key=lambda each: len(self._waiting[each]))
            if len(self._waiting[longest]) <= len(self._waiting.get(owner, ())) + 1:
                return call
            refused = self._waiting[longest][-1]
            self.remove(refused)
        self._waiting.setdefault(owner, deque()).append(call)
        self.count += 1
        return refused

    def next(self) -> Waiter | None:
        """Remove the next call from the queue and count its connection. ``None``: every queued client holds its share."""
        for owner, calls in self._waiting.items():
            call = calls[0]
            if self.take(call):
                self.remove(call)
                if calls:
                    self._waiting[owner] = self._waiting.pop(owner)  # to the end
                return call
        return None

    def remove(self, call: Waiter) -> None:
        """Remove a call from the queue, if it is queued."""
        owner = customer_network(call.client)
        calls = self._waiting.get(owner)
        if calls is None or call not in calls:
            return
        calls.remove(call)
        self.count -= 1
        if not calls:
            del self._waiting[owner]

    def expired(self, now_ms: int) -> list[Waiter]:
        """Remove and return the calls that have timed out in the queue."""
        late = [call for calls in self._waiting.values() for call in calls if call.waiting_until_ms <= now_ms] if self.count else []
        for call in late:
            self.remove(call)
        return late
