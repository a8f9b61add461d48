"""Factors: the first one shortly after a login, every later change with a proof, the last one kept while there are keys."""

import asyncio

import asyncpg
import pyotp
import pytest

from gateway.runtime import clock
from tests.support.admin import Customer, Service
from tests.support.stack import Database


async def test_an_app_is_enrolled_by_its_first_code_and_brings_recovery_codes(alice: Customer) -> None:
    account = (await alice.call("GET", "account")).body
    assert [(factor["kind"], factor["name"]) for factor in account["factors"]] == [("totp", "Authenticator")]
    assert len(set(alice.recovery_codes)) == account["recovery_codes_left"] == 10
    assert (account["id"], account["email"], account["kyc"], account["key_limit"]) == ("alice", "alice@example.com", "verified", 30)


async def test_the_answer_holds_what_an_app_scans(service: Service) -> None:
    started = (await service.customer("bob").call("POST", "factors/totp", {"name": "Phone"})).body
    scanned = pyotp.parse_uri(started["otpauth_uri"])
    assert (scanned.secret, scanned.name, scanned.issuer) == (started["secret"], "bob@example.com", "API Management")


async def test_an_app_that_was_not_confirmed_does_not_count(service: Service) -> None:
    bob = service.customer("bob")
    await bob.call("POST", "factors/totp")
    assert (await bob.call("GET", "account")).body["factors"] == []
    assert (await bob.call("POST", "step-up", {"intent": {"action": "renew_recovery_codes"}})).code == "factor_required"


async def test_a_wrong_first_code_is_refused_and_the_enrolment_goes_on(service: Service) -> None:
    bob = service.customer("bob")
    started = (await bob.call("POST", "factors/totp")).body
    refused = await bob.call("POST", f"factors/totp/{started['id']}/confirm", {"code": "000000"})
    assert (refused.status, refused.code, refused.body["reason"]) == (403, "step_up_failed", "wrong_code")
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    assert (await bob.call("POST", f"factors/totp/{started['id']}/confirm", {"code": code})).status == 200


async def test_the_first_code_is_spent_by_the_confirmation(service: Service) -> None:
    bob = service.customer("bob")
    started = (await bob.call("POST", "factors/totp")).body
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    await bob.call("POST", f"factors/totp/{started['id']}/confirm", {"code": code})
    challenge = await bob.challenge("renew_recovery_codes")
    refused = await bob.call("POST", "recovery-codes", {"step_up": {"challenge_id": challenge, "totp": code}})
    assert refused.body["reason"] == "code_already_used"


