"""Step-up over the API: a challenge is good for one intent, one account, two minutes, once; guessing is slowed down."""

import asyncio
from typing import Any

import asyncpg
import pyotp
import pytest

from admin.identity import accounts
from admin.stepup.proof import FREE_ACCOUNT_FAILURES, FREE_FAILURES
from gateway.runtime import clock
from tests.support.admin import KEY, Customer, Service
from tests.support.stack import Database

FIRST_PEM, SECOND_PEM = (
    f"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA{point}\n-----END PUBLIC KEY-----"
    for point in ("Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
)


async def owner(database: Database, statement: str, *values: object) -> Any:
    connection = await asyncpg.connect(database.owner_dsn)
    try:
        return await connection.fetchval(statement, *values)
    finally:
        await connection.close()


async def refused(customer: Customer, reason: str, step_up: dict[str, object], **changes: object) -> None:
    reply = await customer.call("POST", "keys", {**KEY, **changes, "step_up": step_up})
    assert (reply.status, reply.code, reply.body["reason"]) == (403, "step_up_failed", reason)
    assert (await customer.call("GET", "keys")).body == {"keys": []}


async def test_the_challenge_says_how_it_can_be_answered_and_until_when(alice: Customer) -> None:
    reply = await alice.call("POST", "step-up", {"intent": {"action": "create_key", **KEY}})
    assert (reply.status, reply.body["methods"], reply.body["passkey"]) == (201, ["totp"], None)
    assert reply.headers["Cache-Control"] == "no-store"


async def test_a_wrong_code_is_refused_and_the_challenge_stays_good(alice: Customer) -> None:
    challenge = await alice.challenge("create_key", **KEY)
    await refused(alice, "wrong_code", {"challenge_id": challenge, "totp": "000000"})
    again = await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": challenge, "totp": alice.code()}})
    assert again.status == 201


async def test_a_code_is_refused_the_second_time(alice: Customer) -> None:
    code = alice.code()
    step_up = {"challenge_id": await alice.challenge("create_key", **KEY), "totp": code}
    created = await alice.call("POST", "keys", {**KEY, "step_up": step_up})
    key_id = created.body["key"]["id"]
    challenge = await alice.challenge("delete_key", key_id=key_id)
    reply = await alice.call("DELETE", f"keys/{key_id}", {"step_up": {"challenge_id": challenge, "totp": code}})
    assert (reply.code, reply.body["reason"]) == ("step_up_failed", "code_already_used")


async def test_an_older_step_is_refused_after_a_newer_one(alice: Customer) -> None:
    totp, now = pyotp.TOTP(alice.secret), clock.now_ms() // 30_000
    created = await alice.call(
        "POST", "keys", {**KEY, "step_up": {"challenge_id": await alice.challenge("create_key", **KEY), "totp": totp.generate_otp(now + 1)}}
    )
    assert created.status == 201
    challenge = await alice.challenge("create_key", **KEY)
    reply = await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": challenge, "totp": totp.generate_otp(now)}})
    assert reply.body["reason"] == "code_already_used"


async def test_an_expired_code_is_refused(alice: Customer) -> None:
    old = pyotp.TOTP(alice.secret).generate_otp(clock.now_ms() // 30_000 - 3)
    await refused(alice, "wrong_code", {"challenge_id": await alice.challenge("create_key", **KEY), "totp": old})


async def test_a_challenge_is_refused_the_second_time(alice: Customer) -> None:
    challenge = await alice.challenge("create_key", **KEY)
    assert (await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": challenge, "totp": alice.code()}})).status == 201
    reply = await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": challenge, "totp": alice.code()}})
    assert (reply.code, reply.body["reason"]) == ("step_up_failed", "challenge_used")
    assert len((await alice.call("GET", "keys")).body["keys"]) == 1


async def test_a_challenge_is_refused_after_two_minutes(alice: Customer, database: Database) -> None:
    challenge = await alice.challenge("create_key", **KEY)
    life = await owner(database, "SELECT expires_ms - created_ms FROM step_up_challenges WHERE id = $1", challenge)
    assert life == 120_000
    await owner(database, "UPDATE step_up_challenges SET expires_ms = $2 WHERE id = $1", challenge, clock.now_ms())
    await refused(alice, "challenge_expired", {"challenge_id": challenge, "totp": alice.code()})


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "My Bot"},
        {"scopes": ["trade"]},
        {"scopes": ["read", "trade"]},
        {"ip_allowlist": ["8.8.4.4"]},
        {"ip_allowlist": ["8.8.8.8", "8.8.4.4"]},
        {"ip_access": "unrestricted", "ip_allowlist": []},
        {"expires_in_days": 30},
        {
            "algorithm": "ed25519",
            "public_key": FIRST_PEM,
        },
    ],
)
async def test_a_proof_for_another_key_is_refused_and_spends_no_code(alice: Customer, changes: dict[str, object]) -> None:
    code = alice.code()
    await refused(alice, "other_intent", {"challenge_id": await alice.challenge("create_key", **KEY), "totp": code}, **changes)
    again = await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": await alice.challenge("create_key", **KEY), "totp": code}})
    assert again.status == 201


