"""Passkeys as factors, through the API with an authenticator in software: enrolled by the rules, accepted once, never from elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from admin.stepup.enrolment import Enrolment
from gateway.errors import StoreUnavailable
from tests.support.admin import KEY, Customer, Reply, Service, running_service, settings_for
from tests.support.authenticator import Authenticator
from tests.support.issuer import running_issuer


@pytest.fixture
async def service(database, redis_url: str) -> AsyncIterator[Service]:
    async with running_issuer() as issuer:
        settings = settings_for(issuer, database.admin_dsn, redis_url, public_url="https://exchange.example")
        async with running_service(settings, issuer) as service:
            yield service


async def enrol(customer: Customer, device: Authenticator, *, step_up: dict | None = None, name: str = "Laptop") -> Reply:
    options = await customer.call("POST", "factors/passkeys/options", {"name": name, "step_up": step_up})
    if options.status >= 300:
        return options
    return await customer.call("POST", "factors/passkeys", device.register(options.body))


async def challenge(customer: Customer, action: str = "create_key", **members: object) -> dict:
    reply = await customer.call("POST", "step-up", {"intent": {"action": action, **members}})
    assert reply.status == 201, reply.text
    return reply.body


async def create(customer: Customer, device: Authenticator, **changes: object) -> Reply:
    asked = await challenge(customer, **KEY)
    proof = {"challenge_id": asked["challenge_id"], "passkey": device.assertion(asked["passkey"])}
    return await customer.call("POST", "keys", {**KEY, **changes, "step_up": proof})


async def test_the_first_passkey_comes_with_recovery_codes_and_creates_and_deletes_keys(service):
    alice, device = service.customer(), Authenticator()
    added = await enrol(alice, device, name="Laptop Budi")
    assert (added.status, added.body["factor"]["kind"], added.body["factor"]["name"]) == (201, "passkey", "Laptop Budi")
    assert len(added.body["recovery_codes"]) == 10
    created = await create(alice, device)
    assert created.status == 201
    key_id = created.body["key"]["id"]
    asked = await challenge(alice, "delete_key", key_id=key_id)
    proof = {"challenge_id": asked["challenge_id"], "passkey": device.assertion(asked["passkey"])}
    assert (await alice.call("DELETE", f"keys/{key_id}", {"step_up": proof})).status == 204
    account = (await alice.call("GET", "account")).body
    assert account["factors"][0]["last_used_at"] is not None
    events = [event["event"] for event in (await alice.call("GET", "audit")).body["events"]]
    assert events[:3] == ["key_deleted", "key_created", "factor_added"]


async def test_further_passkeys_need_a_proof_and_each_device_holds_one(service):
    alice, first, second = service.customer(), Authenticator(), Authenticator()
    assert (await enrol(alice, first)).status == 201
    assert (await enrol(alice, second)).code == "step_up_required"

    async def proof() -> dict:
        asked = await challenge(alice, "add_factor", kind="passkey")
        return {"challenge_id": asked["challenge_id"], "passkey": first.assertion(asked["passkey"])}

    options = await alice.call("POST", "factors/passkeys/options", {"step_up": await proof()})
    assert len(options.body["excludeCredentials"]) == 1
    added = await alice.call("POST", "factors/passkeys", second.register(options.body))
    assert (added.status, added.body["recovery_codes"]) == (201, None)
    assert len((await challenge(alice, **KEY))["passkey"]["allowCredentials"]) == 2
    for device in (first, second):
        assert (await create(alice, device)).status == 201
    again = await enrol(alice, first, step_up=await proof())
    assert again.errors == [("id", "duplicate")]


async def test_a_passkey_of_one_account_is_nobody_elses(service):
    alice, mallory, device = service.customer("alice"), service.customer("mallory"), Authenticator()
    assert (await enrol(alice, device)).status == 201
    assert (await enrol(mallory, device)).errors == [("id", "duplicate")]
    own = Authenticator()
    assert (await enrol(mallory, own)).status == 201
    asked = await challenge(mallory, **KEY)
    stolen = {"challenge_id": asked["challenge_id"], "passkey": device.assertion(asked["passkey"])}
    assert (await mallory.call("POST", "keys", {**KEY, "step_up": stolen})).code == "step_up_failed"


async def test_a_beginning_that_fails_uses_up_no_proof(service, monkeypatch):
    alice = service.customer()
    await alice.enrol()
    proof = await alice.proof("add_factor", kind="passkey")

    async def away(_self: Enrolment, _account_id: str) -> None:
        raise StoreUnavailable("PostgreSQL is away")

    with monkeypatch.context() as patch:
        patch.setattr(Enrolment, "factors", away)
        assert (await alice.call("POST", "factors/passkeys/options", {"step_up": proof})).status == 503
    assert (await alice.call("POST", "factors/passkeys/options", {"step_up": proof})).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://exchange.example:8443"},
        {"rp_id": "evil.example"},
        {"verified": False},
    ],
    ids=str,
)
async def test_an_assertion_from_elsewhere_or_without_the_user_is_refused_and_noted(service, change):
    alice, device = service.customer(), Authenticator()
    await enrol(alice, device)
    refused = await create(alice, replace(device, **change))
    assert (refused.status, refused.code, refused.body["reason"]) == (403, "step_up_failed", "wrong_passkey")
    assert (await alice.call("GET", "audit")).body["events"][0]["event"] == "step_up_failed"
    assert (await alice.call("GET", "keys")).body["keys"] == []


async def test_an_answer_to_another_challenge_is_refused(service):
    alice, device = service.customer(), Authenticator()
    await enrol(alice, device)
    one, two = await challenge(alice, **KEY), await challenge(alice, **KEY)
    crossed = {"challenge_id": one["challenge_id"], "passkey": device.assertion(two["passkey"])}
    assert (await alice.call("POST", "keys", {**KEY, "step_up": crossed})).body["reason"] == "wrong_passkey"


async def test_a_cloned_counter_is_refused(service):
    alice, device = service.customer(), Authenticator()
    await enrol(alice, device)
    clone = replace(device)
    assert (await create(alice, device)).status == 201
    assert (await create(alice, clone)).body["reason"] == "wrong_passkey", "one behind"
    assert (await create(alice, device)).status == 201, "the real one goes on"


@pytest.mark.parametrize("change", [{"label": "y"}, {"scopes": ["trade"]}, {"ip_allowlist": ["8.8.4.4"]}, {"expires_in_days": 1}], ids=str)
async def test_a_proof_is_for_exactly_the_intent_of_its_challenge(service, change):
    alice, device = service.customer(), Authenticator()
    await enrol(alice, device)
    assert (await create(alice, device, **change)).body["reason"] == "other_intent"


async def test_of_many_redemptions_of_one_answer_exactly_one_wins(service):
    alice, device = service.customer(), Authenticator()
    await enrol(alice, device)
    asked = await challenge(alice, **KEY)
    body = {**KEY, "step_up": {"challenge_id": asked["challenge_id"], "passkey": device.assertion(asked["passkey"])}}
    replies = await asyncio.gather(*(alice.call("POST", "keys", body) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [201] + [403] * 7
    assert len((await alice.call("GET", "keys")).body["keys"]) == 1


async def test_an_enrolment_is_ended_once_and_only_by_whom_it_was_begun(service):
    alice, bob, device = service.customer("alice"), service.customer("bob"), Authenticator()
    options = await alice.call("POST", "factors/passkeys/options")
    response = device.register(options.body)
    assert (await bob.call("POST", "factors/passkeys", response)).status == 404
    wrong = replace(device, origin="https://evil.example").register(options.body)
    assert (await alice.call("POST", "factors/passkeys", wrong)).code == "step_up_failed"
    assert (await alice.call("POST", "factors/passkeys", response)).status == 201
    assert (await alice.call("POST", "factors/passkeys", response)).status == 404


async def test_an_enrolment_begun_before_another_factor_came_does_not_stand(service):
    """Two thieves' races: of two enrolments under a bare login only one can become the first factor."""
    alice, device = service.customer(), Authenticator()
    options = await alice.call("POST", "factors/passkeys/options")
    response = device.register(options.body)
    await alice.enrol()
    assert (await alice.call("POST", "factors/passkeys", response)).status == 404


