"""Which records are valid, as tables."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.settings import Cache
from gateway.keys import trust as module
from gateway.keys.codec import DatedRecord
from gateway.keys.snapshot import parse_snapshot
from gateway.keys.trust import CLOCKS_DIFFER_MS, EVERY_KEY, FeedRead, Now, Trust
from tests.support.inside import changes_known, keys_changed
from tests.support.keys import NOW_MS, a_record

RECORD = a_record()
KEY = RECORD.key_id
SETTINGS = Cache(local_ttl_ms=5_000, redis_ttl_ms=60_000, stale_limit_ms=30_000)
NOW = Now(1_000_000, NOW_MS)
SERVER = 7


def a_read(position: str = "100:100:", *changes: tuple[str, int], server: int = SERVER, floor: int = 50, **members) -> FeedRead:
    return FeedRead(**{
        "at": NOW, "position": parse_snapshot(position), "server": server, "floor": floor, "pages": [list(changes)], **members,
    })  # fmt: skip


def a_trust(*reads: FeedRead, redis_up_ms: int | None = 0) -> Trust:
    trust = Trust()
    trust.redis_up_ms = redis_up_ms
    for read in reads:
        learn(trust, read)
    return trust


def learn(trust: Trust, read: FeedRead, at: Now = NOW) -> list[str]:
    """Record a read; returns the keys with new changes."""
    return learn_with_gap(trust, read, at)[0]


def learn_with_gap(trust: Trust, read: FeedRead, at: Now = NOW) -> tuple[list[str], str | None]:
    read = read._replace(at=at)
    gap = trust.expect(read)
    new = [key_id for page in read.pages or () for key_id in trust.changes.add(page)]
    trust.accept(read)
    return new, gap


def gap_before(trust: Trust, read: FeedRead) -> str | None:
    """What would be said of a read that is not recorded."""
    return learn_with_gap(deepcopy(trust), read)[1]


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
def test_a_record_in_redis_is_valid_when_no_change_is_known_that_it_lacks(record, changes, expected):
    assert a_trust(a_read("100:100:", *changes)).is_valid(record, SETTINGS, NOW) is expected


def test_nothing_in_redis_is_valid_without_the_feed_or_when_that_is_old():
    assert not a_trust().is_valid(dated(), SETTINGS, NOW)
    assert not a_trust(a_read()).is_valid(dated(), SETTINGS, Now(NOW.ms + 5_000, NOW.wall_ms))


def test_after_a_message_no_record_in_redis_of_that_key_is_valid_until_the_feed_was_read_once_more():
    trust = a_trust(a_read())
    trust.announce(KEY, NOW.ms + 1)
    for began_ms in (0, 1):  # the reads began before the message came, or at the same time
        learn(trust, a_read(), Now(NOW.ms + began_ms, NOW_MS))
        assert not trust.is_valid(dated(), SETTINGS, NOW)
    learn(trust, a_read(), Now(NOW.ms + 2, NOW_MS))
    assert trust.is_valid(dated(), SETTINGS, NOW)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30), st.integers(0, 30))
def test_however_many_changes_are_announced_none_is_taken_for_unchanged(keys, before):
    """By messages, some of them before the last read of the feed began."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_CHANGES", 3)
        trust = a_trust()
        for number, key in enumerate(keys):
            if number == before:
                learn(trust, a_read())
            trust.announce(key, NOW.ms)
        for key in keys[before:]:
            assert trust.fallback_valid_until_ms(dated()._replace(record=a_record(key_id=key)), NOW) == 0


def test_of_too_many_announced_changes_the_earlier_ones_are_forgotten_and_any_key_may_have_changed(monkeypatch):
    monkeypatch.setattr(module, "_MAX_CHANGES", 3)
    trust = a_trust(a_read())
    for key in ("a", "b", "c"):
        trust.announce(key, NOW.ms)
    assert trust.is_valid(dated(), SETTINGS, NOW)
    trust.announce("d", NOW.ms)
    assert not trust.is_valid(dated(), SETTINGS, NOW)
    learn(trust, a_read(), Now(NOW.ms + 1, NOW_MS))
    assert trust.is_valid(dated(), SETTINGS, NOW)


def test_an_announcement_during_a_read_is_not_in_that_read():
    trust = a_trust(a_read())
    trust.announce("another", NOW.ms)
    trust.announce(KEY, NOW.ms + 2)
    learn(trust, a_read(), Now(NOW.ms + 1, NOW_MS))
    assert not trust.is_valid(dated(), SETTINGS, NOW)
    assert trust.is_valid(dated()._replace(record=a_record(key_id="another")), SETTINGS, NOW)


def test_an_announced_change_is_not_known_before_the_changes_of_the_read_that_contains_it_are_added():
    """PostgreSQL answers this process's listener and not its look-ups, which go on with Redis between two pages of a read."""
    trust, read = a_trust(a_read()), a_read("110:110:", (KEY, 105), at=Now(NOW.ms + 2, NOW_MS))
    trust.announce(KEY, NOW.ms + 1)
    assert list(trust.changes.add([("another", 104)])) == ["another"]
    assert trust.fallback_valid_until_ms(dated(), NOW) == 0
    assert list(trust.changes.add([(KEY, 105)])) == [KEY]
    trust.accept(read)
    assert trust.fallback_valid_until_ms(dated(), NOW) == 0


