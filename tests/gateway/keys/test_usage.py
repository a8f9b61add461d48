"""Usage in memory: what is counted, what is due to be written, and that it is bounded."""

import pytest

from gateway.keys.usage import UsageCounts
from tests.support.inside import remembered

KEY = "gbk_" + "a" * 28
NOON = 1_800_000_000_000


@pytest.fixture
def counts():
    return UsageCounts()


def due(counts: UsageCounts, seconds: float) -> set[str]:
    return {key_id for entries in counts.take_due(NOON + int(seconds * 1_000), at_once=10) for key_id in entries}


def test_memory_is_bounded_and_says_what_it_dropped():
    counts = UsageCounts(limit=2)
    for number in range(5):
        counts.admitted(f"gbk_{number}", "8.8.8.8", NOON)
    counts.admitted("gbk_0", "8.8.8.8", NOON)
    assert set(counts.take_all()) == {"gbk_0", "gbk_1"}
    assert counts.dropped == 3


def test_of_many_keys_that_are_due_a_few_are_taken_at_once_and_the_others_stay_due(counts):
    for number in range(25):
        counts.admitted(f"gbk_{number}", "8.8.8.8", NOON)
    assert len(next(counts.take_due(NOON + 5_000, at_once=10))) == 10
    assert [len(entries) for entries in counts.take_due(NOON + 6_000, at_once=10)] == [10, 5]
    assert due(counts, 7) == set()


@pytest.mark.parametrize("news", ["another address", "a refusal"])
def test_another_address_and_a_refusal_are_news(counts, news):
    counts.admitted(KEY, "8.8.8.8", NOON)
    assert due(counts, 5) == {KEY}
    assert due(counts, 20) == set()
    if news == "a refusal":
        counts.refused(KEY, "rate_limited", "8.8.8.8", NOON + 20_000)
    else:
        counts.admitted(KEY, "9.9.9.9", NOON + 20_000)
    assert due(counts, 23) == set()
    assert due(counts, 25) == {KEY}


def test_a_key_that_is_no_longer_used_is_forgotten(counts):
    counts.admitted(KEY, "8.8.8.8", NOON)
    for entry in next(counts.take_due(NOON + 5_000, at_once=10)).values():
        entry.earlier, entry.admitted = [], 0
    assert remembered(counts)
    assert due(counts, 120) == set()
    assert remembered(counts) == {}
