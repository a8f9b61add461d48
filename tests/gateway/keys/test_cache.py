"""The process's memory of keys."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.keys.cache import Entry, KeyCache
from tests.support.keys import a_record

RECORD = a_record()


def entry(value: str) -> Entry[str]:
    return Entry(RECORD, value, read_ms=0, refresh_from_ms=60, fresh_until_ms=100, shared_ms=0)


def test_an_id_is_present_or_absent_and_never_both():
    cache: KeyCache[str] = KeyCache(10)
    cache.put("a", entry("1"))
    cache.put_absent("a", 100)
    assert cache.present == {}
    assert cache.is_absent("a", 99)
    cache.put("a", entry("2"))
    assert not cache.is_absent("a", 99)
    assert cache.present["a"].value == "2"


def test_an_absence_ends_with_its_freshness():
    cache: KeyCache[str] = KeyCache(10)
    cache.put_absent("a", 100)
    assert cache.is_absent("a", 99)
    assert not cache.is_absent("a", 100)
    assert not cache.is_absent("b", 0)


def test_expiring_keeps_the_keys_and_forgets_the_absences():
    cache: KeyCache[str] = KeyCache(10)
    cache.put("a", entry("1"))
    cache.put_absent("b", 100)
    cache.expire()
    assert cache.present["a"].fresh_until_ms == cache.present["a"].refresh_from_ms == 0
    assert cache.absent_count == 0


def test_a_smaller_size_lets_the_oldest_go():
    cache: KeyCache[str] = KeyCache(10)
    for name in "abc":
        cache.put(name, entry(name))
    cache.put("a", entry("again"))
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
        self.cache.put(key_id, entry(str(self.counter)))
        self.truth[key_id] = str(self.counter)

    @rule(key_id=ids)
    def put_absent(self, key_id):
        self.cache.put_absent(key_id, 100)
        self.truth[key_id] = None

    @rule(key_id=ids)
    def drop(self, key_id):
        self.cache.drop(key_id)
        self.truth.pop(key_id, None)

    @invariant()
    def it_is_bounded_and_right(self):
        assert len(self.cache) <= self.SIZE
        assert self.cache.absent_count <= self.SIZE
        for key_id in "abcdefghij":
            held = self.cache.present.get(key_id)
            assert held is None or held.value == self.truth[key_id]
            assert not self.cache.is_absent(key_id, 0) or self.truth[key_id] is None


TestCacheMachine = CacheMachine.TestCase
