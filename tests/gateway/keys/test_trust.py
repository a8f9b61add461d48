"""What may be believed, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import Cache
from gateway.keys.codec import DatedRecord
from gateway.keys.trust import CLOCKS_DIFFER_MS, TOMBSTONE_TTL_MS, Aged, Channels, Now, Shared, Trust
from tests.support.keys import NOW_MS, a_record

RECORD = a_record()
SETTINGS = Cache(local_ttl_ms=5_000, redis_ttl_ms=60_000, stale_limit_ms=30_000)
NOW = Now(1_000_000, NOW_MS)


def trust(*, postgres_up_ms: int | None = 0, redis_up_ms: int | None = 0) -> Trust:
    channels = Channels()
    channels.postgres_up_ms, channels.redis_up_ms = postgres_up_ms, redis_up_ms
    return Trust(channels)


@pytest.mark.parametrize(
    ("age_ms", "expected"),
    [
        (0, 1_000_000),
        (59_999, 1_000_000 - 59_999),
        (60_000, None),
        (-CLOCKS_DIFFER_MS, 1_000_000),
        (-CLOCKS_DIFFER_MS - 1, None),
    ],
)
def test_a_record_of_redis_is_as_old_as_its_seal_says_and_none_when_that_cannot_be(age_ms, expected):
    aged = trust().aged(Shared(b"", DatedRecord(RECORD, NOW_MS - age_ms, 60_000)), NOW)
    assert (aged and aged.read_ms) == expected


def test_nothing_and_a_tombstone_are_no_record():
    assert trust().aged(None, NOW) is None
    assert trust().aged(Shared(), NOW) is None
    assert trust().aged(Shared(b"changed 1", None, 1), NOW) is None


@pytest.mark.parametrize(
    ("age_ms", "up_since_ms", "missed_since_ms", "believed"),
    [
        (0, 100_000, 100_000, True),
        (3_000, 100_000, 100_000, True),
        (3_001, 100_000, 100_000, False),
        (100, None, 100_000, False),
        (100, 2_101, 100_000, True),
        (100, 2_100, 100_000, False),
        (100, 100_000, 2_100, False),
    ],
)
def test_a_record_of_redis_is_believed_while_it_is_young_and_every_change_since_was_heard(age_ms, up_since_ms, missed_since_ms, believed):
    """``…_since_ms``: how long ago."""
    judging = trust(postgres_up_ms=None if up_since_ms is None else NOW.ms - up_since_ms)
    judging.missed(NOW.ms - missed_since_ms)
    assert judging.believed(Aged(RECORD, NOW.ms - age_ms, 0), SETTINGS, NOW.ms) is believed


@pytest.mark.parametrize(
    ("read_ago_ms", "redis_up_ago_ms", "changed_ago_ms", "goes_on"),
    [
        (29_999, None, None, True),
        (30_000, None, None, False),
        (10_000_000, 10_000_000, None, True),
        (30_000, 29_999, None, False),
        (10_000, 100_000, 20_000, True),
        (10_000, 100_000, 12_000, False),
        (10_000, 100_000, 5_000, False),
    ],
)
def test_a_key_in_memory_goes_on_in_an_outage_within_its_limits(read_ago_ms, redis_up_ago_ms, changed_ago_ms, goes_on):
    now = Now(100_000_000, NOW_MS)
    judging = trust(redis_up_ms=None if redis_up_ago_ms is None else now.ms - redis_up_ago_ms)
    changed_wall_ms = None if changed_ago_ms is None else now.wall_ms - changed_ago_ms
    assert (now.ms < judging.goes_on_until(now.ms - read_ago_ms, changed_wall_ms, SETTINGS, now)) is goes_on


def test_redis_is_left_alone_for_a_changed_key_as_long_as_an_old_record_could_be_valid():
    judging = trust()
    judging.heard("a", NOW.ms)
    assert not judging.may_share("a", NOW.ms + TOMBSTONE_TTL_MS - 1)
    assert judging.may_share("a", NOW.ms + TOMBSTONE_TTL_MS)
    assert judging.may_share("b", NOW.ms)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, TOMBSTONE_TTL_MS)), max_size=60))
def test_whatever_is_heard_in_whatever_rhythm_no_changed_key_is_shared_too_early(steps):
    judging, now_ms, latest = trust(), 0, {}
    for key_id, pause_ms in steps:
        now_ms += pause_ms
        judging.heard(key_id, now_ms)
        latest[key_id] = now_ms
        for other, changed_ms in latest.items():
            assert judging.may_share(other, now_ms) is (now_ms >= changed_ms + TOMBSTONE_TTL_MS)
