"""The process's memory of keys."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.keys.cache import Entry, KeyCache
from gateway.keys.snapshot import BEGINNING, parse_snapshot
from tests.support.keys import a_record

RECORD = a_record()


def entry(value: str) -> Entry[str]:
    return Entry(RECORD, value, BEGINNING)


def test_an_id_is_present_or_absent_and_never_both():
    cache: KeyCache[str] = KeyCache(10)
    cache.put("a", entry("1"))
    cache.put_absent("a", 100)
    assert cache.present == {}
    assert cache.absent["a"] == (100, False)
    cache.put("a", entry("2"))
    assert "a" not in cache.absent
    assert cache.present["a"].value == "2"


def test_doubt_keeps_the_keys_until_then_and_forgets_the_absences():
    cache: KeyCache[str] = KeyCache(10)
    cache.put("a", entry("1"))
    cache.put_absent("b", 100)
    cache.doubt(50)
    doubted = cache.present["a"]
    assert (list(cache.present), doubted.in_doubt, doubted.until_ms, list(cache.absent)) == (["a"], True, 50, [])
    cache.put("a", entry("2"))
    assert not cache.present["a"].in_doubt


def test_a_second_doubt_makes_nothing_usable_for_longer():
    cache: KeyCache[str] = KeyCache(10)
    cache.put("a", entry("1"))
    cache.doubt(50)
    cache.present["a"].retry_ms = 40
    cache.put("b", entry("2"))
    cache.doubt(90)
    assert {key_id: (one.until_ms, one.retry_ms) for key_id, one in cache.present.items()} == {"a": (50, 40), "b": (90, 0)}


def test_going_back_keeps_what_was_read_by_then_and_is_in_no_doubt():
    cache: KeyCache[str] = KeyCache(10)
    for name, position in (("doubted", "90:90:"), ("by then", "90:100:95"), ("later", "90:101:95"), ("ended later", "90:100:")):
        cache.put(name, Entry(RECORD, name, parse_snapshot(position)))
        if name == "doubted":
            cache.doubt(50)
    cache.put_absent("absent", 100)
    cache.go_back(parse_snapshot("90:100:95"))
    assert (list(cache.present), list(cache.absent)) == (["by then"], [])


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

    @rule()
    def doubt(self):
        self.cache.doubt(0)
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


def test_a_key_in_doubt_is_known_and_its_doubt_begins_anew():
    cache: KeyCache[str] = KeyCache(10)
    one = Entry(RECORD, "1", BEGINNING, until_ms=3, retry_ms=7)
    assert (one.until_ms, one.retry_ms, one.used, one.in_doubt) == (3, 7, True, False)
    cache.put("a", one)
    cache.doubt(50)
    assert cache.present["a"] is one
    assert (one.until_ms, one.retry_ms, one.in_doubt) == (50, 0, True)


def test_what_remains_on_another_server_says_nothing_of_its_changes():
    cache: KeyCache[str] = KeyCache(10)
    cache.put("a", Entry(RECORD, "1", parse_snapshot("90:100:95")))
    cache.go_back(parse_snapshot("90:100:95"))
    assert cache.present["a"].position is BEGINNING
