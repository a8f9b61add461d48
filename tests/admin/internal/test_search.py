"""Searches of the back office: every filter, exact counts, whole pages; and the revocation of what was found, all of it or none."""

from ipaddress import ip_address

import asyncpg
import redis.asyncio as redis

from admin.notices import activity
from gateway.keys import store
from gateway.keys.ids import new_key_id, new_secret
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter
from gateway.keys.vault import Vault
from gateway.runtime import clock
from gateway.telemetry import Metrics
from tests.support.admin import Customer, Service
from tests.support.stack import Database, sql


async def made(customer: Customer, label: str = "My bot", scopes: str = "read", addresses: tuple[str, ...] | None = ("8.8.8.8",)) -> str:
    """A key as the service stores it: a code of an authenticator app is good for one only."""
    global _made  # noqa: PLW0603  # each is younger than the one before
    _made += 1
    settings = customer.service.settings
    record = KeyRecord(
        key_id=new_key_id(),
        account_id=customer.account,
        label=label,
        scopes=frozenset(map(Scope, scopes.split())),
        algorithm=Algorithm.HMAC_SHA256,
        secret=new_secret(),
        public_key=None,
        ip_allowlist=None if addresses is None else tuple(map(ip_address, addresses)),
        created_ms=clock.now_ms() + _made,
        expires_ms=None,
        frozen=False,
    )
    connection = await asyncpg.connect(settings.stores.postgres.get_secret_value())
    await store.insert(connection, record, Vault.parse(settings.vault.keys.get_secret_value()))
    await connection.close()
    return record.key_id


_made = 0


async def ids(service: Service, query: str) -> list[str]:
    found = await service.operator("GET", f"keys?{query}")
    assert found.status == 200, found.text
    assert found.body["count"] == len(found.body["keys"])
    return [key["id"] for key in found.body["keys"]]


async def used(redis_url: str, *, admitted: dict[str, str] | None = None, refused: dict[str, str] | None = None) -> None:
    """Requests as a gateway counts them: key to client address."""
    counts, now_ms = UsageCounts(), clock.now_ms()
    for key_id, address in (admitted or {}).items():
        counts.admitted(key_id, address, now_ms)
    for key_id, address in (refused or {}).items():
        for code in ("ip_not_allowed", "ip_not_allowed", "scope_not_granted"):
            counts.refused(key_id, code, address, now_ms)
    async with redis.Redis.from_url(redis_url) as client:
        await UsageWriter(counts, client, Metrics()).flush(now_ms, everything=True)


async def test_each_filter_narrows_and_the_count_is_exact(alice: Customer, service: Service, redis_url: str) -> None:
    bob = service.customer("bob", email="Bob@Example.com")
    await bob.call("GET", "account")
    reader = await made(alice, label="Tax report")
    trader = await made(alice, label="Grid 100%", scopes="read trade", addresses=("8.8.4.4", "2606:4700::1"))
    open_one = await made(bob, label="tax bot", addresses=None)
    await used(redis_url, admitted={trader: "8.8.4.4"})
    everything = [reader, trader, open_one]
    for query, wanted in {
        "": everything,
        "account=alice": [reader, trader],
        "account=nobody": [],
        "email=bob%40example": [open_one],
        "label=TAX": [reader, open_one],
        "label=100%25": [trader],
        "label=_": [],
        "ip=8.8.4.4": [trader],
        "ip=8.8.0.0%2F16": [reader, trader],
        "ip=2606%3A4700%3A%3A%2F32": [trader],
        "scope=trade": [trader],
        "unrestricted=true": [open_one],
        "unrestricted=false": [reader, trader],
        "unused_since=1h": [reader, open_one],
        "unused_since=2999-01-01": everything,
        "unused_since=1h&account=alice": [reader],
        "since=1h": everything,
        "until=1h": [],
        "label=tax&unrestricted=true&scope=read": [open_one],
    }.items():
        assert await ids(service, query) == wanted, query
    for query, field in {
        "scope=write": "scope",
        "ip=home": "ip",
        "since=yesterday": "since",
        "colour=red": "colour",
        "cursor=x": "cursor",
    }.items():
        refused = await service.operator("GET", f"keys?{query}")
        assert (refused.status, refused.errors[0][0]) == (422, field)