def test_a_key_that_is_announced_again_is_announced_by_the_last_time():
    trust = a_trust()
    trust.announce(KEY, NOW.ms + 1)
    trust.announce(KEY, NOW.ms - 1)
    learn(trust, a_read())
    assert not trust.is_valid(dated(), SETTINGS, NOW)


def test_a_change_is_not_known_before_it_has_been_applied():
    """A defect may interrupt that: then the next read has to tell of it again."""
    trust = a_trust(a_read())
    page = [(KEY, 105), ("another", 106)]
    assert next(trust.changes.add(page)) == KEY
    assert keys_changed(trust) == []
    assert list(trust.changes.add(page)) == [KEY, "another"]
    assert sorted(keys_changed(trust)) == sorted([KEY, "another"])


@pytest.mark.parametrize(
    ("now_ms", "redis_up_ms", "expected_ms"),
    [
        (0, -1, 5_000),
        (4_999, None, 5_000),
        (5_000, -1, 5_250),  # no end as long as messages come
        (500_000, -1, 500_250),
        (5_000, None, 5_250),
        (29_900, None, 30_000),
        (40_000, None, 30_000),
        (40_000, 1, 30_000),  # they began to come after the feed was read
        (40_000, 0, 30_000),  # or in the same millisecond, before or after
    ],
)
def test_memory_is_valid_by_the_feed_then_by_messages_then_until_the_limit(now_ms, redis_up_ms, expected_ms):
    up_ms = None if redis_up_ms is None else NOW.ms + redis_up_ms
    assert a_trust(a_read(), redis_up_ms=up_ms).memory_valid_until_ms(SETTINGS, NOW.ms + now_ms) == NOW.ms + expected_ms


def test_memory_is_valid_by_the_last_read_whose_changes_are_applied():
    trust, later = a_trust(a_read()), Now(NOW.ms + 60_000, NOW_MS + 60_000)
    trust.redis_up_ms = NOW.ms + 60_000
    read = a_read("110:110:", (KEY, 80), at=later)
    assert list(trust.changes.add([(KEY, 80)])) == [KEY]
    assert not trust.is_feed_current(SETTINGS, later.ms)
    assert not trust.is_valid(dated(age_ms=-60_000), SETTINGS, later)
    assert trust.memory_valid_until_ms(SETTINGS, later.ms) <= later.ms
    trust.accept(read)
    assert trust.is_feed_current(SETTINGS, later.ms)
    assert trust.is_valid(dated(age_ms=-60_000), SETTINGS, later)
    assert trust.memory_valid_until_ms(SETTINGS, later.ms) == later.ms + 5_000


def test_memory_is_not_valid_before_the_feed_was_read():
    assert a_trust().memory_valid_until_ms(SETTINGS, NOW.ms) <= NOW.ms


@pytest.mark.parametrize(
    ("after", "gap"),
    [
        (a_read("100:100:"), None),
        (a_read("90:120:90"), None),
        (a_read("100:110:", floor=100), None),
        (a_read("100:110:", floor=101), "pruned"),
        (a_read("100:110:", (KEY, 60), server=8), "failed over"),
        (a_read("100:110:", (KEY, 60), server=8, floor=101), "failed over"),
    ],
)
def test_a_gap_between_two_reads_is_noticed(after, gap):
    found = gap_before(a_trust(a_read("100:100:", (KEY, 60))), after)
    assert (found is None) if gap is None else gap in str(found)


@pytest.mark.parametrize("after", [a_read("110:110:", (KEY, 105), server=8), a_read("110:110:", (KEY, 105), floor=101)])
def test_while_what_follows_a_gap_is_applied_no_record_is_used_whose_change_may_be_unknown(after):
    trust = a_trust(a_read("100:100:", (KEY, 60)))
    assert trust.is_valid(dated(), SETTINGS, NOW)
    assert trust.expect(after) is not None
    for server in (SERVER, 8):
        assert trust.is_valid(dated(server=server), SETTINGS, NOW) is (server == after.server == 8)
    assert list(trust.changes.add([(KEY, 105)])) == [KEY]
    for server in (SERVER, 8):
        assert not trust.is_valid(dated("90:105:", server=server), SETTINGS, NOW)
    trust.accept(after)
    assert trust.is_valid(dated("106:106:", server=after.server), SETTINGS, NOW)


def test_another_server_tells_everything_anew():
    trust = a_trust(a_read("100:100:", (KEY, 60)))
    assert learn(trust, a_read("100:100:", (KEY, 60), (KEY, 61))) == [KEY]
    assert learn(trust, a_read("100:100:", (KEY, 60), server=8)) == [KEY]


