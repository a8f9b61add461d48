"""What is remembered of signatures that passed while Redis was away."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admission import unrecorded
from gateway.admission.unrecorded import AT_ONCE, Unrecorded


@pytest.mark.parametrize(
    ("passed", "asked", "refused"), [("read", "read", False), ("read", "trade", True), ("trade", "read", True), ("trade", "trade", True)]
)
def test_what_a_read_used_serves_reads_and_what_a_trade_used_nothing_until_its_window_has_passed(passed, asked, refused):
    memory = Unrecorded()
    memory.add("a", "key", 1_000, shared=passed == "read")
    assert memory.refuses("a", 999, shared=asked == "read") is refused
    assert not memory.refuses("a", 1_000, shared=asked == "read")
    assert not memory.refuses("b", 999, shared=asked == "read")


def test_redis_is_told_a_bounded_number_and_what_is_past_is_forgotten():
    memory = Unrecorded()
    memory.add("past", "key", 10, shared=True)
    for number in range(AT_ONCE + 1):
        memory.add(f"{number}", "key", 1_000, shared=number == 0)
    due = memory.due(10)
    assert due[:2] == [("0", True, 990), ("1", False, 990)]
    assert len(due) == AT_ONCE
    for name, _, _ in due:
        memory.recorded(name)
    assert memory.due(10) == [(f"{AT_ONCE}", False, 990)]
    assert memory.due(1_000) == []
    assert not memory


def test_the_oldest_is_forgotten_for_the_latest(monkeypatch):
    monkeypatch.setattr(unrecorded, "MOST", 2)
    memory = Unrecorded()
    for name in "abc":
        memory.add(name, "key", 1_000, shared=True)
    assert [name for name, _, _ in memory.due(0)] == ["b", "c"]


def test_a_key_that_fills_the_memory_forgets_its_own_signatures_and_no_other_keys(monkeypatch):
    monkeypatch.setattr(unrecorded, "MOST", 20)
    memory = Unrecorded()
    for number in range(3):
        memory.add(f"order {number}", "bot", 1_000, shared=False)
    for number in range(100):
        memory.add(f"flood {number}", f"greedy {number % 2}", 1_000, shared=True)
        memory.add(f"late {number}", "late", 1_000, shared=True)
        memory.recorded(f"late {number}")
    held = [name for name, _, _ in memory.due(0)]
    assert held[:3] == ["order 0", "order 1", "order 2"]
    assert held[3:] == [f"flood {number}" for number in range(84, 100)]
    assert all(memory.refuses(f"order {number}", 0, shared=True) for number in range(3))


@pytest.fixture(scope="module")
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unrecorded, "MOST", 8)
        yield


@pytest.mark.usefixtures("_small")
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "recorded"]), st.sampled_from("abc"), st.integers(0, 12), st.booleans()), max_size=120
    )
)  # fmt: skip
def test_whatever_comes_the_memory_is_bounded_and_only_who_holds_the_most_loses_anything(steps):
    memory, known = Unrecorded(), dict[str, str]()
    for act, key, number, shared in steps:
        name = f"{key}{number}"
        if act == "recorded":
            memory.recorded(name)
            known.pop(name, None)
            continue
        sizes = Counter(known.values())
        memory.add(name, key, 1_000, shared=shared)
        held = {name for name, _, _ in memory.due(0)}
        lost = known.keys() - held
        if lost:
            assert len(known) == unrecorded.MOST
            assert [sizes[known[each]] for each in lost] == [max(sizes.values())]
        known = {each: owner for each, owner in known.items() if each in held} | {name: key}
        assert known.keys() == held
        assert len(held) <= unrecorded.MOST
    for name in known:
        memory.recorded(name)
    assert not memory
