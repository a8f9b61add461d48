"""What is remembered of signatures that passed while Redis was away."""

import pytest

from gateway.admission import unrecorded
from gateway.admission.unrecorded import AT_ONCE, Unrecorded


@pytest.mark.parametrize(
    ("passed", "asked", "refused"), [("read", "read", False), ("read", "trade", True), ("trade", "read", True), ("trade", "trade", True)]
)
def test_what_a_read_used_serves_reads_and_what_a_trade_used_nothing_until_its_window_has_passed(passed, asked, refused):
    memory = Unrecorded()
    memory.add("a", 1_000, shared=passed == "read")
    assert memory.refuses("a", 999, shared=asked == "read") is refused
    assert not memory.refuses("a", 1_000, shared=asked == "read")
    assert not memory.refuses("b", 999, shared=asked == "read")


def test_redis_is_told_a_bounded_number_and_what_is_past_is_forgotten():
    memory = Unrecorded()
    memory.add("past", 10, shared=True)
    for number in range(AT_ONCE + 1):
        memory.add(f"{number}", 1_000, shared=number == 0)
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
        memory.add(name, 1_000, shared=True)
    assert [name for name, _, _ in memory.due(0)] == ["b", "c"]
