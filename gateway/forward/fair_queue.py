"""Fair sharing of an upstream server's connections between clients. Pure: no I/O, the time is an argument.

A client is an address (IPv6: a /64). One client's requests hold at most an eighth of the connections that were opened or queued for, those
of an IPv6 /48 at most a quarter, and another quarter those of its customers with keys; idle connections are available to every client as
long as at most a quarter of all are open.
Queued requests are served round-robin by IPv4 address or /48, and within it by /64; when the queue is full, a request of the one with the
most queued requests is refused. Memory is bounded by the number of connections.
"""

from collections import deque

from gateway.forward.ports import Waiter
from gateway.net.addresses import most_of_site, owners, owners_with_key
from gateway.net.tally import Owners, Tally

SMALLEST_SHARE = 8
"""Connections that every client may hold, even of a small total."""

Calls = deque[Waiter]


class FairQueue:
    """See the module.

    :param connections: the server's maximum; the queue is as long
    """

    __slots__ = ("_held", "_most", "_of_site", "_share", "_waiting", "count")

    def __init__(self, connections: int) -> None:
        self.count = 0
        """Queued requests."""
        self._most = connections
        self._share = max(SMALLEST_SHARE, connections // 8)
        self._of_site = most_of_site(self._share, connections)
        self._held = Tally()
        self._waiting: dict[str, dict[str, Calls]] = {}
        """The queued calls by site and network, or twice by the same address, in the order in which they are served."""

    def take(self, call: Waiter) -> bool:
        """Count one more connection for this call's client. ``False``: the client, or its site, already holds its share."""
        whose = _owners(call)
        if self._held.room(whose, self._share, self._of_site) <= 0:
            return False
        self._held.add(whose)
        call.held = True
        return True

    def release(self, call: Waiter) -> None:
        """Release the connection that a call holds."""
        if call.held:
            call.held = False
            self._held.remove(_owners(call))

    def enqueue(self, call: Waiter) -> Waiter | None:
        """Add a call to the queue.

        :return: the call to refuse if the queue is full: this one, or one of a client with more queued calls
        """
        whose = _owners(call)
        refused = None
        if self.count >= self._most:
            refused = self._least_due(whose)
            if refused is None:
                return call
            self.remove(refused)
        self._waiting.setdefault(whose[0], {}).setdefault(whose[-1], deque()).append(call)
        self.count += 1
        return refused

    def _least_due(self, whose: Owners) -> Waiter | None:
        """The latest call of those with the most queued calls; ``None``: these clients would then have as many."""
        waiting = self._waiting
        own = waiting.get(whose[0], {})
        most = max(waiting.values(), key=_count)
        if _count(most) <= _count(own) + 1:
            most = own  # no other site has to give way; perhaps another network of its own
        longest = max(most.values(), key=len, default=None)
        if longest is None or (most is own and len(longest) <= len(own.get(whose[-1], ())) + 1):
            return None
        return longest[-1]

    def next(self) -> Waiter | None:
        """Remove the next call from the queue and count its connection. ``None``: every queued client holds its share."""
        for owner, networks in self._waiting.items():
            if self._held.counts.get(owner, 0) >= self._of_site:
                continue
            for network, calls in networks.items():
                call = calls[0]
                if self.take(call):
                    self.remove(call)
                    if calls:
                        networks[network] = networks.pop(network)  # to the end
                    if networks:
                        self._waiting[owner] = self._waiting.pop(owner)
                    return call
        return None

    def remove(self, call: Waiter) -> None:
        """Remove a call from the queue, if it is queued."""
        whose = _owners(call)
        owner, network = whose[0], whose[-1]
        networks = self._waiting.get(owner, {})
        calls = networks.get(network)
        if calls is None or call not in calls:
            return
        calls.remove(call)
        self.count -= 1
        if not calls:
            del networks[network]
            if not networks:
                del self._waiting[owner]

    def expired(self, now_ms: int) -> list[Waiter]:
        """Remove and return the calls that have timed out in the queue."""
        queued = [call for networks in self._waiting.values() for calls in networks.values() for call in calls] if self.count else []
        late = [call for call in queued if call.waiting_until_ms <= now_ms]
        for call in late:
            self.remove(call)
        return late


def _owners(call: Waiter) -> Owners:
    return owners_with_key(call.client) if call.receiver.authenticated else owners(call.client)


def _count(networks: dict[str, Calls]) -> int:
    return sum(map(len, networks.values()))
