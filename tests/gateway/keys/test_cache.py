"""The process's memory of keys."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.keys.cache import ABSENT, NEVER_MS, Absent, Entry, KeyCache
from tests.support.keys import a_record

RECORD = a_record()


def put(cache: KeyCache[str], name: str, value: str | Absent = "1", *, until_ms: int = NEVER_MS) -> Entry[str]:
    one = Entry(RECORD, value, cache.epoch, until_ms)
    cache.put(name, one)
    return one


def used_until_ms(cache: KeyCache[str], one: Entry[str]) -> int:
    """The end of the time in doubt, of those below 200."""
    return next(now_ms for now_ms in range(200) if not cache.is_in_doubt(one, now_ms))


def test_an_id_is_present_or_absent_and_never_both():
    cache: KeyCache[str] = KeyCache(10)
    put(cache, "a")
    put(cache, "a", ABSENT)
    assert (list(cache.present), list(cache.absent)) == ([], ["a"])
    put(cache, "a", "2")
    assert (list(cache.present), list(cache.absent)) == (["a"], [])
    assert cache.present["a"].value == "2"


def test_in_doubt_keys_are_used_for_a_while_and_absences_are_not():
    cache: KeyCache[str] = KeyCache(10)
    before, absent = put(cache, "a"), put(cache, "b", ABSENT)
    assert (before.epoch, cache.epoch, cache.doubt_ends_ms) == (0, 0, 0)
    cache.doubt(50)
    after = put(cache, "c")
    assert (list(cache.present), list(cache.absent)) == (["a", "c"], ["b"])
    assert [one.epoch == cache.epoch for one in (before, absent, after)] == [False, False, True]
    assert [used_until_ms(cache, one) for one in (before, absent, after)] == [50, 0, 0]


@pytest.mark.parametrize(("until_ms", "doubt_ends_ms", "expected_ms"), [(30, 50, 30), (50, 30, 30), (90, 0, 0)])
def test_what_has_an_end_of_its_own_is_used_no_longer_in_doubt(until_ms, doubt_ends_ms, expected_ms):
    cache: KeyCache[str] = KeyCache(10)
    one = put(cache, "a", until_ms=until_ms)
    cache.doubt(doubt_ends_ms)
    assert used_until_ms(cache, one) == expected_ms


@pytest.mark.parametrize(("doubts", "expected_ms"), [([50], 50), ([0], 0), ([50, 90], 0), ([50, 0], 0), ([90, 70, 110], 0)])
def test_what_is_doubted_twice_is_used_no_more(doubts, expected_ms):
    cache: KeyCache[str] = KeyCache(10)
    one = put(cache, "a")
    for until_ms in doubts:
        cache.doubt(until_ms)
    assert used_until_ms(cache, one) == expected_ms


def test_what_is_stored_between_two_doubts_is_used_as_long_as_the_second_lasts():
    cache: KeyCache[str] = KeyCache(10)
    cache.doubt(50)
    one = put(cache, "a")
    cache.doubt(110)
    assert used_until_ms(cache, one) == 110


def test_a_smaller_size_lets_the_oldest_go():
    cache: KeyCache[str] = KeyCache(10)
    for name in "abca":
        put(cache, name)
    cache.size = 2
    put(cache, "d")
    assert list(cache.present) == ["a", "d"]


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
        self.cache.doubt(until_ms)

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
    one = Entry(RECORD, "1", 7)
    assert (one.record, one.value, one.epoch, one.used, one.until_ms, one.due_ms) == (RECORD, "1", 7, True, NEVER_MS, NEVER_MS)
    assert (Entry(RECORD, "1", 7, 8, 9).until_ms, Entry(RECORD, "1", 7, 8, 9).due_ms) == (8, 9)
