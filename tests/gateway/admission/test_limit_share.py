"""A worker's share of a limit, by itself: what it admits, and what it takes over from the ledger."""

import pytest

from gateway.admission.limit_share import Share
from gateway.config.values import Rate
from gateway.runtime.gcra import ShareNeeded

RATE = Rate(6_000, 60_000)
NOW = 1_000_000.0


def told_by(charge):
    return charge.allowed, charge.tat_ms, charge.remaining, charge.reset_ms, charge.retry_after_ms


def test_a_share_begins_with_the_whole_window_and_owes_nothing():
    share = Share("k", RATE)
    begun = {name: getattr(share, name) for name in Share.__slots__}
    assert begun == {
        "key_id": "k", "rate": RATE, "tat_ms": 0.0, "room": 6_000, "learned_ms": -1e15, "window_full_until_ms": 0.0, "unsettled": 0,
        "max_unsettled": 60, "settle_above": 45, "unsettled_since_ms": 0.0, "wanted": 0, "smallest_wanted": 0, "granted": 0,
        "granted_until_ms": 0.0,
    }  # fmt: skip


def test_what_was_granted_is_used_while_it_is_valid():
    share = Share("k", RATE)
    share.learn((10, 0, 100, 0), 1_000)
    assert (share.granted, share.granted_until_ms) == (10, 2_000.0)
    assert share.take_granted(4, 2_000.0)
    assert share.granted == 6
    share.learn((5, 0, 100, 0), 2_000)  # as the last moment of what was left
    assert (share.granted, share.granted_until_ms) == (11, 3_000.0)
    assert not share.take_granted(1, 3_000.5)
    assert share.granted == 0
    share.granted = 3
    share.learn((2, 0, 100, 0), 3_001)  # what was left is void
    assert (share.granted, share.granted_until_ms) == (2, 4_001.0)
    share.learn((0, 0, 100, 0), 3_500)
    assert (share.granted, share.granted_until_ms) == (2, 4_001.0)


@pytest.mark.parametrize(("room", "told"), [(2, 2), (0, 0), (-5, 0)])
def test_a_window_known_to_be_full_says_when_to_come_again_and_another_asks_the_ledger(room, told):
    share = Share("k", RATE)
    share.room, share.tat_ms, share.window_full_until_ms = room, 77.0, NOW + 250
    assert told_by(share.over_window(NOW)) == (False, 77.0, told, 250.0, 250.0)
    with pytest.raises(ShareNeeded) as needed:
        share.over_window(NOW + 250)
    assert needed.value.args == ("k",)


def test_what_is_given_back_was_never_charged():
    share = Share("k", RATE)
    share.tat_ms, share.unsettled, share.room = 500.0, 9, 20
    share.give_back(4)
    assert (share.tat_ms, share.unsettled, share.room) == (500.0 - 40, 5, 24)


def test_used_is_what_the_ledger_knew_and_what_came_since():
    share = Share("k", RATE)
    assert share.used(NOW) == 0  # it was never asked
    share.unsettled = 7
    assert share.used(NOW) == 7
    share.learned_ms, share.room = NOW, 6_100
    assert share.used(NOW) == 80  # the ledger's window holds 3 % more than the limit
    assert share.used(NOW + RATE.period_ms - 1) == 80
    assert share.used(NOW + RATE.period_ms) == 7
    share.room, share.unsettled = 7_000, -3
    assert share.used(NOW) == 0
    assert share.used(NOW + RATE.period_ms) == 0


def test_what_was_admitted_while_the_ledger_was_asked_stands_beside_its_answer():
    share = Share("k", RATE)
    share.unsettled = 10
    share.learn(("0", "300.5", "672", "0"), 1_000)
    assert (share.tat_ms, share.room, share.learned_ms) == (1_000 + 300.5 + 100, 662, 1_000.0)
    assert (share.max_unsettled, share.settle_above, share.window_full_until_ms) == (21, 15, 0.0)
    share.learn((0, 0, 60_000, 250), 1_000)
    assert (share.max_unsettled, share.settle_above, share.window_full_until_ms) == (60, 45, 1_250.0)
    share.learn((0, 0, -40, 250), 1_000)
    assert (share.max_unsettled, share.settle_above, share.room) == (0, 0, -50)
