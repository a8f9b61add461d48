"""Counting by name."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.tally import Tally


@given(st.lists(st.sampled_from("abc")), st.randoms())
def test_it_counts_and_forgets_who_has_none(names: list[str], random) -> None:
    tally, expected = Tally(), Counter[str]()
    for name in names:
        tally.add(name)
        expected[name] += 1
    random.shuffle(names)
    while True:
        assert (tally.counts, tally.total) == (dict(+expected), expected.total())
        assert [tally.of(name) for name in "abcd"] == [expected[name] for name in "abcd"]
        if not names:
            break
        name = names.pop()
        tally.remove(name)
        expected[name] -= 1


def test_who_has_none_has_nothing_to_give_back() -> None:
    with pytest.raises(KeyError):
        Tally().remove("a")
