"""Upstreams are told when a key ends, by the running service: each of them everything, in order, whatever becomes of another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.admin import running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.keys import add_key
from tests.support.notices import SECRET, Receiver, until
from tests.support.stack import Database


@asynccontextmanager
async def listening() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def told(receiver: Receiver) -> list[tuple[str, str | None]]:
    return [(event["data"]["cause"], event["data"]["key_id"]) for _, event in receiver.events]


async def test_every_end_of_a_key_is_told_to_each_upstream_in_order(issuer: Issuer, database: Database, redis_url: str) -> None:
    async with listening() as spot, listening() as margin:
        upstreams = {name: {"key_events": each.url, "secret": SECRET} for name, each in (("spot", spot), ("margin", margin))}
        margin.status = 503
        async with running_service(settings_for(issuer, database.admin_dsn, redis_url, upstreams=upstreams), issuer) as service:
            alice = service.customer("alice", email="alice@mail.example")
            await alice.enrol()
            deleted = (await alice.create()).body["key"]["id"]
            owner, vault = await asyncpg.connect(database.owner_dsn), Vault.parse(new_entry("k1"))
            revoked, expiring = [(await add_key(owner, vault, account_id="alice")).key_id for _ in range(2)]
            await alice.delete(deleted)
            await service.operator("POST", f"keys/{revoked}/revoke", {"reason": "Seen on a forum"})
            await service.operator("POST", "accounts/alice/freeze", {"reason": "a secret inquiry"})
            await service.operator("POST", "accounts/alice/thaw", {"reason": "nothing found"})
            await service.operator("PUT", "accounts/alice", {"kyc": "revoked"})
            await service.operator("PUT", "accounts/alice", {"kyc": "revoked"})
            expected: list[tuple[str, str | None]] = [
                ("deleted", deleted),
                ("revoked", revoked),
                ("account_frozen", None),
                ("kyc_lost", None),
            ]
            await spot.until(4)
            assert told(spot) == expected, "and margin, which is down, holds nothing up"
            _, event = spot.events[1]
            assert (event["type"], event["data"]) == ("key.ended", {"account_id": "alice", "key_id": revoked, "cause": "revoked"})
            await owner.execute("UPDATE api_keys SET expires_at = now() - interval '1 minute' WHERE id = $1", expiring)
            await spot.until(5)
            assert told(spot)[4] == ("expired", expiring)
            await margin.until_tried(1)
            assert margin.events == []
            assert set(margin.tries) == {spot.events[0][0]}, "its first one again and again, under the id that spot was told"
            margin.status = 204
            await margin.until(5)
            assert [(name, event["data"]) for name, event in margin.events] == [(name, event["data"]) for name, event in spot.events]
            for left in ("spot", "margin", "upstreams"):
                await until(owner, f"SELECT NOT EXISTS (SELECT 1 FROM notice_deliveries WHERE channel LIKE '%{left}')")
            await owner.close()


async def test_a_receiver_of_both_kinds_of_webhooks_is_sent_each_under_an_id_of_its_own(
    issuer: Issuer, database: Database, redis_url: str
) -> None:
    """It need only remember ids to recognize what is repeated: the same id twice is the same message."""
    async with listening() as receiver:
        kinds = {"webhooks": {"url": receiver.url, "secret": SECRET}, "upstreams": {"spot": {"key_events": receiver.url, "secret": SECRET}}}
        async with running_service(settings_for(issuer, database.admin_dsn, redis_url, **kinds), issuer) as service:
            alice = service.customer("alice", email="alice@mail.example")
            await alice.enrol()
            await alice.delete((await alice.create()).body["key"]["id"])
            await receiver.until_told("key.deleted", "key.ended")
        assert len({id_ for id_, _ in receiver.events}) == len(receiver.events)


async def test_an_unused_keys_end_and_a_verification_that_the_provider_withdraws_are_told_too(
    issuer: Issuer, database: Database, redis_url: str
) -> None:
    async with listening() as spot:
        told_to = {"spot": {"key_events": spot.url, "secret": SECRET}}
        settings = settings_for(issuer, database.admin_dsn, redis_url, upstreams=told_to, keys={"idle_days": 30})
        async with running_service(settings, issuer) as service:
            await service.customer("alice").call("GET", "account")
            owner, vault = await asyncpg.connect(database.owner_dsn), Vault.parse(new_entry("k1"))
            unused = (await add_key(owner, vault, account_id="alice")).key_id
            await owner.execute("UPDATE api_keys SET created_at = now() - interval '31 days' WHERE id = $1", unused)
            await owner.execute("UPDATE key_activity SET counted_ms = 0 WHERE key_id = $1", unused)
            await spot.until(1)
            later = service.customer("alice", kyc="unverified", iat=clock.now_ms() // 1000 + 2)
            assert (await later.call("GET", "account")).body["kyc"] == "unverified"
            await spot.until(2)
            assert told(spot) == [("idle", unused), ("kyc_lost", None)]
            await owner.close()


@pytest.mark.parametrize("name", ["Spot", "a:b", ""])
def test_an_upstream_has_a_name_as_the_gateways_write_it(name: str, issuer: Issuer) -> None:
    wrong: dict[str, Any] = {"upstreams": {name: {"key_events": "https://spot.internal/x", "secret": SECRET}}}
    with pytest.raises(ValueError, match="upstreams"):
        settings_for(issuer, "postgresql://x@localhost/x", "redis://localhost", **wrong)
