"""The back office: KYC, freeze and thaw, revocation; each stops keys at once and is audited."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import redis.asyncio as redis

from gateway.runtime import clock
from tests.support.admin import KEY, Customer, Service
from tests.support.stack import Database, sql


async def status(customer: Customer, key_id: str) -> str:
    return str((await customer.call("GET", f"keys/{key_id}")).body["status"])


async def gate_sees(database: Database) -> list[Any]:
    """What the gateway's own role reads: keys that are not revoked, and whether their account may use them."""
    connection = await asyncpg.connect(database.gateway_dsn)
    rows = await connection.fetch(
        "SELECT k.id, a.frozen OR a.kyc <> 'verified' FROM api_keys k JOIN accounts a ON a.id = k.account_id WHERE revoked_at IS NULL"
    )
    await connection.close()
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("token", ["", "wrong", "t" * 1000, "täst"])
async def test_another_token_is_refused(service: Service, token: str) -> None:
    refused = await service.operator("GET", "accounts/alice", token=token)
    assert (refused.status, refused.code) == (401, "unauthenticated")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_a_customers_token_opens_nothing_here_nor_the_service_token_there(alice: Customer, service: Service) -> None:
    url = f"{service.internal}/internal/v1/accounts/alice"
    assert (await service.send("GET", url, headers=alice.headers)).status == 401
    assert (await service.send("GET", url)).status == 401
    assert (await service.send("GET", f"{service.public}/internal/v1/accounts/alice")).status == 404
    assert (await service.send("GET", f"{service.internal}/api/v1/account", headers=alice.headers)).status == 404


async def test_an_account_and_its_keys_are_shown_without_a_secret(alice: Customer, service: Service) -> None:
    created = (await alice.create()).body
    shown = await service.operator("GET", "accounts/alice")
    assert (shown.body["id"], shown.body["kyc"], shown.body["frozen"]) == ("alice", "verified", False)
    key = await service.operator("GET", f"keys/{created['key']['id']}")
    assert shown.body["keys"] == [key.body]
    assert (key.body["account_id"], key.body["label"], key.body["status"]) == ("alice", "My bot", "active")
    assert created["secret"] not in shown.text + key.text


@pytest.mark.parametrize("path", ["accounts/nobody", "keys/gbk_nothing", "keys/%00", "accounts/%E2%82%AC"])
async def test_what_is_not_there_is_not_found(service: Service, path: str) -> None:
    assert (await service.operator("GET", path)).status == 404


@pytest.mark.parametrize("account", ["%00", "%E2%82%AC", "a%20b", "x" * 256])
async def test_no_account_is_made_for_an_id_that_no_provider_gives(service: Service, database: Database, account: str) -> None:
    assert (await service.operator("PUT", f"accounts/{account}", {"kyc": "revoked"})).status == 404
    assert sql(database.server, "SELECT count(*) FROM accounts", database.name).strip() == "0"


@pytest.mark.parametrize("path", ["accounts/nobody/freeze", "accounts/nobody/thaw"])
async def test_an_unknown_account_is_not_frozen(service: Service, path: str) -> None:
    assert (await service.operator("POST", path)).status == 404


async def test_a_frozen_account_is_stopped_and_thawed_again(alice: Customer, service: Service, database: Database) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    assert (await service.operator("POST", "accounts/alice/freeze")).body["frozen"] is True
    assert await gate_sees(database) == [(key_id, True)]
    assert await status(alice, key_id) == "suspended"
    refused = await alice.call("POST", "keys", KEY)
    assert (refused.status, refused.code) == (403, "account_frozen")
    assert (await service.operator("POST", "accounts/alice/thaw")).body["frozen"] is False
    assert await gate_sees(database) == [(key_id, False)]


async def test_a_frozen_account_can_still_delete_its_keys(alice: Customer, service: Service) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    await service.operator("POST", "accounts/alice/freeze")
    assert (await alice.delete(key_id)).status == 204