def test_without_postgresql_a_record_is_used_while_its_seal_is_valid_and_no_change_is_known():
    assert a_trust().fallback_valid_until_ms(dated(age_ms=10_000), NOW) == NOW.ms + 50_000
    assert a_trust(a_read("100:100:", (KEY, 89))).fallback_valid_until_ms(dated(), NOW) == NOW.ms + 60_000
    assert a_trust(a_read("100:100:", (KEY, 95))).fallback_valid_until_ms(dated(), NOW) == 0
    assert a_trust(a_read("100:100:"), a_read("100:100:", server=8)).fallback_valid_until_ms(dated(), NOW) == 0
    assert a_trust(a_read("100:100:"), a_read("100:100:", server=8)).fallback_valid_until_ms(dated(server=8), NOW) == NOW.ms + 60_000
    told = a_trust()
    told.announce(KEY, NOW.ms)
    assert told.fallback_valid_until_ms(dated(), NOW) == 0


@pytest.mark.parametrize(
    ("record", "valid_for_ms"),
    [
        (dated("50:50:"), 60_000),
        (dated("49:90:"), None),  # a change from before the feed begins may have been under way then
        (dated(age_ms=59_999), 1),
        (dated(age_ms=-CLOCKS_DIFFER_MS), 60_000),
        (dated(age_ms=-CLOCKS_DIFFER_MS - 1), None),
    ],
)
def test_without_postgresql_a_record_is_used_as_far_back_as_the_feed_goes_and_never_one_of_the_future(record, valid_for_ms):
    until_ms = a_trust(a_read("100:100:")).fallback_valid_until_ms(record, NOW)
    assert until_ms == (0 if valid_for_ms is None else NOW.ms + valid_for_ms)


def test_changes_are_kept_as_long_as_the_feed_holds_them():
    trust = a_trust(a_read("100:100:", (KEY, 95), ("another", 90), ("another", 97)))
    later = Now(NOW.ms + 3_600_000, NOW_MS)
    learn(trust, a_read("250:250:", floor=95), later)
    assert sorted(keys_changed(trust)) == sorted([KEY, "another"])
    learn(trust, a_read("300:300:", floor=96), later)
    assert keys_changed(trust) == ["another"]
    assert not trust.is_valid(dated("95:95:"), SETTINGS, later)
    assert trust.is_valid(dated("250:250:"), SETTINGS, later)


def test_a_read_prunes_a_bounded_number_of_changes(monkeypatch):
    monkeypatch.setattr(module, "_PRUNED_AT_ONCE", 2)
    trust = a_trust(a_read("100:100:", ("a", 60), ("b", 60), ("c", 60)))
    for left in (["c"], []):
        learn(trust, a_read("100:100:", floor=61))
        assert keys_changed(trust) == left


def test_a_key_that_has_changed_again_keeps_no_other_from_being_pruned():
    trust = a_trust(a_read("100:100:", ("a", 60), ("b", 60)), a_read("110:110:", ("a", 105)))
    learn(trust, a_read("110:110:", floor=61))
    assert keys_changed(trust) == ["a"]


def test_of_a_key_that_changes_for_ever_no_more_is_kept_than_of_the_feed():
    trust = a_trust(a_read("100:100:"))
    for xid in range(100, 200):
        learn(trust, a_read(f"{xid + 1}:{xid + 1}:", (KEY, xid), (EVERY_KEY, xid), floor=xid - 5))
    assert changes_known(trust, KEY) == changes_known(trust, EVERY_KEY) == tuple(range(193, 200))
    assert not trust.is_valid(dated("199:199:"), SETTINGS, NOW)
    assert trust.is_valid(dated("200:200:"), SETTINGS, NOW)


def test_too_many_changes_make_everything_before_them_invalid(monkeypatch):
    monkeypatch.setattr(module, "_MAX_CHANGES", 10)
    assert len(keys_changed(a_trust(a_read("100:100:", *((f"key {number}", 60) for number in range(10)))))) == 10
    trust = a_trust(a_read("100:100:", *((f"key {number}", 60) for number in range(20))))
    for _ in range(2):  # the feed's own floor is lower at the next read, too
        assert keys_changed(trust) == []
        assert not trust.is_valid(dated("99:99:"), SETTINGS, NOW)
        assert trust.is_valid(dated("100:100:"), SETTINGS, NOW)
        learn(trust, a_read("100:100:"))


def test_of_another_server_whose_changes_are_too_many_to_be_read_nothing_is_known():
    """Although as many transactions have begun on it as on the one before."""
    trust = a_trust(a_read("100:100:", (KEY, 95)), a_read("100:100:", server=8, floor=100, pages=None))
    for position, valid in (("99:99:", False), ("99:100:99", False), ("100:100:", True)):
        assert trust.is_valid(dated(position, server=8), SETTINGS, NOW) is valid


def test_before_anything_was_read_or_announced_nothing_is_valid():
    trust = Trust()
    assert (
        trust.memory_valid_until_ms(SETTINGS, NOW.ms),
        trust.is_feed_current(SETTINGS, 0),
        keys_changed(trust),
        trust.redis_up_ms,
    ) == (0, False, [], None)
    assert not trust.is_valid(dated(), SETTINGS, NOW)
    assert gap_before(trust, a_read("100:100:", (KEY, 1))) is None
    assert learn(trust, a_read("100:100:", (KEY, 1))) == [KEY]
