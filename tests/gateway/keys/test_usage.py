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
    return set(counts.take(NOON + int(seconds * 1_000)))


def test_memory_is_bounded_and_says_what_it_dropped():
    counts = UsageCounts(limit=2)
    for number in range(5):
        counts.admitted(f"gbk_{number}", "8.8.8.8", NOON)
    counts.admitted("gbk_0", "8.8.8.8", NOON)
    assert set(counts.take()) == {"gbk_0", "gbk_1"}
    assert counts.dropped == 3


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
    for entry in counts.take(NOON + 5_000).values():
        entry.earlier, entry.admitted = [], 0
    assert remembered(counts)
    assert due(counts, 120) == set()
    assert remembered(counts) == {}
