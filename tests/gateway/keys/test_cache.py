"""The process's memory of keys."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.keys.cache import ABSENT, NEVER_MS, Absent, Entry, KeyCache, Validity
from gateway.keys.snapshot import BEGINNING
from tests.support.inside import doubted
from tests.support.keys import a_record

RECORD = a_record()


def put(cache: KeyCache[str], name: str, value: str | Absent = "1") -> Entry[str]:
    one = Entry(RECORD, value, cache.sure, cache.number, BEGINNING)
    cache.put(name, one)
    return one


def unconfirmed(cache: KeyCache[str], until_ms: int) -> Entry[str]:
    one = Entry(RECORD, "1", cache.in_doubt, cache.number, BEGINNING)
    one.until_ms = until_ms
    return one


def used_until_ms(one: Entry[str]) -> int:
    return min(one.until_ms, one.validity.used_until_ms)


def is_sure(cache: KeyCache[str], one: Entry[str]) -> bool:
    assert cache.in_doubt.until_ms == 0
    return one.validity is cache.sure


def read(cache: KeyCache[str], *, is_another_server: bool = False) -> None:
    """A read of the feed begins and is applied."""
    cache.number += 1
    cache.confirm(cache.number, is_another_server=is_another_server)


def test_an_id_is_present_or_absent_and_never_both():
    cache: KeyCache[str] = KeyCache(10)
    put(cache, "a")
    put(cache, "a", ABSENT)
    assert (list(cache.present), list(cache.absent)) == ([], ["a"])
    put(cache, "a", "2")
    assert (list(cache.present), list(cache.absent)) == (["a"], [])
    assert cache.present["a"].value == "2"


def test_in_doubt_keys_are_used_for_a_while_and_absences_are_forgotten():
    cache: KeyCache[str] = KeyCache(10)
    before = put(cache, "a")
    put(cache, "b", ABSENT)
    assert is_sure(cache, before)
    assert cache.doubt_ends_ms == 0
    cache.sure.until_ms = 100
    cache.doubt(10, 50)
    after = put(cache, "c")
    assert (list(cache.present), list(cache.absent)) == (["a", "c"], [])
    assert (is_sure(cache, before), is_sure(cache, after)) == (False, True)
    assert (used_until_ms(before), cache.doubt_ends_ms) == (50, 50)
    assert (before.validity.until_ms, after.validity.until_ms) == (0, 0)


@pytest.mark.parametrize("until_ms", [0, 9, 10])
def test_without_a_while_they_are_used_no_more(until_ms):
    cache: KeyCache[str] = KeyCache(10)
    before, in_doubt = put(cache, "a"), unconfirmed(cache, 90)
    cache.doubt(10, until_ms)
    assert (used_until_ms(before), used_until_ms(in_doubt)) == (until_ms, until_ms)
    assert used_until_ms(unconfirmed(cache, 90)) == 90


@pytest.mark.parametrize(
    ("doubts", "expected_ms"),
    [([(0, 50)], 50), ([(0, 50), (40, 90)], 50), ([(0, 50), (50, 100)], 50), ([(0, 50), (40, 0)], 0), ([(0, 90), (1, 70), (2, 0)], 0)],
)
def test_what_is_doubted_again_is_used_for_no_longer(doubts, expected_ms):
    cache: KeyCache[str] = KeyCache(10)
    one = put(cache, "a")
    for doubt in doubts:
        cache.doubt(*doubt)
    assert used_until_ms(one) == expected_ms


@pytest.mark.parametrize(("doubts", "expected_ms"), [([(60, 110)], 110), ([(40, 90)], 90), ([(40, 0)], 0), ([(40, 0), (45, 95)], 0)])
def test_what_is_stored_between_two_doubts_is_used_as_long_as_the_second_lasts(doubts, expected_ms):
    cache: KeyCache[str] = KeyCache(10)
    cache.doubt(0, 50)
    one = put(cache, "a")
    for doubt in doubts:
        cache.doubt(*doubt)
    assert used_until_ms(one) == expected_ms


def test_what_cannot_be_confirmed_is_in_doubt_for_a_time_of_its_own():
    cache: KeyCache[str] = KeyCache(10)
    one = unconfirmed(cache, 30)
    assert not is_sure(cache, one)
    assert used_until_ms(one) == 30
    cache.doubt(10, 20)
    assert used_until_ms(one) == 20


def test_doubts_that_are_over_are_not_kept():
    cache: KeyCache[str] = KeyCache(10)
    for now_ms in range(0, 5_000, 50):
        cache.doubt(now_ms, now_ms + 50)
        assert len(doubted(cache)) <= 2


def test_another_server_ends_what_was_stored_since_the_last_read_began_and_all_absences():
    cache: KeyCache[str] = KeyCache(10)
    earlier = put(cache, "earlier")
    read(cache)
    before_the_last = put(cache, "before the last")
    cache.number += 1
    during = put(cache, "during")
    cache.confirm(cache.number, is_another_server=False)
    after = put(cache, "after")
    in_doubt = unconfirmed(cache, 90)
    cache.put("in doubt", in_doubt)
    put(cache, "absent", ABSENT)
    entries = earlier, before_the_last, during, after, in_doubt
    assert list(map(cache.is_new, entries)) == [False, False, True, True, True]
    read(cache, is_another_server=True)
    assert [is_sure(cache, one) for one in entries] == [True, True, False, False, False]
    assert list(map(used_until_ms, entries[2:])) == [0, 0, 0]
    assert list(cache.absent) == []
    assert is_sure(cache, put(cache, "later"))


def test_a_read_that_fails_confirms_nothing():
    cache: KeyCache[str] = KeyCache(10)
    one = put(cache, "a")
    cache.number += 1
    assert cache.is_new(one)
    read(cache, is_another_server=True)
    assert not is_sure(cache, one)


def test_a_smaller_size_lets_the_oldest_go():
    cache: KeyCache[str] = KeyCache(10)
    for name in "abca":
        put(cache, name)
    cache.resize(2)
    assert list(cache.present) == ["c", "a"]


class CacheMachine(RuleBasedStateMachine):
    """Any sequence of operations against a model without bounds: what is remembered is right, and never too much."""

    SIZE = 4
    ids = st.sampled_from("abcdefghij")

    def __init__(self) -> None:
        super().__init__()
        self.cache: KeyCache[str] = KeyCache(self.SIZE)
        self.truth: dict[str, str | None] = {}
        self.counter = 0

    @rule(key_id=ids)
    def put(self, key_id):
        self.counter += 1
        put(self.cache, key_id, str(self.counter))
        self.truth[key_id] = str(self.counter)

    @rule(key_id=ids)
    def put_absent(self, key_id):
        put(self.cache, key_id, ABSENT)
        self.truth[key_id] = None

    @rule(until_ms=st.sampled_from([0, 50]))
    def doubt(self, until_ms):
        self.cache.doubt(0, until_ms)
        self.truth = {key_id: value for key_id, value in self.truth.items() if value is not None}

    @rule(size=st.integers(1, SIZE))
    def resize(self, size):
        self.cache.resize(size)
        self.cache.resize(self.SIZE)

    @rule(key_id=ids)
    def drop(self, key_id):
        self.cache.drop(key_id)
        self.truth.pop(key_id, None)

    @invariant()
    def it_is_bounded_and_right(self):
        assert len(self.cache.present) <= self.SIZE
        assert len(self.cache.absent) <= self.SIZE
        for key_id in "abcdefghij":
            held = self.cache.present.get(key_id)
            assert held is None or held.value == self.truth[key_id]
            assert key_id not in self.cache.absent or self.truth[key_id] is None


TestCacheMachine = CacheMachine.TestCase


def test_an_entry_is_used_and_holds_its_times():
    validity = Validity()
    one = Entry(RECORD, "1", validity, 7, BEGINNING)
    assert (one.record, one.value, one.validity, one.number, one.position, one.used) == (RECORD, "1", validity, 7, BEGINNING, True)
    assert (one.until_ms, one.due_ms, validity.until_ms) == (NEVER_MS, NEVER_MS, 0)
