"""A key, its proof and its audit row stand or fall together; limits hold in races; no secret is kept or logged anywhere."""

import asyncio
import base64
from typing import Any

import asyncpg
import pytest
import redis

from admin import audit
from deploy.local.redis import RedisServer
from gateway.keys import usage_store
from gateway.keys.vault import Vault
from tests.support.admin import KEY, Customer, Service, running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.stack import Database, OwnPostgres


async def owner(database: Database, statement: str) -> list[Any]:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


FAILING = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {how}; RETURN NEW; END $$"
REFUSE = "RAISE EXCEPTION 'forced by the test'"
DIE = "PERFORM pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize(("how", "status"), [(REFUSE, 500), (DIE, 503)])
@pytest.mark.parametrize("where", [("audit_events", "NEW.event = 'key_created'"), ("api_keys", "true")])
async def test_no_key_without_its_audit_row_and_no_row_without_its_key(
    alice: Customer, database: Database, how: str, status: int, where: tuple[str, str]
) -> None:
    table, when = where
    proof = await alice.proof("create_key", **KEY)
    await owner(database, FAILING.format(how=how))
    await owner(database, f"CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION fail()")
    failed = await alice.call("POST", "keys", {**KEY, "step_up": proof})
    assert failed.status == status
    assert "forced by the test" not in failed.text
    assert await owner(database, "SELECT 1 FROM api_keys") == []
    assert await owner(database, "SELECT 1 FROM audit_events WHERE event = 'key_created'") == []
    await owner(database, f"DROP TRIGGER fail ON {table}")
    # Nothing was done, so nothing was spent.
    assert (await alice.call("POST", "keys", {**KEY, "step_up": proof})).status == 201


async def test_a_deletion_that_fails_leaves_the_key_and_no_row(alice: Customer, database: Database) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    await owner(database, FAILING.format(how=REFUSE))
    await owner(database, "CREATE TRIGGER fail BEFORE DELETE ON api_keys FOR EACH ROW EXECUTE FUNCTION fail()")
    assert (await alice.delete(key_id)).status == 500
    assert len((await alice.call("GET", "keys")).body["keys"]) == 1
    assert await owner(database, "SELECT 1 FROM audit_events WHERE event = 'key_deleted'") == []


async def test_of_two_creations_at_the_limit_exactly_one_wins(issuer: Issuer, database: Database, redis_url: str) -> None:
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, keys={"per_account": 1}), issuer) as service:
        alice = service.customer()
        await alice.enrol()
        bodies = [{**KEY, "label": label, "step_up": await alice.proof("create_key", **{**KEY, "label": label})} for label in ("a", "b")]
        replies = await asyncio.gather(*(alice.call("POST", "keys", body) for body in bodies))
        assert sorted(reply.status for reply in replies) == [201, 409]
        assert len((await alice.call("GET", "keys")).body["keys"]) == 1


async def test_creation_and_deletion_are_in_the_audit_with_all_members(alice: Customer, database: Database) -> None:
    key_id = (await alice.create(expires_in_days=7)).body["key"]["id"]
    await alice.delete(key_id)
    deleted, created = (await alice.call("GET", "audit")).body["events"][:2]
    assert (created["event"], created["key_id"], created["actor"]) == ("key_created", key_id, "account")
    assert created["detail"] == {
        "label": "My bot",
        "scopes": ["read"],
        "ip_allowlist": ["8.8.8.8"],
        "algorithm": "hmac-sha256",
        "public_key": None,
        "expires_in_days": 7,
    }
    assert (deleted["event"], deleted["key_id"], deleted["detail"]) == ("key_deleted", key_id, {"label": "My bot"})
    connection = await asyncpg.connect(database.admin_dsn)
    assert (await audit.verify(connection)).problems == ()
    await connection.close()


async def test_a_refused_creation_is_in_the_audit(service: Service) -> None:
    customer = service.customer("carol", kyc="unverified")
    await customer.call("POST", "keys", KEY)
    await customer.call("POST", "step-up", {"intent": {"action": "create_key", **KEY}})
    events = (await customer.call("GET", "audit")).body["events"]
    assert [(event["event"], event["detail"]) for event in events] == [("key_creation_refused", {"code": "kyc_required"})] * 2