@pytest.mark.parametrize("body", [{}, {"id": "x"}, {"id": 1, "type": "public-key", "response": {}}, {"type": "password"}], ids=str)
async def test_whatever_else_is_sent_is_told_field_by_field(service, body):
    alice = service.customer()
    await alice.call("POST", "factors/passkeys/options")
    assert (await alice.call("POST", "factors/passkeys", body)).code == "invalid_request"


async def test_an_answer_that_is_no_webauthn_is_a_wrong_passkey(service):
    alice, device = service.customer(), Authenticator()
    await enrol(alice, device)
    for answer in ({}, {"id": "AAAA"}, {"id": 7}, {"id": "!", "response": []}, {"id": "é" * 10}):
        asked = await challenge(alice, **KEY)
        reply = await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": asked["challenge_id"], "passkey": answer}})
        assert reply.body.get("reason") == "wrong_passkey", answer


async def test_passkeys_are_never_locked_and_never_counted(service):
    alice, device = service.customer("alice"), Authenticator()
    await alice.enrol()
    assert (await enrol(alice, device, step_up=await alice.proof("add_factor", kind="passkey"))).status == 201
    asked = await challenge(alice, **KEY)
    wrong = {**KEY, "step_up": {"challenge_id": asked["challenge_id"], "totp": "000000"}}
    assert [(await alice.call("POST", "keys", wrong)).status for _ in range(6)] == [403] * 5 + [429]
    asked = await challenge(alice, **KEY)
    assert asked["methods"] == ["passkey"], "what is locked is not offered"
    for _ in range(6):
        refused = await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": asked["challenge_id"], "passkey": {"id": "AAAA"}}})
        assert refused.body["reason"] == "wrong_passkey"
    proof = {"challenge_id": asked["challenge_id"], "passkey": device.assertion(asked["passkey"])}
    assert (await alice.call("POST", "keys", {**KEY, "step_up": proof})).status == 201
    assert "totp" in (await challenge(alice, **KEY))["methods"], "a right proof ends the wait"
