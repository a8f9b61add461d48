"""The process's memory of keys."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.keys.cache import ABSENT, Absent, Entry, Generation, KeyCache
from gateway.keys.snapshot import BEGINNING, Snapshot, parse_snapshot
from tests.support.keys import a_record

RECORD = a_record()


def put(cache: KeyCache[str], name: str, value: str | Absent = "1", position: Snapshot = BEGINNING) -> Entry[str]:
    one = Entry(RECORD, value, position, cache.generation)
    cache.put(name, one)
    return one


def test_an_id_is_present_or_absent_and_never_both():
    cache: KeyCache[str] = KeyCache(10)
    put(cache, "a")
    put(cache, "a", ABSENT)
    assert (list(cache.present), list(cache.absent)) == ([], ["a"])
    put(cache, "a", "2")
    assert (list(cache.present), list(cache.absent)) == (["a"], [])
    assert cache.present["a"].value == "2"


def test_the_end_of_a_generation_keeps_its_keys_and_forgets_the_absences():
    cache: KeyCache[str] = KeyCache(10)
    before, in_doubt = put(cache, "a"), cache.in_doubt
    put(cache, "b", ABSENT)
    cache.generation.valid_until_ms = 100
    ended = cache.end_generation(50)
    after = put(cache, "c")
    assert (list(cache.present), list(cache.absent)) == (["a", "c"], [])
    assert cache.generation_of(before) is ended
    assert (ended.valid_until_ms, ended.until_ms, in_doubt.used_until_ms()) == (0, 50, 0)
    assert KeyCache[str](10).end_generation().until_ms == 0
    assert cache.generation_of(after) is cache.generation
    assert (cache.generation.valid_until_ms, cache.generation.until_ms) == (0, 0)
    assert len({id(one) for one in (ended, in_doubt, cache.generation, cache.in_doubt)}) == 4


def test_when_a_generation_is_resumed_what_was_read_by_then_goes_on_and_nothing_else():
    """Of what goes on, the position says nothing of another server's changes."""
    cache: KeyCache[str] = KeyCache(10)
    by_then, later = [put(cache, "k", position=parse_snapshot(text)) for text in ("90:100:95", "90:101:95")]
    ended_later = put(cache, "k", position=parse_snapshot("90:100:"))
    ended = cache.end_generation(50)
    ended.resume(parse_snapshot("90:100:95"))
    assert [cache.generation_of(one) is cache.generation for one in (by_then, later, ended_later)] == [True, False, False]
    assert (by_then.position, by_then.generation, ended.until_ms) == (BEGINNING, cache.generation, 0)
    assert later.position == parse_snapshot("90:101:95")


def test_what_goes_on_does_so_through_every_generation_that_is_resumed_and_ends_with_one_that_is_not():
    cache: KeyCache[str] = KeyCache(10)
    one, never = put(cache, "one", position=parse_snapshot("90:90:")), put(cache, "never", position=parse_snapshot("200:200:"))
    for position in ("100:100:", "80:80:"):
        cache.end_generation().resume(parse_snapshot(position))
    assert cache.generation_of(one) is cache.generation
    ended = cache.end_generation(50)
    assert cache.generation_of(one) is ended
    assert cache.generation_of(never).used_until_ms() == 0
    assert cache.generation_of(one).used_until_ms() == 50
    ended.resume(parse_snapshot("70:70:"))
    cache.end_generation(90)
    assert cache.generation_of(one).used_until_ms() == 90


@pytest.mark.parametrize(("deadlines", "used_until_ms"), [((50,), 50), ((50, 90), 50), ((90, 50), 50), ((90, 70, 0), 0)])
def test_what_ends_again_is_used_for_no_longer(deadlines, used_until_ms):
    cache: KeyCache[str] = KeyCache(10)
    one = put(cache, "a")
    for until_ms in deadlines:
        cache.end_generation(until_ms)
    assert cache.generation_of(one).used_until_ms() == used_until_ms


def test_keys_in_doubt_end_when_a_later_generation_is_resumed():
    cache: KeyCache[str] = KeyCache(10)
    one = put(cache, "a")
    cache.end_generation(50)
    cache.end_generation(90).resume(parse_snapshot("100:100:"))
    assert cache.generation_of(one).used_until_ms() == 0


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

    @rule()
    def end_generation(self):
        self.cache.end_generation()
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
    generation = Generation()
    one = Entry(RECORD, "1", BEGINNING, generation, until_ms=3, retry_ms=7)
    assert (one.record, one.value, one.generation, one.until_ms, one.retry_ms, one.used) == (RECORD, "1", generation, 3, 7, True)
    assert (Entry(RECORD, "1", BEGINNING, generation).until_ms, Entry(RECORD, "1", BEGINNING, generation).retry_ms) == (0, 0)