async def test_the_secret_is_in_no_log_no_row_and_no_redis_key(
    alice: Customer, service: Service, database: Database, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    created = (await alice.create()).body
    proof = {"challenge_id": await alice.challenge("create_key", **KEY), "totp": "98765432109876"}
    refused = await alice.call("POST", "keys", {**KEY, "step_up": proof})
    listed = await alice.call("GET", "keys")
    operator = await service.operator("GET", f"keys/{created['key']['id']}")
    token = alice.headers["Authorization"].removeprefix("Bearer ")
    vault = service.settings.vault.keys.get_secret_value()
    secrets = [
        created["secret"],
        alice.secret,
        "98765432109876",
        token,
        *alice.recovery_codes,
        service.settings.internal.token.get_secret_value(),
    ]
    tables = [table for (table,) in await owner(database, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")]
    rows = "".join([str(row) for table in tables for row in await owner(database, f"SELECT t::text FROM {table} t")])
    with redis.Redis.from_url(redis_url) as client:
        stored = b"".join(key + (client.dump(key) or b"") for key in client.scan_iter())
    logged = "".join(capfd.readouterr())
    assert "key_created" in logged + rows
    for secret in (*secrets, vault, repr(created["secret"])):
        for form in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
            assert form not in logged + rows + refused.text + listed.text + operator.text, "a secret leaked"
        assert secret.encode() not in stored
    raw_totp = base64.b32decode(alice.secret)
    assert raw_totp.hex() not in rows
    assert raw_totp not in stored


async def test_the_stored_secret_opens_only_for_its_own_key(alice: Customer, service: Service, database: Database) -> None:
    created = (await alice.create()).body
    ((sealed,),) = await owner(database, "SELECT sealed_secret FROM api_keys")
    vault = Vault.parse(service.settings.vault.keys.get_secret_value())
    assert vault.open(sealed, context=created["key"]["id"]).decode() == created["secret"]


async def test_without_redis_keys_are_still_created_listed_and_deleted(issuer: Issuer, database: Database, own_redis: RedisServer) -> None:
    async with running_service(settings_for(issuer, database.admin_dsn, own_redis.url), issuer) as service:
        alice = service.customer()
        await alice.enrol()
        own_redis.stop()
        created = await alice.create()
        assert created.status == 201
        listed = await alice.call("GET", "keys")
        assert (listed.status, listed.body["keys"][0]["last_used_at"]) == (200, None)
        assert (await alice.delete(created.body["key"]["id"])).status == 204
        ready = await service.send("GET", f"{service.internal}/ready")
        assert (ready.status, ready.body["missing"]) == (503, ["redis"])


async def test_without_postgresql_the_answer_is_503_and_service_comes_back(
    issuer: Issuer, own_postgres: OwnPostgres, redis_url: str
) -> None:
    async with running_service(settings_for(issuer, own_postgres.admin_dsn, redis_url), issuer) as service:
        alice = service.customer()
        await alice.enrol()
        own_postgres.stop()
        refused = await alice.call("GET", "keys")
        assert (refused.status, refused.code) == (503, "service_unavailable")
        assert "postgres" not in refused.text.lower()
        assert (await service.send("GET", f"{service.internal}/ready")).body["missing"] == ["postgres"]
        own_postgres.start()
        assert (await alice.call("GET", "keys")).status == 200


async def test_last_use_comes_from_the_gateways_counters(alice: Customer, redis_url: str) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(usage_store.last_key(key_id), {"1.1.1.1": 1_700_000_000_000})
    key = (await alice.call("GET", f"keys/{key_id}")).body
    assert (key["last_used_at"], key["last_used_ip"]) == ("2023-11-14T22:13:20.000Z", "1.1.1.1")
    await alice.delete(key_id)
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists(usage_store.last_key(key_id))
