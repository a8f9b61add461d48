"""What may be believed, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import Cache
from gateway.keys import trust as module
from gateway.keys.codec import DatedRecord
from gateway.keys.snapshot import parse_snapshot
from gateway.keys.trust import CLOCKS_DIFFER_MS, EVERY_KEY, FeedRead, Now, Trust
from tests.support.keys import NOW_MS, a_record

RECORD = a_record()
KEY = RECORD.key_id
SETTINGS = Cache(local_ttl_ms=5_000, redis_ttl_ms=60_000, stale_limit_ms=30_000)
NOW = Now(1_000_000, NOW_MS)
SERVER = 7


def a_read(position: str = "100:100:", *changes: tuple[str, int], server: int = SERVER, floor: int = 50, **members) -> FeedRead:
    return FeedRead(**{
        "position": parse_snapshot(position), "server": server, "floor": floor, "mark": "m", "mark_is_there": True,
        "changes": list(changes), **members,
    })  # fmt: skip


def a_trust(*reads: FeedRead, redis_up_ms: int | None = 0) -> Trust:
    trust = Trust()
    trust.redis_up_ms = redis_up_ms
    for read in reads:
        trust.learn(read, NOW, trust.number)
    return trust


def dated(position: str = "90:90:", *, age_ms: int = 0, server: int = SERVER) -> DatedRecord:
    return DatedRecord(RECORD, NOW_MS - age_ms, 60_000, parse_snapshot(position), server)


@pytest.mark.parametrize(
    ("record", "changes", "expected"),
    [
        (dated(), [], True),
        (dated(age_ms=59_999), [], True),
        (dated(age_ms=60_000), [], False),
        (dated(age_ms=-CLOCKS_DIFFER_MS), [], True),
        (dated(age_ms=-CLOCKS_DIFFER_MS - 1), [], False),
        (dated(server=8), [], False),
        (dated("50:50:"), [], True),
        (dated("49:90:"), [], False),  # a change from before the feed begins may have been under way then
        (dated(), [(KEY, 89)], True),
        (dated(), [(KEY, 90)], False),
        (dated("80:90:85"), [(KEY, 85)], False),  # it was under way when the record was read
        (dated("80:90:85"), [(KEY, 86)], True),
        (dated("80:90:85"), [(KEY, 85), (KEY, 86)], False),
        (dated(), [("another", 95)], True),
        (dated(), [(EVERY_KEY, 95)], False),
        (dated(), [(EVERY_KEY, 85)], True),
    ],
)
def test_a_record_of_redis_is_believed_when_no_change_is_known_that_it_lacks(record, changes, expected):
    assert a_trust(a_read("100:100:", *changes)).believes(record, SETTINGS, NOW) is expected


def test_nothing_of_redis_is_believed_without_the_feed_or_when_it_is_old():
    assert not a_trust().believes(dated(), SETTINGS, NOW)
    assert not a_trust(a_read()).believes(dated(), SETTINGS, Now(NOW.ms + 5_000, NOW.wall_ms))


def test_after_a_message_redis_is_not_believed_for_that_key_until_the_feed_was_read_once_more():
    trust = a_trust(a_read())
    began = trust.number
    trust.hear(KEY, told=True)
    trust.learn(a_read(), NOW, began)  # a read that began before the message came
    assert not trust.believes(dated(), SETTINGS, NOW)
    trust.learn(a_read(), NOW, trust.number)
    assert trust.believes(dated(), SETTINGS, NOW)


@pytest.mark.parametrize("told", [False, True])
def test_what_was_heard_since_is_known(told):
    trust = a_trust(a_read())
    before = trust.number
    trust.hear(KEY, told=told)
    assert trust.heard_since(KEY, before)
    assert not trust.heard_since(KEY, trust.number)
    assert not trust.heard_since("another", before)
    trust.hear_all()
    assert trust.heard_since("another", before)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30), st.integers(0, 30))
def test_however_much_is_heard_nothing_heard_is_taken_for_unheard(keys, since):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST", 3)
        patch.setattr(module, "_MOST_HEARD", 3)
        trust = a_trust()
        for key in keys:
            trust.hear(key, told=True)
        for number, key in enumerate(keys, start=1):
            assert number <= since or trust.heard_since(key, since)
            assert trust.usable_until_ms(dated()._replace(record=a_record(key_id=key)), NOW) == 0


@pytest.mark.parametrize(
    ("now_ms", "redis_up_ms", "expected_ms"),
    [
        (0, 0, 5_000),
        (4_999, None, 5_000),
        (5_000, 0, 5_250),  # no end as long as messages come
        (500_000, 0, 500_250),
        (5_000, None, 5_250),
        (29_900, None, 30_000),
        (40_000, None, 30_000),
        (40_000, 1, 30_000),  # they began to come after the feed was read
    ],
)
def test_memory_is_believed_by_the_feed_then_by_messages_then_until_the_limit(now_ms, redis_up_ms, expected_ms):
    up_ms = None if redis_up_ms is None else NOW.ms + redis_up_ms
    assert a_trust(a_read(), redis_up_ms=up_ms).until_ms(SETTINGS, NOW.ms + now_ms) == NOW.ms + expected_ms


def test_memory_is_not_believed_before_the_feed_was_read():
    assert a_trust().until_ms(SETTINGS, NOW.ms) <= NOW.ms


@pytest.mark.parametrize(
    ("after", "gap"),
    [
        (a_read("100:100:"), None),
        (a_read("90:120:90"), None),
        (a_read("100:110:", floor=100), None),
        (a_read("100:110:", floor=101), "pruned"),
        (a_read("90:99:"), "from before"),
        (a_read("100:110:", mark="n", mark_is_there=False), "another history"),
        (a_read("100:110:", server=8), None),
        (a_read("90:99:", server=8), "from before"),
        (a_read("100:110:", (KEY, 60), (KEY, 105), server=8), None),
        (a_read("100:110:", (KEY, 105), server=8), "without the latest changes"),
        (a_read("100:110:", (KEY, 105), server=8, floor=61), None),
    ],
)
def test_a_gap_between_two_reads_is_noticed(after, gap):
    before = a_read("100:100:", (KEY, 60)) if after.changes else a_read("100:100:")
    found = a_trust(before).gap(after)
    assert (found is None) if gap is None else gap in str(found)


def test_another_server_tells_everything_anew():
    trust = a_trust(a_read("100:100:", (KEY, 60)))
    assert trust.news(a_read("100:100:", (KEY, 60), (KEY, 61))) == [(KEY, 61)]
    assert trust.news(a_read("100:100:", (KEY, 60), server=8)) == [(KEY, 60)]


def test_without_postgresql_a_record_is_used_while_its_seal_is_valid_and_no_change_is_known():
    assert a_trust().usable_until_ms(dated(age_ms=10_000), NOW) == NOW.ms + 50_000
    assert a_trust(a_read("100:100:", (KEY, 89))).usable_until_ms(dated(), NOW) == NOW.ms + 60_000
    assert a_trust(a_read("100:100:", (KEY, 95))).usable_until_ms(dated(), NOW) == 0
    assert a_trust(a_read("100:100:"), a_read("100:100:", server=8)).usable_until_ms(dated(), NOW) == NOW.ms + 60_000
    assert a_trust(a_read("100:100:"), a_read("100:100:", server=8)).usable_until_ms(dated("90:101:"), NOW) == 0
    assert a_trust(a_read("100:100:"), a_read("99:99:", server=8)).usable_until_ms(dated(), NOW) == 0
    assert a_trust(a_read("100:100:"), a_read("100:100:", (KEY, 95), server=8)).usable_until_ms(dated(), NOW) == 0
    assert a_trust(a_read("100:100:", server=8)).usable_until_ms(dated(), NOW) == 0
    told = a_trust()
    told.hear(KEY, told=True)
    assert told.usable_until_ms(dated(), NOW) == 0


def test_changes_are_kept_as_long_as_the_feed_holds_them():
    trust = a_trust(a_read("100:100:", (KEY, 95), ("another", 90), ("another", 97)))
    later = Now(NOW.ms + 3_600_000, NOW_MS)
    trust.learn(a_read("250:250:", floor=95), later, trust.number)
    assert sorted(trust.recent()) == sorted([KEY, "another"])
    trust.learn(a_read("300:300:", floor=96), later, trust.number)
    assert trust.recent() == ["another"]
    assert not trust.believes(dated("95:95:"), SETTINGS, later)
    assert trust.believes(dated("250:250:"), SETTINGS, later)


def test_a_database_that_lacks_a_change_of_an_hour_ago_is_noticed_without_marks():
    """While no admin service runs, nobody makes marks, and nobody prunes."""
    trust = a_trust(a_read("100:100:", (KEY, 95)))
    trust.learn(a_read("100:100:"), Now(NOW.ms + 3_600_000, NOW_MS), trust.number)
    assert trust.gap(a_read("120:120:", (KEY, 95), server=8)) is None
    assert "without the latest changes" in str(trust.gap(a_read("120:120:", ("another", 95), server=8)))


def test_too_many_changes_make_everything_before_them_unbelieved(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 10)
    trust = a_trust(a_read("100:100:", *((f"key {number}", 60) for number in range(20))))
    assert trust.recent() == []
    assert not trust.believes(dated("99:99:"), SETTINGS, NOW)
    assert trust.believes(dated("100:100:"), SETTINGS, NOW)


def test_each_hearing_has_a_number_of_its_own():
    trust = a_trust()
    numbers = []
    for heard in (lambda: trust.hear(KEY), lambda: trust.hear("another"), lambda: trust.hear(KEY, told=True), trust.hear_all):
        numbers.append(trust.number)
        heard()
    assert numbers == [0, 1, 2, 3]
    assert trust.number == 4
    assert [trust.heard_since(KEY, number) for number in (0, 1, 2, 3, 4)] == [True] * 4 + [False]


def test_of_two_hearings_of_a_key_the_later_one_counts():
    trust = a_trust()
    trust.hear(KEY)
    trust.hear("another")
    trust.hear(KEY)
    assert [trust.heard_since(KEY, number) for number in (1, 2, 3)] == [True, True, False]
    assert [trust.heard_since("another", number) for number in (1, 2)] == [True, False]
    assert not trust.heard_since("a third", 0)


def test_before_anything_was_read_or_heard_nothing_is_believed():
    trust = Trust()
    assert (trust.until_ms(SETTINGS, NOW.ms), trust.is_current(SETTINGS, 0), trust.is_ours(SERVER), trust.recent()) == (0, False, False, [])
    assert not trust.believes(dated(), SETTINGS, NOW)
    assert trust.news(a_read("100:100:", (KEY, 1))) == [(KEY, 1)]