async def test_a_use_that_redis_has_lost_is_a_use_still(alice: Customer, service: Service, redis_url: str) -> None:
    """Or a revocation of unused keys after a loss of Redis' data would end those in use."""
    idle, trader = await made(alice), await made(alice)
    await used(redis_url, admitted={trader: "8.8.4.4"})
    assert await ids(service, "unused_since=1h") == [idle]
    connection = await asyncpg.connect(service.settings.stores.postgres.get_secret_value())
    await activity.note_uses(connection, {trader: clock.now_ms()})  # as the watch for first uses does
    await connection.close()
    async with redis.Redis.from_url(redis_url) as client:
        await client.flushdb()
    assert await ids(service, "unused_since=1h") == [idle]
    assert await ids(service, "unused_since=2999-01-01") == [idle, trader]


async def test_pages_show_each_key_once_and_every_page_the_whole_count(alice: Customer, service: Service) -> None:
    wanted = [await made(alice) for _ in range(5)]
    seen, cursor = [], ""
    while True:
        page = (await service.operator("GET", f"keys?limit=2{cursor}")).body
        assert page["count"] == 5
        seen += [key["id"] for key in page["keys"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == wanted


async def test_accounts_are_found_by_what_the_office_knows_of_them(alice: Customer, service: Service) -> None:
    await made(alice)
    await service.customer("bob", email="bob@example.com").call("GET", "account")
    await service.operator("POST", "accounts/bob/freeze")
    for query, wanted in {
        "": ["alice", "bob"],
        "email=BOB%40": ["bob"],
        "account=alice": ["alice"],
        "frozen=true": ["bob"],
        "kyc=revoked": [],
        "until=2d": [],
    }.items():
        found = (await service.operator("GET", f"accounts?{query}")).body
        assert ([one["id"] for one in found["accounts"]], found["count"]) == (wanted, len(wanted)), query
    first = (await service.operator("GET", "accounts?limit=1")).body
    second = (await service.operator("GET", f"accounts?limit=1&cursor={first['next_cursor']}")).body
    assert [first["accounts"][0]["id"], second["accounts"][0]["id"], second["next_cursor"]] == ["alice", "bob", None]
    assert (first["count"], first["accounts"][0]["keys"]) == (2, 1)


async def test_refusals_of_an_account_are_answered_from_the_usage_data(alice: Customer, service: Service, redis_url: str) -> None:
    key_id = await made(alice)
    await used(redis_url, refused={key_id: "203.0.113.9"})
    found = (await service.operator("GET", "refusals?account=alice")).body
    codes = sorted(each["code"] for each in found["refusals"])
    assert (codes, found["count"]) == (["ip_not_allowed", "ip_not_allowed", "scope_not_granted"], 3)
    assert {(each["key_id"], each["account_id"], each["client_ip"]) for each in found["refusals"]} == {(key_id, "alice", "203.0.113.9")}
    for query, count in {"code=scope_not_granted": 1, "ip=203.0.113.0%2F24": 3, "ip=8.8.8.8": 0, "until=1h": 0, "account=bob": 0}.items():
        assert (await service.operator("GET", f"refusals?{query}")).body["count"] == count, query
    pages, cursor = [], ""
    for _ in range(3):
        page = (await service.operator("GET", f"refusals?limit=1{cursor}")).body
        pages += [each["code"] for each in page["refusals"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert (sorted(pages), page["next_cursor"]) == (codes, None)


async def test_what_was_counted_is_revoked_and_nothing_when_the_count_has_changed(
    alice: Customer, service: Service, database: Database
) -> None:
    wanted = sorted([await made(alice, label=f"leaked {number}") for number in range(3)])
    other = await made(alice, label="other")
    where = {"label": "leaked"}
    dry = (await service.operator("POST", "keys/revoke", {"where": where, "dry_run": True})).body
    assert (sorted(dry["keys"]), dry["count"], dry["revoked"]) == (wanted, 3, False)
    refused = await service.operator("POST", "keys/revoke", {"where": where, "expected_count": 2, "reason": "leaked"})
    assert (refused.status, refused.code, refused.body["count"]) == (409, "count_changed", 3)
    assert sql(database.server, "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL", database.name).strip() == "4"
    done = await service.operator("POST", "keys/revoke", {"where": where, "expected_count": 3, "reason": "leaked"})
    assert (done.status, sorted(done.body["keys"]), done.body["revoked"]) == (200, wanted, True)
    assert (await service.operator("GET", f"keys/{other}")).body["status"] == "active"
    events = (await service.operator("GET", "audit?event=key_revoked")).body
    assert (sorted(event["key_id"] for event in events["events"]), events["count"]) == (wanted, 3)
    (bulk,) = (await service.operator("GET", "audit?event=keys_revoked")).body["events"]
    assert (bulk["actor"], bulk["detail"]) == ("operator", {"count": 3, "where": where, "reason": "leaked"})
    again = await service.operator("POST", "keys/revoke", {"where": where, "expected_count": 3, "reason": "leaked"})
    assert (again.code, again.body["count"]) == ("count_changed", 0)


async def test_a_thousand_keys_are_revoked_in_one_call_each_with_its_entry(alice: Customer, service: Service, database: Database) -> None:
    """More than one page, one message of a store, or one exchange a key could bear."""
    sql(
        database.server,
        "INSERT INTO api_keys (id, account_id, label, scopes, algorithm, public_key, created_at) SELECT 'gbk_' || lpad(n::text, 28, '0'),"
        " 'alice', 'many', '{read}', 'ed25519', 'x', now() FROM generate_series(1, 1000) AS n",
        database.name,
    )
    where = {"label": "many"}
    refused = await service.operator("POST", "keys/revoke", {"where": where, "expected_count": 999, "reason": "leaked"})
    assert (refused.status, refused.body["count"]) == (409, 1000)
    done = await service.operator("POST", "keys/revoke", {"where": where, "expected_count": 1000, "reason": "leaked"})
    assert (done.status, done.body["count"]) == (200, 1000)
    assert (await service.operator("GET", "audit?event=key_revoked&limit=1")).body["count"] == 1000
    assert sql(database.server, "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL", database.name).strip() == "0"


async def test_an_event_that_there_is_not_is_refused_with_those_that_there_are(service: Service) -> None:
    refused = await service.operator("GET", "audit?event=key_revokd")
    assert refused.status == 422
    assert "key_revoked" in refused.text
    assert (await service.operator("GET", "audit?event=keys_revoked")).status == 200


async def test_a_revocation_of_everything_or_without_count_or_reason_is_refused(service: Service) -> None:
    for body in (
        {"where": {}, "expected_count": 0, "reason": "x"},
        {"where": {"label": "x"}, "reason": "x"},
        {"where": {"label": "x"}, "expected_count": 0},
        {"where": {"label": "x"}, "expected_count": 0, "reason": " "},
        {"where": {"colour": "red"}, "expected_count": 0, "reason": "x"},
        {"expected_count": 0, "reason": "x"},
    ):
        assert (await service.operator("POST", "keys/revoke", body)).status == 422, body


async def test_what_is_so_already_is_said_and_a_further_reason_is_kept(alice: Customer, service: Service, redis_url: str) -> None:
    key_id = await made(alice)
    await used(redis_url, admitted={key_id: "8.8.8.8"})
    first = (await service.operator("POST", f"keys/{key_id}/revoke", {"reason": "first"})).body
    again = (await service.operator("POST", f"keys/{key_id}/revoke", {"reason": "second"})).body
    assert [(each["changed"], each["revoked_reason"]) for each in (first, again)] == [(True, "first"), (False, "first")]
    (noted,) = (await service.operator("GET", f"audit?key={key_id}&event=operator_note")).body["events"]
    assert noted["detail"] == {"about": "key_revoked", "reason": "second"}
    (shown,) = (await service.operator("GET", "accounts/alice")).body["keys"]
    assert shown["last_used_ip"] == "8.8.8.8"
    changed = [(await service.operator("POST", "accounts/alice/freeze")).body["changed"] for _ in range(2)]
    assert changed == [True, False]