async def test_a_second_beginning_replaces_the_first(service: Service) -> None:
    bob = service.customer("bob")
    first, second = [(await bob.call("POST", "factors/totp")).body for _ in range(2)]
    code = pyotp.TOTP(first["secret"]).generate_otp(clock.now_ms() // 30_000)
    assert (await bob.call("POST", f"factors/totp/{first['id']}/confirm", {"code": code})).status == 404
    assert first["id"] != second["id"]


async def test_an_enrolment_cannot_be_confirmed_late(service: Service, database: Database) -> None:
    bob = service.customer("bob")
    started = (await bob.call("POST", "factors/totp")).body
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("UPDATE factors SET created_ms = created_ms - 600001")
    await owner.close()
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    assert (await bob.call("POST", f"factors/totp/{started['id']}/confirm", {"code": code})).status == 404


async def test_the_first_factor_needs_a_fresh_login(service: Service) -> None:
    stale = service.customer("bob", auth_time=clock.now_ms() // 1000 - 601)
    refused = await stale.call("POST", "factors/totp")
    assert (refused.status, refused.code, refused.body["max_age_ms"]) == (403, "login_too_old", 600_000)
    assert "log in" in refused.body["detail"]


async def test_another_accounts_enrolment_is_not_found(service: Service) -> None:
    started = (await service.customer("bob").call("POST", "factors/totp")).body
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    assert (await service.customer("mallory").call("POST", f"factors/totp/{started['id']}/confirm", {"code": code})).status == 404


async def test_a_second_factor_needs_a_proof_with_the_first(alice: Customer) -> None:
    refused = await alice.call("POST", "factors/totp", {"name": "Thief's phone"})
    assert (refused.status, refused.code) == (403, "step_up_required")
    proof = await alice.proof("add_factor", kind="totp")
    started = await alice.call("POST", "factors/totp", {"name": "Second phone", "step_up": proof})
    assert started.status == 201
    code = pyotp.TOTP(started.body["secret"]).generate_otp(clock.now_ms() // 30_000)
    confirmed = await alice.call("POST", f"factors/totp/{started.body['id']}/confirm", {"code": code})
    assert (confirmed.status, confirmed.body["recovery_codes"]) == (200, None)
    assert len((await alice.call("GET", "account")).body["factors"]) == 2


@pytest.mark.parametrize("body", [{}, {"step_up": {"challenge_id": "none", "totp": "000000"}}], ids=["no proof", "one that nobody checks"])
async def test_an_enrolment_begun_without_a_proof_does_not_stand_beside_a_factor_that_came_meanwhile(
    service: Service, database: Database, body: dict[str, object]
) -> None:
    thief = service.customer("bob")
    started = (await thief.call("POST", "factors/totp", body)).body
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute(
        "INSERT INTO factors (id, account_id, kind, name, sealed, proven, created_ms, confirmed_ms)"
        " VALUES ('f', 'bob', 'totp', 'x', '', true, 1, 1)"
    )
    await owner.close()
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    assert (await thief.call("POST", f"factors/totp/{started['id']}/confirm", {"code": code})).status == 404


async def test_removing_a_factor_needs_a_proof_for_that_factor(alice: Customer) -> None:
    refused = await alice.call("DELETE", f"factors/{alice.factor_id}")
    assert (refused.status, refused.code) == (403, "step_up_required")
    proof = await alice.proof("remove_factor", factor_id=alice.factor_id)
    assert (await alice.call("DELETE", f"factors/{alice.factor_id}", {"step_up": proof})).status == 204
    account = (await alice.call("GET", "account")).body
    assert (account["factors"], account["recovery_codes_left"]) == ([], None)


async def test_the_last_factor_stays_while_there_are_keys(alice: Customer) -> None:
    assert (await alice.create()).status == 201
    for method, path, body in (
        ("DELETE", f"factors/{alice.factor_id}", None),
        ("POST", "step-up", {"intent": {"action": "remove_factor", "factor_id": alice.factor_id}}),
    ):
        refused = await alice.call(method, path, body)
        assert (refused.status, refused.code) == (409, "last_factor")


async def test_a_lost_phone_is_replaced_with_a_recovery_code(alice: Customer) -> None:
    challenge = await alice.challenge("add_factor", kind="totp")
    proof = {"challenge_id": challenge, "recovery_code": alice.recovery_codes[3]}
    assert (await alice.call("POST", "factors/totp", {"step_up": proof})).status == 201
    assert (await alice.call("GET", "account")).body["recovery_codes_left"] == 9


async def test_renewed_recovery_codes_void_the_old_ones(alice: Customer) -> None:
    renewed = await alice.call("POST", "recovery-codes", {"step_up": await alice.proof("renew_recovery_codes")})
    assert renewed.status == 201
    assert not set(renewed.body["recovery_codes"]) & set(alice.recovery_codes)
    proof = {"challenge_id": await alice.challenge("renew_recovery_codes"), "recovery_code": alice.recovery_codes[0]}
    assert (await alice.call("POST", "recovery-codes", {"step_up": proof})).body["reason"] == "wrong_code"


async def test_of_two_confirmations_at_once_exactly_one_wins(service: Service) -> None:
    bob = service.customer("bob")
    started = (await bob.call("POST", "factors/totp")).body
    code = pyotp.TOTP(started["secret"]).generate_otp(clock.now_ms() // 30_000)
    path = f"factors/totp/{started['id']}/confirm"
    replies = await asyncio.gather(*(bob.call("POST", path, {"code": code}) for _ in range(4)))
    assert sorted(reply.status for reply in replies) == [200, 404, 404, 404]


@pytest.mark.parametrize(("name", "code"), [("", 201), ("x" * 64, 201), ("x" * 65, 422), ("a\u202eb", 422), ("   ", 422)])
async def test_a_factors_name_keeps_the_rules_of_labels(service: Service, name: str, code: int) -> None:
    assert (await service.customer("bob").call("POST", "factors/totp", {"name": name})).status == code


async def test_an_unknown_factor_is_not_found(alice: Customer) -> None:
    assert (await alice.call("DELETE", "factors/fac_unknown", {})).status == 404
    assert (await alice.call("POST", "step-up", {"intent": {"action": "remove_factor", "factor_id": "x"}})).status == 404


async def test_factors_are_in_the_audit_without_their_secrets(alice: Customer) -> None:
    proof = await alice.proof("remove_factor", factor_id=alice.factor_id)
    await alice.call("DELETE", f"factors/{alice.factor_id}", {"step_up": proof})
    answer = await alice.call("GET", "audit")
    assert [event["event"] for event in answer.body["events"]] == ["factor_removed", "factor_added", "kyc_changed"]
    assert alice.secret not in answer.text
