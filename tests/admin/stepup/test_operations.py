"""Resetting factors, for a holder who has lost them all: nothing proven before counts afterwards, and no key passes until a thaw."""

import asyncio

import pyotp
import pytest

from gateway.runtime import clock
from tests.support.admin import KEY, Customer, Service
from tests.support.stack import Database, sql

REASON = {"reason": "lost phone, identity checked, case 4711"}


async def reset(service: Service) -> dict[str, object]:
    reply = await service.operator("POST", "accounts/alice/reset-factors", REASON)
    assert reply.status == 200, reply.text
    return reply.body


def new_login(service: Service) -> Customer:
    """A provider writes whole seconds: this token is surely of a later one than whatever has happened, and within its clock's leeway."""
    return service.customer("alice", iat=clock.now_ms() // 1000 + 2)


async def test_factors_and_recovery_codes_are_gone_and_the_account_is_frozen(alice: Customer, service: Service, database: Database) -> None:
    await alice.challenge("renew_recovery_codes")
    proof = await alice.proof("add_factor", kind="totp")
    assert (await alice.call("POST", "factors/totp", {"step_up": proof})).status == 201, "an enrolment is under way"
    assert len((await service.operator("GET", "accounts/alice")).body["factors"]) == 1
    shown = await reset(service)
    assert (shown["factors"], shown["frozen"]) == ([], True)
    account = (await new_login(service).call("GET", "account")).body
    assert (account["factors"], account["recovery_codes_left"], account["frozen"]) == ([], None, True)
    for table in ("factors", "recovery_codes", "step_up_challenges"):
        assert sql(database.server, f"SELECT count(*) FROM {table}", database.name).strip() == "0"


async def test_every_key_stops_and_stays_until_the_thaw(alice: Customer, service: Service) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    await reset(service)
    assert (await service.operator("GET", f"keys/{key_id}")).body["status"] == "suspended"
    await service.operator("POST", "accounts/alice/thaw")
    assert (await service.operator("GET", f"keys/{key_id}")).body["status"] == "active"


async def test_a_login_of_before_is_over_and_a_new_one_is_not(alice: Customer, service: Service) -> None:
    await reset(service)
    for method, path in (("GET", "account"), ("GET", "keys"), ("POST", "factors/totp"), ("GET", "audit")):
        refused = await alice.call(method, path)
        assert (refused.status, refused.code) == (401, "unauthenticated")
        assert "log in again" in refused.body["detail"]
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert (await new_login(service).call("GET", "account")).status == 200


async def test_its_holder_enrols_anew_deletes_a_strange_key_and_makes_keys_only_after_the_thaw(alice: Customer, service: Service) -> None:
    strange = (await alice.create()).body["key"]["id"]
    await reset(service)
    again = new_login(service)
    await again.enrol()
    assert len(set(again.recovery_codes)) == 10
    assert not set(again.recovery_codes) & set(alice.recovery_codes)
    assert (await again.delete(strange)).status == 204
    assert (await again.call("POST", "step-up", {"intent": {"action": "create_key", **KEY}})).code == "account_frozen"
    await service.operator("POST", "accounts/alice/thaw")
    assert (await again.create()).status == 201


@pytest.mark.parametrize("method", ["totp", "recovery_code"])
async def test_what_was_a_proof_before_is_none_afterwards(alice: Customer, service: Service, method: str) -> None:
    answer = alice.code() if method == "totp" else alice.recovery_codes[0]
    await reset(service)
    again = new_login(service)
    await again.enrol()
    challenge_id = await again.challenge("renew_recovery_codes")
    refused = await again.call("POST", "recovery-codes", {"step_up": {"challenge_id": challenge_id, method: answer}})
    assert (refused.status, refused.code) == (403, "step_up_failed")


async def test_a_lock_out_ends_with_the_factors_that_it_guarded(alice: Customer, service: Service) -> None:
    intent = {"intent": {"action": "renew_recovery_codes"}}
    for _ in range(20):
        challenge = await alice.call("POST", "step-up", intent)
        if challenge.status == 429:
            break
        await alice.call("POST", "recovery-codes", {"step_up": {"challenge_id": challenge.body["challenge_id"], "totp": "000000"}})
    assert challenge.status == 429
    await reset(service)
    again = new_login(service)
    await again.enrol()
    challenge_id = await again.challenge("renew_recovery_codes")
    renewed = await again.call("POST", "recovery-codes", {"step_up": {"challenge_id": challenge_id, "totp": again.code()}})
    assert renewed.status == 201, renewed.text


async def test_it_is_in_the_audit_with_its_reason_and_what_was_removed(alice: Customer, service: Service) -> None:
    await reset(service)
    events = (await new_login(service).call("GET", "audit")).body["events"]
    frozen, done = events[:2]
    assert (frozen["event"], frozen["actor"]) == ("account_frozen", "operator")
    assert (done["event"], done["actor"]) == ("factors_reset", "operator")
    removed = {"factor_id": alice.factor_id, "kind": "totp", "name": "Authenticator"}
    assert done["detail"] == {**REASON, "factors": [removed]}
    assert alice.secret not in str(events)


async def test_a_second_reset_also_ends_what_was_enrolled_since(alice: Customer, service: Service) -> None:
    await reset(service)
    again = new_login(service)
    await again.enrol()
    assert (await reset(service))["factors"] == []
    events = (await service.customer("alice", iat=clock.now_ms() // 1000 + 4).call("GET", "audit")).body["events"]
    assert [event["event"] for event in events[:4]] == ["factors_reset", "factor_added", "account_frozen", "factors_reset"]


async def test_a_reset_and_an_enrolment_at_once_leave_no_factor_of_before(alice: Customer, service: Service) -> None:
    proof = await alice.proof("add_factor", kind="totp")
    started = (await alice.call("POST", "factors/totp", {"step_up": proof})).body
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    confirmed, _ = await asyncio.gather(alice.call("POST", f"factors/totp/{started['id']}/confirm", {"code": code}), reset(service))
    assert confirmed.status in (200, 401, 404)
    assert (await service.operator("GET", "accounts/alice")).body["factors"] == []


async def test_an_unknown_account_and_a_missing_reason_are_refused(service: Service) -> None:
    assert (await service.operator("POST", "accounts/nobody/reset-factors", REASON)).status == 404
    for reason in ("", "  ", "x" * 501, "a\nb", None):
        assert (await service.operator("POST", "accounts/alice/reset-factors", {"reason": reason})).errors[0][0] == "reason"


async def test_the_service_token_is_wanted(alice: Customer, service: Service) -> None:
    assert (await service.operator("POST", "accounts/alice/reset-factors", REASON, token="x" * 43)).status == 401
    assert len((await alice.call("GET", "account")).body["factors"]) == 1