async def test_another_public_key_is_another_intent(alice: Customer) -> None:
    wish = {**KEY, "algorithm": "ed25519", "public_key": FIRST_PEM}
    proof = await alice.proof("create_key", **wish)
    await refused(alice, "other_intent", proof, algorithm="ed25519", public_key=SECOND_PEM)


async def test_spelling_and_order_do_not_make_another_intent(alice: Customer) -> None:
    wish = {**KEY, "scopes": ["read", "trade"], "ip_allowlist": ["2606:4700:0:0::1111", "8.8.8.8"]}
    proof = await alice.proof("create_key", **wish)
    same = {
        **KEY,
        "scopes": ["trade", "read"],
        "ip_allowlist": ["::ffff:8.8.8.8", "2606:4700::1111"],
        "label": " My bot ",
        "expires_in_days": None,
    }
    assert (await alice.call("POST", "keys", {**same, "step_up": proof})).status == 201


async def test_a_proof_for_a_deletion_creates_nothing(alice: Customer) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    proof = await alice.proof("delete_key", key_id=key_id)
    reply = await alice.call("POST", "keys", {**KEY, "step_up": proof})
    assert reply.body["reason"] == "other_intent"


async def test_another_accounts_challenge_is_unknown(alice: Customer, service: Service) -> None:
    bob = service.customer("bob")
    await bob.enrol()
    await refused(bob, "challenge_unknown", {"challenge_id": await alice.challenge("create_key", **KEY), "totp": bob.code()})


async def test_an_invented_challenge_is_unknown(alice: Customer) -> None:
    await refused(alice, "challenge_unknown", {"challenge_id": "chl_invented", "totp": alice.code()})


async def test_of_two_redemptions_at_once_exactly_one_wins(alice: Customer) -> None:
    challenge, code = await alice.challenge("create_key", **KEY), alice.code()
    body = {**KEY, "step_up": {"challenge_id": challenge, "totp": code}}
    replies = await asyncio.gather(*(alice.call("POST", "keys", body) for _ in range(6)))
    assert sorted(reply.status for reply in replies) == [201] + [403] * 5
    assert len((await alice.call("GET", "keys")).body["keys"]) == 1


async def test_of_two_uses_of_one_code_at_once_exactly_one_wins(alice: Customer) -> None:
    code = alice.code()
    bodies = [{**KEY, "step_up": {"challenge_id": await alice.challenge("create_key", **KEY), "totp": code}} for _ in range(4)]
    replies = await asyncio.gather(*(alice.call("POST", "keys", body) for body in bodies))
    assert sorted(reply.status for reply in replies) == [201, 403, 403, 403]


async def test_wrong_codes_lock_the_login_out_for_a_while(alice: Customer, database: Database) -> None:
    challenge = await alice.challenge("create_key", **KEY)
    wrong = {**KEY, "step_up": {"challenge_id": challenge, "totp": "000000"}}
    replies = await asyncio.gather(*(alice.call("POST", "keys", wrong) for _ in range(20)))
    assert [reply.status for reply in replies].count(403) == FREE_FAILURES
    locked = next(reply for reply in replies if reply.status == 429)
    assert locked.code == "rate_limited"
    assert 0 < locked.body["retry_after_ms"] <= 31_000  # counted from each request's own moment
    assert 0 < int(locked.headers["Retry-After"]) <= 31
    right = {**KEY, "step_up": {"challenge_id": challenge, "totp": alice.code()}}
    assert (await alice.call("POST", "keys", right)).status == 429
    assert (await alice.call("POST", "step-up", {"intent": {"action": "create_key", **KEY}})).status == 429
    await owner(database, "UPDATE login_failures SET locked_until_ms = 0")
    assert (await alice.call("POST", "keys", wrong)).status == 403
    assert (await alice.call("POST", "keys", right)).body["retry_after_ms"] > 30_000
    await owner(database, "UPDATE login_failures SET locked_until_ms = 0")
    assert (await alice.call("POST", "keys", right)).status == 201
    assert await owner(database, "SELECT proof_failures FROM accounts WHERE id = 'alice'") == 0
    assert await owner(database, "SELECT count(*) FROM login_failures") == 0


async def guess(login: Customer, key_id: str, times: int) -> list[int]:
    """What the wrong codes of a login are answered with."""
    challenge = await login.challenge("delete_key", key_id=key_id)
    body = {"step_up": {"challenge_id": challenge, "totp": "000000"}}
    return [(await login.call("DELETE", f"keys/{key_id}", body)).status for _ in range(times)]


