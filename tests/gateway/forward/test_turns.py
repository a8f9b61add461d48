"""Shares of a server's connections, and whose turn it is."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.forward.turns import SMALLEST_SHARE, Turns
from tests.support.inside import remembered


class Asking:
    """As much of a call as turns look at."""

    def __init__(self, client: str, waiting_until_ms: int = 0) -> None:
        self.client, self.waiting_until_ms, self.held = client, waiting_until_ms, False


def waiting(turns: Turns, *clients: str) -> list[Asking]:
    calls = [Asking(client) for client in clients]
    assert [turns.wait(call) for call in calls] == [None] * len(calls)
    return calls


def test_a_client_holds_its_share_and_leaves_the_rest_to_others():
    turns = Turns(807)
    held = [Asking("192.0.2.1") for _ in range(101)]
    assert [turns.take(call) for call in held] == [True] * 100 + [False]
    assert turns.take(Asking("192.0.2.2"))
    turns.leave(held[0])
    turns.leave(held[0])
    assert [turns.take(Asking("192.0.2.1")) for _ in range(2)] == [True, False]


def test_addresses_of_one_ipv6_network_are_one_client():
    turns = Turns(8)
    assert all(turns.take(Asking(f"2001:db8::{number}")) for number in range(1, 1 + SMALLEST_SHARE))
    assert not turns.take(Asking("2001:db8::ffff"))
    assert turns.take(Asking("2001:db8:0:1::1"))


def test_clients_take_turns_and_not_requests():
    turns = Turns(100)
    calls = waiting(turns, "a", "a", "a", "b", "c", "b")
    assert [turns.next() for _ in range(7)] == [calls[0], calls[3], calls[4], calls[1], calls[5], calls[2], None]
    assert turns.count == 0


def test_a_client_that_holds_its_share_is_passed_over_until_it_leaves():
    turns = Turns(8)
    held = [Asking("a") for _ in range(8)]
    assert all(map(turns.take, held))
    first, other = waiting(turns, "a", "b")
    assert [turns.next(), turns.next()] == [other, None]
    turns.leave(held[3])
    assert turns.next() is first


def test_when_too_many_wait_the_latest_of_the_client_that_waits_for_most_is_refused():
    turns = Turns(4)
    calls = waiting(turns, "a", "a", "a", "b")
    newcomer, greedy = Asking("c"), Asking("a")
    assert turns.wait(newcomer) is calls[2]
    assert turns.wait(greedy) is greedy
    assert turns.count == 4
    assert [turns.next() for _ in range(5)] == [calls[0], calls[3], newcomer, calls[1], None]


def test_nobody_is_refused_for_one_who_would_then_wait_for_as_much():
    turns = Turns(3)
    calls, another = waiting(turns, "a", "a", "b"), Asking("b")
    assert turns.wait(another) is another
    turns = Turns(4)
    calls, another = waiting(turns, "a", "a", "a", "b"), Asking("b")
    assert turns.wait(another) is calls[2]


def test_who_has_waited_too_long_waits_no_more():
    turns = Turns(4)
    early, late = Asking("a", 10), Asking("a", 20)
    assert (turns.wait(early), turns.wait(late)) == (None, None)
    assert turns.late(9) == []
    assert turns.late(10) == [early]
    turns.forget(early)
    assert (turns.count, turns.next()) == (1, late)


@given(st.lists(st.tuples(st.sampled_from(["take", "wait", "next", "leave", "forget"]), st.integers(0, 5)), max_size=200))
def test_whatever_happens_the_counts_are_those_of_the_calls(steps):
    turns: Any = Turns(20)
    held, queued = [], []
    for step, number in steps:
        call = Asking(f"192.0.2.{number}")
        if step == "take" and turns.take(call):
            held.append(call)
        elif step == "wait":
            refused = turns.wait(call)
            queued = [each for each in [*queued, call] if each is not refused]
        elif step == "next" and (call := turns.next()) is not None:
            queued.remove(call)
            held.append(call)
        elif step == "leave" and held:
            turns.leave(held.pop(number % len(held)))
        elif step == "forget" and queued:
            turns.forget(queued.pop(number % len(queued)))
        assert turns.count == len(queued) <= 20
        counts = Counter(call.client for call in held)
        assert remembered(turns) == counts
        assert max(counts.values(), default=0) <= SMALLEST_SHARE
        assert all(call.held for call in held)
        assert not any(call.held for call in queued)
