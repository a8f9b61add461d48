"""Counting by owner."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.addresses import owners
from gateway.net.tally import Tally

SITE, NETWORK = "2001:db8:1::/48", "2001:db8:1:2::/64"


@given(st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8:1:2::1", "2001:db8:1:3::1"])), st.randoms())
def test_it_counts_and_forgets_who_has_none(addresses: list[str], random) -> None:
    tally, expected, total = Tally(), Counter[str](), 0
    for address in addresses:
        tally.add(owners(address))
        expected.update(owners(address))
        total += 1
    random.shuffle(addresses)
    while True:
        assert (tally.counts, tally.total) == (dict(+expected), total)
        if not addresses:
            break
        address = addresses.pop()
        tally.remove(owners(address))
        expected.subtract(owners(address))
        total -= 1


def test_who_has_none_has_nothing_to_give_back() -> None:
    with pytest.raises(KeyError):
        Tally().remove(("a",))


def test_there_is_room_where_neither_the_network_nor_its_site_has_too_much() -> None:
    tally, opening = Tally(), Tally()
    assert [tally.room(whose, 2, 5) for whose in (("192.0.2.1",), (SITE, NETWORK))] == [2, 2]
    for whose in (("192.0.2.1",), (SITE, NETWORK), (SITE, "other"), (SITE, "third"), (SITE, "third")):
        tally.add(whose)
    assert [tally.room(whose, 2, 5) for whose in (("192.0.2.1",), (SITE, NETWORK), (SITE, "third"), (SITE, "new"))] == [1, 1, 0, 1]
    assert tally.room(("192.0.2.1",), 2, 0) == 1, "which has no site"
    opening.add((SITE, "third"))
    assert [tally.room(whose, 2, 5, opening) for whose in (("192.0.2.1",), (SITE, NETWORK), (SITE, "third"))] == [1, 0, -1]