async def test_a_stolen_login_locks_itself_and_not_the_owner(alice: Customer, service: Service) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    thief = service.customer("alice", nonce="stolen")
    assert thief.headers != alice.headers
    assert await guess(thief, key_id, FREE_FAILURES + 2) == [403] * FREE_FAILURES + [429] * 2
    assert (await alice.delete(key_id)).status == 204
    reply = await thief.call("POST", "step-up", {"intent": {"action": "create_key", **KEY}})
    assert (reply.status, reply.code) == (429, "rate_limited"), "the owner's right code is nothing of the thief's"


async def test_tokens_of_one_session_of_the_provider_are_one_login(alice: Customer, service: Service) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    first, refreshed = (service.customer("alice", sid="one", nonce=nonce) for nonce in ("a", "b"))
    assert await guess(first, key_id, FREE_FAILURES) == [403] * FREE_FAILURES
    assert (await refreshed.call("POST", "step-up", {"intent": {"action": "delete_key", "key_id": key_id}})).status == 429


async def test_ever_new_logins_do_not_guess_for_ever(alice: Customer, service: Service, database: Database) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    each = FREE_FAILURES - 1
    answers = []
    for number in range(FREE_ACCOUNT_FAILURES // each):
        answers += await guess(service.customer("alice", nonce=str(number)), key_id, each)
    assert answers == [403] * FREE_ACCOUNT_FAILURES
    late = await service.customer("alice", nonce="late").call("POST", "step-up", {"intent": {"action": "delete_key", "key_id": key_id}})
    assert (late.status, late.code) == (429, "rate_limited")
    connection = await asyncpg.connect(database.owner_dsn)
    await accounts.end_logins(connection, "alice", 1, forget_failures=False)
    await connection.close()
    assert await owner(database, "SELECT proof_failures FROM accounts") == FREE_ACCOUNT_FAILURES, "ending logins buys no guesses"


async def test_a_used_code_was_no_guess(alice: Customer, database: Database) -> None:
    code = alice.code()
    key_id = (
        await alice.call("POST", "keys", {**KEY, "step_up": {"challenge_id": await alice.challenge("create_key", **KEY), "totp": code}})
    ).body["key"]["id"]
    challenge = await alice.challenge("delete_key", key_id=key_id)
    for _ in range(FREE_FAILURES + 1):
        reply = await alice.call("DELETE", f"keys/{key_id}", {"step_up": {"challenge_id": challenge, "totp": code}})
        assert (reply.status, reply.body["reason"]) == (403, "code_already_used")
    assert await owner(database, "SELECT proof_failures FROM accounts WHERE id = 'alice'") == 0
    assert (await alice.delete(key_id)).status == 204


async def test_a_lock_out_is_of_one_account(alice: Customer, service: Service, database: Database) -> None:
    await owner(database, "UPDATE accounts SET locked_until_ms = $1", clock.now_ms() + 60_000)
    bob = service.customer("bob")
    await bob.enrol()
    assert (await bob.create()).status == 201


async def test_a_recovery_code_never_makes_a_key_but_deletes_one_once(alice: Customer) -> None:
    created = await alice.create()
    reply = await alice.call(
        "POST",
        "keys",
        {**KEY, "step_up": {"challenge_id": await alice.challenge("create_key", **KEY), "recovery_code": alice.recovery_codes[0]}},
    )
    assert reply.body["reason"] == "method_not_allowed"
    key_id = created.body["key"]["id"]
    offered = await alice.call("POST", "step-up", {"intent": {"action": "delete_key", "key_id": key_id}})
    assert offered.body["methods"] == ["totp", "recovery_code"]
    proof = {"challenge_id": offered.body["challenge_id"], "recovery_code": alice.recovery_codes[0].lower()}
    assert (await alice.call("DELETE", f"keys/{key_id}", {"step_up": proof})).status == 204
    challenge = await alice.challenge("renew_recovery_codes")
    again = {"step_up": {"challenge_id": challenge, "recovery_code": alice.recovery_codes[0]}}
    assert (await alice.call("POST", "recovery-codes", again)).body["reason"] == "code_already_used"


async def test_every_failed_proof_is_in_the_audit(alice: Customer) -> None:
    await refused(alice, "wrong_code", {"challenge_id": await alice.challenge("create_key", **KEY), "totp": "000000"})
    event = (await alice.call("GET", "audit")).body["events"][0]
    assert event["event"] == "step_up_failed"
    assert event["detail"] == {"action": "create_key", "method": "totp", "reason": "wrong_code", "failures": 1}
    assert event["client_ip"] == "127.0.0.1"