async def test_revoked_verification_stops_keys_and_no_claim_brings_it_back(alice: Customer, service: Service, database: Database) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    assert (await service.operator("PUT", "accounts/alice", {"kyc": "revoked"})).body["kyc"] == "revoked"
    assert await gate_sees(database) == [(key_id, True)]
    again = service.customer("alice", iat=clock.now_ms() // 1000 + 1)
    assert (await again.call("GET", "account")).body["kyc"] == "revoked"
    refused = await again.call("POST", "keys", KEY)
    assert (refused.code, refused.body["kyc"]) == ("kyc_required", "revoked")
    await service.operator("PUT", "accounts/alice", {"kyc": "verified"})
    assert await gate_sees(database) == [(key_id, False)]


async def test_a_revocation_holds_for_an_account_that_was_never_seen(service: Service) -> None:
    assert (await service.operator("PUT", "accounts/newcomer", {"kyc": "revoked"})).status == 200
    assert (await service.customer("newcomer").call("GET", "account")).body["kyc"] == "revoked"


async def test_the_offices_word_does_not_verify_whom_the_provider_does_not(service: Service) -> None:
    customer = service.customer("carol", kyc="unverified")
    await customer.enrol()
    await service.operator("PUT", "accounts/carol", {"kyc": "verified"})
    assert (await customer.call("POST", "keys", KEY)).code == "kyc_required"


async def test_a_tier_is_set_shown_seen_by_the_gateways_and_taken_back(alice: Customer, service: Service, database: Database) -> None:
    await alice.create()
    for tier in ("pro", None):
        assert (await service.operator("PUT", "accounts/alice", {"tier": tier})).body["tier"] == tier
        connection = await asyncpg.connect(database.gateway_dsn)
        assert await connection.fetchval("SELECT tier FROM accounts WHERE id = 'alice'") == tier
        await connection.close()
    both = await service.operator("PUT", "accounts/newcomer", {"kyc": "revoked", "tier": "pro"})
    assert (both.body["kyc"], both.body["tier"]) == ("revoked", "pro")
    events = [event["event"] for event in (await alice.call("GET", "audit")).body["events"]]
    assert events.count("tier_changed") == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tier": ""},
        {"tier": "a b"},
        {"tier": "x" * 65},
        {"tier": 1},
        {"kyc": None},
        {"kyc": "unverified"},
        {"kyc": True},
        {"kyc": "verified", "x": 1},
        [],
    ],
)
async def test_a_wrong_decision_is_refused(service: Service, body: object) -> None:
    assert (await service.operator("PUT", "accounts/alice", body)).status == 422


async def test_a_revoked_key_stays_listed_with_its_reason_until_its_owner_deletes_it(
    alice: Customer, service: Service, database: Database
) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    revoked = await service.operator("POST", f"keys/{key_id}/revoke", {"reason": "found in a public repository"})
    assert (revoked.status, revoked.body["status"]) == (200, "revoked")
    assert await gate_sees(database) == []
    shown = (await alice.call("GET", f"keys/{key_id}")).body
    assert (shown["status"], shown["revoked_reason"]) == ("revoked", "found in a public repository")
    again = await service.operator("POST", f"keys/{key_id}/revoke", {"reason": "another"})
    assert again.body["revoked_reason"] == "found in a public repository"
    assert (await alice.delete(key_id)).status == 204


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\nb", None])
async def test_a_revocation_needs_a_readable_reason(alice: Customer, service: Service, reason: str | None) -> None:
    assert (await service.operator("POST", "keys/gbk_x/revoke", {"reason": reason})).errors[0][0] == "reason"


async def test_everything_is_in_the_audit_once(alice: Customer, service: Service) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    for _ in range(2):
        await service.operator("POST", "accounts/alice/freeze")
        await service.operator("PUT", "accounts/alice", {"kyc": "revoked"})
        await service.operator("POST", f"keys/{key_id}/revoke", {"reason": "test"})
    await service.operator("POST", "accounts/alice/thaw")
    events = (await alice.call("GET", "audit")).body["events"]
    by_operator = [(event["event"], event["key_id"]) for event in events if event["actor"] == "operator"]
    assert by_operator == [("account_thawed", None), ("key_revoked", key_id), ("kyc_changed", None), ("account_frozen", None)]


@pytest.mark.parametrize(
    "change",
    [
        ("POST", "accounts/alice/freeze", None),
        ("PUT", "accounts/alice", {"kyc": "revoked"}),
        ("POST", "keys/{}/revoke", {"reason": "test"}),
    ],
)
async def test_the_gateways_are_told_by_both_channels(
    alice: Customer, service: Service, database: Database, redis_url: str, change: tuple[str, str, object]
) -> None:
    method, path, body = change
    key_id = (await alice.create()).body["key"]["id"]
    async with heard(database, redis_url) as (notified, published):
        await service.operator(method, path.format(key_id), body)
        assert await asyncio.wait_for(notified.get(), 5) == "*"  # wakes whoever reads the feed of changes
        assert key_id.encode() in await published()


async def test_a_deletion_is_told_by_both_channels(alice: Customer, database: Database, redis_url: str) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    async with heard(database, redis_url) as (notified, published):
        await alice.delete(key_id)
        assert await asyncio.wait_for(notified.get(), 5) == "*"  # wakes whoever reads the feed of changes
        assert key_id.encode() in await published()


@asynccontextmanager
async def heard(database: Database, redis_url: str) -> AsyncIterator[tuple[asyncio.Queue[str], Callable[[], Awaitable[bytes]]]]:
    """What arrives on each channel that the gateways listen to."""
    notified: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(database.gateway_dsn)
    await listener.add_listener("gerbang_keys", lambda *event: notified.put_nowait(event[-1]))
    async with redis.Redis.from_url(redis_url) as client, client.pubsub() as channel:
        await channel.subscribe("gerbang:invalidate")
        await channel.get_message(timeout=5)

        async def published() -> bytes:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
            assert message is not None
            return bytes(message["data"])

        yield notified, published
    await listener.close()
