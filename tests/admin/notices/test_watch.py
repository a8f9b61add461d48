"""What nobody does, found: first uses, refused addresses, expiries, unused keys."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from admin import audit
from admin.config import Keys
from admin.notices.delivery import DAY_MS
from admin.notices.watch import Watch
from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import store
from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from gateway.telemetry import Metrics
from tests.support.keys import a_record
from tests.support.notices import add_account

VAULT = Vault.parse(new_entry("test"))
NOW = 1_764_000_000_000
HOUR_MS = 3_600_000


async def add_key(stores: Stores, **changes: Any) -> str:
    record = a_record(label="My bot", created_ms=NOW, **changes)
    async with stores.transaction() as connection:
        await store.insert(connection, record, VAULT)
    return record.key_id


async def told(owner: Any) -> list[tuple[str, dict[str, Any]]]:
    rows = await owner.fetch("SELECT topic, detail FROM notices ORDER BY seq")
    return [(row["topic"], json.loads(row["detail"])) for row in rows]


async def count(stores: Stores, now_ms: int, *uses: tuple[str, str, str]) -> None:
    """As a gateway does: key, address and what became of the request."""
    counts = UsageCounts()
    for key_id, address, code in uses:
        if code:
            counts.refused(key_id, code, address, now_ms)
        else:
            counts.admitted(key_id, address, now_ms)
    await UsageWriter(counts, stores.redis, Metrics()).flush(now_ms, everything=True)


@pytest.fixture(autouse=True)
async def alice(owner: Any) -> None:
    await add_account(owner, "alice", email="alice@mail.example")


async def test_the_first_use_is_told_once(stores: Stores, owner: Any) -> None:
    key_id = await add_key(stores)
    watch = Watch(stores, Keys())
    await watch.uses(NOW)
    assert await told(owner) == []
    await count(stores, NOW + 1, (key_id, "8.8.8.8", ""))
    await watch.uses(NOW + 2)
    await count(stores, NOW + 2 * HOUR_MS, (key_id, "8.8.4.4", ""))
    await watch.uses(NOW + 2 * HOUR_MS)
    await Watch(stores, Keys()).uses(NOW + 2 * HOUR_MS)  # another process, which begins with the last week
    assert await told(owner) == [("key.first_used", {"label": "My bot", "client_ip": "8.8.8.8"})]
    assert await owner.fetchval("SELECT (first_ms, last_ms) = ($1, $2) FROM key_activity", NOW + 1, NOW + 2 * HOUR_MS)


async def test_a_refused_address_is_told_once_a_day_and_no_more_than_ten_a_day(stores: Stores, owner: Any) -> None:
    key_id = await add_key(stores)
    watch = Watch(stores, Keys())
    day = NOW // DAY_MS * DAY_MS
    for moment in (day, day + HOUR_MS, day + DAY_MS):
        await count(stores, moment, (key_id, "1.1.1.1", "ip_not_allowed"), (key_id, "9.9.9.9", "scope_not_granted"))
        await watch.uses(moment)
        await Watch(stores, Keys()).uses(moment)
    assert [detail["client_ip"] for _, detail in await told(owner)] == ["1.1.1.1", "1.1.1.1"]
    await count(stores, day + 2 * DAY_MS, *((key_id, f"2001:db8::{number}", "ip_not_allowed") for number in range(30)))
    await watch.uses(day + 2 * DAY_MS)
    assert len(await told(owner)) == 2 + 10


async def test_what_somebody_put_into_redis_tells_nothing_it_should_not(stores: Stores, owner: Any) -> None:
    key_id = await add_key(stores)
    await count(stores, NOW, (key_id, "evil\r\nBcc: x", "ip_not_allowed"), ("gbk_0123456789abcdefghijklmnopqr", "8.8.8.8", ""))
    await stores.redis.zadd("gerbang:active", {"nonsense": NOW, "'; DROP TABLE notices": NOW})
    await count(stores, NOW + 10 * DAY_MS, (key_id, "8.8.8.8", "ip_not_allowed"), (key_id, "1.2.3.4", ""))
    await Watch(stores, Keys()).uses(NOW)
    assert await told(owner) == [("key.first_used", {"label": "My bot", "client_ip": "1.2.3.4"})]
    assert await owner.fetchval("SELECT last_ms FROM key_activity") == NOW


async def test_an_expiry_is_told_a_week_before_a_day_before_and_when_it_has_come(stores: Stores, owner: Any) -> None:
    await add_key(stores, expires_ms=NOW + 30 * DAY_MS)
    await add_key(stores)
    watch = Watch(stores, Keys())
    for days in (0, 22, 23, 23.5, 28.9, 29, 29.5, 30, 31):
        await watch.expiries(NOW + int(days * DAY_MS))
    found = await told(owner)
    assert [(topic, detail.get("days_left")) for topic, detail in found] == [
        ("key.expiring", 7),
        ("key.expiring", 1),
        ("key.expired", None),
    ]
    assert {detail["expires_at_ms"] for _, detail in found} == {NOW + 30 * DAY_MS}


async def test_of_warnings_that_were_missed_only_the_last_one_is_told(stores: Stores, owner: Any) -> None:
    await add_key(stores, expires_ms=NOW + 10 * DAY_MS)
    await Watch(stores, Keys()).expiries(NOW + 9 * DAY_MS + 1)
    await Watch(stores, Keys()).expiries(NOW + 9 * DAY_MS + 2)
    assert [(topic, detail["days_left"]) for topic, detail in await told(owner)] == [("key.expiring", 1)]


@pytest.mark.parametrize(("life", "mailed"), [(1, []), (5, [1]), (7, [1]), (8, [7, 1])])
async def test_what_the_mail_of_a_keys_creation_said_is_not_mailed_again_in_the_same_minute(
    stores: Stores, owner: Any, life: int, mailed: list[int]
) -> None:
    await add_key(stores, expires_ms=NOW + life * DAY_MS)
    for day in range(life + 1):
        await Watch(stores, Keys()).expiries(NOW + day * DAY_MS + 1)
    rows = await owner.fetch("SELECT detail FROM notices JOIN notice_deliveries USING (seq) WHERE channel = $1 ORDER BY seq", "mail")
    days = [json.loads(row["detail"]).get("days_left") for row in rows]
    assert days == [*mailed, None], "and each has its mail when it has expired"
    assert [topic for topic, _ in await told(owner)].count("key.expiring") == (1 if life == 1 else 2), "programs are told of each"


async def test_hundreds_of_keys_that_expire_at_once_are_all_told(stores: Stores, owner: Any) -> None:
    for _ in range(250):
        await add_key(stores, expires_ms=NOW + DAY_MS)
    await Watch(stores, Keys()).expiries(NOW + DAY_MS)
    assert [topic for topic, _ in await told(owner)] == ["key.expired"] * 250


async def test_an_unused_key_is_warned_of_and_ends(stores: Stores, owner: Any) -> None:
    key_id = await add_key(stores)
    watch = Watch(stores, Keys(idle_days=30))
    for days in (0, 22, 23, 28, 29, 30, 31):
        await watch.unused(NOW + int(days * DAY_MS))
    found = await told(owner)
    assert [(topic, detail.get("cause"), detail.get("days_left")) for topic, detail in found] == [
        ("key.expiring", "idle", 7), ("key.expiring", "idle", 1), ("key.idle", None, None),
    ]  # fmt: skip
    async with stores.transaction() as connection:
        key = await store.get(connection, key_id)
        (event,) = await audit.list_for_account(connection, "alice", limit=5)
    assert key is not None
    assert (key.ended_idle, key.revoked_ms, key.revoked_reason) == (True, NOW + 30 * DAY_MS, "idle")
    assert (event.event, event.actor) == ("key_idle", "system")


async def test_a_use_begins_the_time_anew(stores: Stores, owner: Any) -> None:
    key_id = await add_key(stores)
    watch = Watch(stores, Keys(idle_days=30))
    await watch.unused(NOW + 25 * DAY_MS)
    await count(stores, NOW + 26 * DAY_MS, (key_id, "8.8.8.8", ""))
    await watch.unused(NOW + 31 * DAY_MS)  # nobody has looked at uses yet: it asks before it ends anything
    await watch.unused(NOW + 50 * DAY_MS)
    await watch.unused(NOW + 56 * DAY_MS)
    assert [topic for topic, _ in await told(owner)] == ["key.expiring", "key.expiring", "key.idle"]


async def test_no_key_ends_while_redis_cannot_say_whether_it_was_used(stores: Stores, owner: Any) -> None:
    await add_key(stores)

    class Down:
        def pipeline(self, **_options: object) -> Any:
            raise OSError

    with pytest.raises(StoreUnavailable):
        await Watch(Stores(stores.pool, Down()), Keys(idle_days=1)).unused(NOW + 9 * DAY_MS)
    assert await told(owner) == []


async def test_by_default_keys_live_for_ever_and_short_times_are_not_warned_of_all_the_time(stores: Stores, owner: Any) -> None:
    await add_key(stores)
    await Watch(stores, Keys()).unused(NOW + 10_000 * DAY_MS)
    await Watch(stores, Keys(idle_days=7)).unused(NOW + DAY_MS)
    assert await told(owner) == []
    await Watch(stores, Keys(idle_days=7)).unused(NOW + 6 * DAY_MS)
    assert [detail["days_left"] for _, detail in await told(owner)] == [1]


async def test_an_expired_key_does_not_end_for_want_of_use_as_well(stores: Stores, owner: Any) -> None:
    await add_key(stores, expires_ms=NOW + DAY_MS)
    watch = Watch(stores, Keys(idle_days=3))
    await watch.expiries(NOW + 5 * DAY_MS)
    await watch.unused(NOW + 5 * DAY_MS)
    assert [topic for topic, _ in await told(owner)] == ["key.expired"]


async def test_no_key_ends_and_none_expires_by_a_clock_that_is_ahead_of_postgres(stores: Stores, owner: Any) -> None:
    now_ms = clock.now_ms()
    record = a_record(label="My bot", created_ms=now_ms, expires_ms=now_ms + 20 * DAY_MS)
    async with stores.transaction() as connection:
        await store.insert(connection, record, VAULT)
    watch = Watch(stores, Keys(idle_days=10))
    with capture_logs() as lines:
        await watch.unused(now_ms + 15 * DAY_MS)
        await watch.expiries(now_ms + 30 * DAY_MS)
    assert await told(owner) == []
    assert await owner.fetchval("SELECT revoked_at FROM api_keys") is None
    assert [line["event"] for line in lines] == ["clock_ahead", "clock_ahead"]


async def test_what_happens_after_the_clock_was_set_back_is_told(stores: Stores, owner: Any) -> None:
    key_id = await add_key(stores)
    watch = Watch(stores, Keys())
    await watch.uses(NOW + DAY_MS)
    await count(stores, NOW, (key_id, "1.1.1.1", "ip_not_allowed"))
    await watch.uses(NOW + 1)
    assert [topic for topic, _ in await told(owner)] == ["key.refused_new_address"]
