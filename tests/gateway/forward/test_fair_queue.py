"""Shares of a server's connections, and the order of the queue."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.forward.fair_queue import SMALLEST_SHARE, FairQueue
from gateway.net.addresses import owners, owners_with_key
from tests.support.inside import remembered


class Asking:
    """The part of a call that the queue uses."""

    def __init__(self, client: str, waiting_until_ms: int = 0, *, authenticated: bool = False) -> None:
        self.client, self.waiting_until_ms, self.held = client, waiting_until_ms, False
        self.receiver = SimpleNamespace(authenticated=authenticated)


def waiting(queue: FairQueue, *clients: str) -> list[Asking]:
    calls = [Asking(client) for client in clients]
    assert [queue.enqueue(call) for call in calls] == [None] * len(calls)
    return calls


def test_a_client_holds_its_share_and_leaves_the_rest_to_others():
    queue = FairQueue(807)
    held = [Asking("192.0.2.1") for _ in range(101)]
    assert [queue.take(call) for call in held] == [True] * 100 + [False]
    assert queue.take(Asking("192.0.2.2"))
    queue.release(held[0])
    queue.release(held[0])
    assert [queue.take(Asking("192.0.2.1")) for _ in range(2)] == [True, False]


def test_addresses_of_one_ipv6_network_are_one_client():
    queue = FairQueue(8)
    assert all(queue.take(Asking(f"2001:db8::{number}")) for number in range(1, 1 + SMALLEST_SHARE))
    assert not queue.take(Asking("2001:db8::ffff"))
    assert queue.take(Asking("2001:db8:1::1"))


def test_the_networks_of_a_site_hold_a_quarter_and_those_of_its_customers_with_keys_another():
    queue = FairQueue(160)
    for authenticated in (False, True):
        calls = [Asking(f"2001:db8:1:{number:x}::1", authenticated=authenticated) for number in range(50)]
        assert [queue.take(call) for call in calls] == [True] * 40 + [False] * 10
        queue.release(calls[0])
        assert queue.take(calls[49])
    assert queue.take(Asking("2001:db8:2::1"))
    assert queue.take(Asking("192.0.2.1"))


def test_a_network_holds_its_share_with_keys_and_without_together():
    queue = FairQueue(160)
    held = [queue.take(Asking("2001:db8::1", authenticated=number % 2 == 0)) for number in range(22)]
    assert held == [True] * 20 + [False] * 2


def test_sites_take_turns_and_at_these_their_networks():
    queue = FairQueue(100)
    calls = waiting(queue, "2001:db8:1:1::1", "2001:db8:1:1::1", "2001:db8:1:2::1", "a", "a", "2001:db8:2::1")
    assert [queue.next() for _ in range(7)] == [calls[0], calls[3], calls[5], calls[2], calls[4], calls[1], None]
    assert queue.count == 0


def test_who_waits_in_a_site_that_holds_its_share_is_passed_over_until_it_leaves():
    queue = FairQueue(160)
    held = [Asking(f"2001:db8:1:{number:x}::1") for number in range(40)]
    assert all(map(queue.take, held))
    of_site, other = waiting(queue, "2001:db8:1:ffff::1", "a")
    assert [queue.next(), queue.next()] == [other, None]
    queue.release(held[7])
    assert queue.next() is of_site


def test_a_site_whose_networks_each_wait_for_little_gives_way_to_others_and_within_it_the_most_greedy_one():
    queue = FairQueue(4)
    calls: list[Any] = waiting(queue, *(f"2001:db8:1:{number}::1" for number in range(4)))
    newcomer = Asking("a")
    assert queue.enqueue(newcomer) in calls
    another = Asking("2001:db8:1:ffff::1")
    assert queue.enqueue(another) is another
    with_key = Asking("2001:db8:1:ffff::1", authenticated=True)
    assert queue.enqueue(with_key) in calls, "it does not wait behind those without keys"
    for network in ("2", "3"):
        queue = FairQueue(4)
        calls = waiting(queue, "2001:db8:1:1::1", "2001:db8:1:1::1", "2001:db8:1:1::1", "2001:db8:1:2::1")
        assert queue.enqueue(Asking(f"2001:db8:1:{network}::1")) is calls[2]


def test_where_everybody_waits_for_one_thing_a_newcomer_is_refused_and_can_be_forgotten():
    queue, newcomer = FairQueue(3), Asking("d")
    waiting(queue, "a", "b", "c")
    assert queue.enqueue(newcomer) is newcomer
    queue.remove(newcomer)
    assert queue.count == 3


def test_clients_take_turns_and_not_requests():
    queue = FairQueue(100)
    calls = waiting(queue, "a", "a", "a", "b", "c", "b")
    assert [queue.next() for _ in range(7)] == [calls[0], calls[3], calls[4], calls[1], calls[5], calls[2], None]
    assert queue.count == 0


def test_a_client_that_holds_its_share_is_passed_over_until_it_leaves():
    queue = FairQueue(8)
    held = [Asking("a") for _ in range(8)]
    assert all(map(queue.take, held))
    first, other = waiting(queue, "a", "b")
    assert [queue.next(), queue.next()] == [other, None]
    queue.release(held[3])
    assert queue.next() is first


def test_when_too_many_wait_the_latest_of_the_client_that_waits_for_most_is_refused():
    queue = FairQueue(4)
    calls = waiting(queue, "a", "a", "a", "b")
    newcomer, greedy = Asking("c"), Asking("a")
    assert queue.enqueue(newcomer) is calls[2]
    assert queue.enqueue(greedy) is greedy
    assert queue.count == 4
    assert [queue.next() for _ in range(5)] == [calls[0], calls[3], newcomer, calls[1], None]


def test_nobody_is_refused_for_one_who_would_then_wait_for_as_much():
    queue = FairQueue(3)
    calls, another = waiting(queue, "a", "a", "b"), Asking("b")
    assert queue.enqueue(another) is another
    queue = FairQueue(4)
    calls, another = waiting(queue, "a", "a", "a", "b"), Asking("b")
    assert queue.enqueue(another) is calls[2]


def test_who_has_waited_too_long_waits_no_more():
    queue = FairQueue(4)
    early, late = Asking("a", 10), Asking("a", 20)
    assert (queue.enqueue(early), queue.enqueue(late)) == (None, None)
    assert queue.expired(9) == []
    assert queue.expired(10) == [early]
    queue.remove(early)
    assert (queue.count, queue.next()) == (1, late)


@given(st.lists(st.tuples(st.sampled_from(["take", "enqueue", "next", "release", "remove"]), st.integers(0, 9)), max_size=200))
def test_whatever_happens_the_counts_are_those_of_the_calls(steps):
    queue: Any = FairQueue(20)
    held, queued = [], []
    for step, number in steps:
        address = f"192.0.2.{number}" if number < 4 else f"2001:db8:1:{number % 3}::1"
        call = Asking(address, authenticated=number > 6)
        if step == "take" and queue.take(call):
            held.append(call)
        elif step == "enqueue":
            refused = queue.enqueue(call)
            queued = [each for each in [*queued, call] if each is not refused]
        elif step == "next" and (call := queue.next()) is not None:
            queued.remove(call)
            held.append(call)
        elif step == "release" and held:
            queue.release(held.pop(number % len(held)))
        elif step == "remove" and queued:
            queue.remove(queued.pop(number % len(queued)))
        assert queue.count == len(queued) <= 20
        counts = Counter(owner for call in held for owner in (owners_with_key if call.receiver.authenticated else owners)(call.client))
        assert remembered(queue) == counts
        assert max(counts.values(), default=0) <= SMALLEST_SHARE
        assert all(call.held for call in held)
        assert not any(call.held for call in queued)
