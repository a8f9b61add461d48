"""Keys over the API: created with a proof for exactly this key, listed, shown, deleted, never changed."""

from datetime import datetime

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.keys.ids import is_key_id, looks_like_secret
from tests.support.admin import KEY, Customer, Service, running_service, settings_for
from tests.support.issuer import Issuer
from tests.support.stack import Database

ED25519 = Ed25519PrivateKey.generate()
PEM = ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


async def test_a_key_is_created_with_its_secret_and_nothing_keeps_the_answer(alice: Customer) -> None:
    created = await alice.create(label="Spread bot", scopes=["trade", "read"], expires_in_days=30)
    assert created.status == 201
    assert created.headers["Cache-Control"] == "no-store"
    key = created.body["key"]
    assert is_key_id(key["id"])
    assert looks_like_secret(created.body["secret"])
    assert {name: key[name] for name in ("label", "scopes", "ip_access", "ip_allowlist", "algorithm", "status")} == {
        "label": "Spread bot",
        "scopes": ["read", "trade"],
        "ip_access": "whitelisted",
        "ip_allowlist": ["8.8.8.8"],
        "algorithm": "hmac-sha256",
        "status": "active",
    }
    assert (datetime.fromisoformat(key["expires_at"]) - datetime.fromisoformat(key["created_at"])).days == 30
    assert (key["last_used_at"], key["last_used_ip"]) == (None, None)


async def test_a_key_is_listed_and_shown_without_its_secret(alice: Customer) -> None:
    created = (await alice.create()).body
    listed = await alice.call("GET", "keys")
    shown = await alice.call("GET", f"keys/{created['key']['id']}")
    assert listed.body == {"keys": [created["key"]]}
    assert shown.body == created["key"]
    assert created["secret"] not in listed.text + shown.text


async def test_head_tells_what_get_would_without_the_body(alice: Customer) -> None:
    head = await alice.call("HEAD", "keys")
    assert (head.status, head.text) == (200, "")


async def test_a_public_key_brings_no_secret(alice: Customer) -> None:
    created = await alice.create(algorithm="ed25519", public_key=PEM)
    assert (created.status, created.body["secret"]) == (201, None)


@pytest.mark.parametrize("none", [[], None])
async def test_unrestricted_access_has_no_list(alice: Customer, none: list[str] | None) -> None:
    created = await alice.create(ip_access="unrestricted", ip_allowlist=none)
    assert (created.body["key"]["ip_access"], created.body["key"]["ip_allowlist"]) == ("unrestricted", [])


async def test_a_deleted_key_is_gone(alice: Customer) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    deleted = await alice.delete(key_id)
    assert (deleted.status, deleted.text) == (204, "")
    assert (await alice.call("GET", "keys")).body == {"keys": []}
    assert (await alice.call("GET", f"keys/{key_id}")).status == 404
    assert (await alice.call("DELETE", f"keys/{key_id}", {})).status == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_a_key_cannot_be_changed(alice: Customer, method: str) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    refused = await alice.call(method, f"keys/{key_id}", {"label": "Another"})
    assert (refused.status, refused.code) == (405, "immutable_key")
    assert "delete" in refused.body["detail"].lower()
    assert refused.headers["Allow"] == "GET, HEAD, DELETE"


async def test_another_account_sees_and_deletes_nothing(alice: Customer, service: Service) -> None:
    key_id = (await alice.create()).body["key"]["id"]
    bob = service.customer("bob")
    await bob.enrol()
    assert (await bob.call("GET", "keys")).body == {"keys": []}
    for method in ("GET", "DELETE"):
        assert (await bob.call(method, f"keys/{key_id}", {} if method == "DELETE" else None)).code == "not_found"
    refused = await bob.call("POST", "step-up", {"intent": {"action": "delete_key", "key_id": key_id}})
    assert (refused.status, refused.code) == (404, "not_found")
    assert len((await alice.call("GET", "keys")).body["keys"]) == 1


@pytest.mark.parametrize("key_id", ["nonsense", "gbk_" + "0" * 28, "%00", "a%2Fb", "x" * 300])
async def test_a_malformed_key_id_is_simply_not_found(alice: Customer, key_id: str) -> None:
    assert (await alice.call("GET", f"keys/{key_id}")).status == 404


@pytest.mark.parametrize("claims", [{"kyc": "unverified"}, {"kyc": None}, {"kyc": "pending"}])
async def test_an_unverified_account_gets_no_key_and_is_told_the_way(service: Service, claims: dict[str, object]) -> None:
    customer = service.customer("carol", **claims)
    await customer.enrol()
    for path, body in (("keys", KEY), ("step-up", {"intent": {"action": "create_key", **KEY}})):
        refused = await customer.call("POST", path, body)
        assert (refused.status, refused.code) == (403, "kyc_required")
        assert "verif" in refused.body["detail"].lower()


async def test_without_a_factor_no_key(service: Service) -> None:
    refused = await service.customer("dave").call("POST", "keys", KEY)
    assert (refused.status, refused.code) == (403, "factor_required")


async def test_without_a_proof_no_key(alice: Customer) -> None:
    refused = await alice.call("POST", "keys", KEY)
    assert (refused.status, refused.code) == (403, "step_up_required")


@pytest.mark.parametrize(
    "address",
    [
        ("192.168.1.10", "not_public"), ("10.0.0.1", "not_public"), ("127.0.0.1", "not_public"), ("::1", "not_public"),
        ("fe80::1", "not_public"), ("::ffff:10.0.0.1", "not_public"), ("224.0.0.1", "not_public"), ("203.0.113.7", "not_public"),
        ("1.2.3", "not_an_address"), ("0x08.8.8.8", "not_an_address"),
    ],
)  # fmt: skip
async def test_an_address_that_cannot_be_listed_is_refused_before_any_code(alice: Customer, address: tuple[str, str]) -> None:
    text, code = address
    wish = {**KEY, "ip_allowlist": ["8.8.4.4", text]}
    for path, body in (("keys", wish), ("step-up", {"intent": {"action": "create_key", **wish}})):
        refused = await alice.call("POST", path, body)
        assert (refused.status, refused.code, refused.errors) == (422, "invalid_request", [("ip_allowlist[1]", code)])


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"ip_allowlist": ["8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1"]}, [("ip_allowlist", "too_many")]),
        ({"ip_allowlist": ["8.8.8.8", "::ffff:8.8.8.8"]}, [("ip_allowlist[1]", "duplicate")]),
        ({"ip_allowlist": []}, [("ip_allowlist", "required")]),
        ({"label": ""}, [("label", "required")]),
        ({"label": "x" * 65}, [("label", "too_long")]),
        ({"label": "a\u0000b"}, [("label", "not_printable")]),
        ({"label": None}, [("label", "required")]),
        ({"label": 5}, [("label", "wrong_type")]),
        ({"scopes": []}, [("scopes", "required")]),
        ({"scopes": ["withdraw"]}, [("scopes[0]", "not_a_choice")]),
        ({"scopes": "read"}, [("scopes", "wrong_type")]),
        ({"ip_access": "open"}, [("ip_access", "not_a_choice")]),
        ({"algorithm": "none"}, [("algorithm", "not_a_choice")]),
        ({"algorithm": "ed25519"}, [("public_key", "required")]),
        ({"algorithm": "ed25519", "public_key": "hello"}, [("public_key", "not_a_public_key")]),
        ({"algorithm": "rsa-sha256", "public_key": PEM}, [("public_key", "wrong_key_type")]),
        ({"expires_in_days": 0}, [("expires_in_days", "out_of_range")]),
        ({"expires_in_days": True}, [("expires_in_days", "wrong_type")]),
        ({"expires_in_days": 1.5}, [("expires_in_days", "wrong_type")]),
        ({"expires_in_days": 10**30}, [("expires_in_days", "out_of_range")]),
        ({"secret": "mine"}, [("secret", "unknown")]),
        ({"step_up": {"challenge_id": "x"}}, [("step_up", "invalid")]),
        ({"step_up": {"challenge_id": "x", "totp": "1", "recovery_code": "2"}}, [("step_up", "invalid")]),
        ({"step_up": {"challenge_id": "\u0000", "totp": "1"}}, [("step_up.challenge_id", "malformed")]),
    ],
)
async def test_a_wrong_member_is_told_at_its_field(alice: Customer, changes: dict[str, object], errors: list[tuple[str, str]]) -> None:
    refused = await alice.call("POST", "keys", {**KEY, **changes})
    assert (refused.status, refused.errors) == (422, errors)
    assert all(error["message"] for error in refused.body["errors"])


async def test_a_private_key_is_refused_and_never_repeated(alice: Customer, capfd: pytest.CaptureFixture[str]) -> None:
    private = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    refused = await alice.call("POST", "keys", {**KEY, "algorithm": "ed25519", "public_key": private})
    assert refused.errors == [("public_key", "private_key")]
    assert private.splitlines()[1] not in refused.text + "".join(capfd.readouterr())


async def test_the_key_limit_is_told_before_any_code_is_spent(issuer: Issuer, database: Database, redis_url: str) -> None:
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, keys={"per_account": 1}), issuer) as service:
        customer = service.customer()
        await customer.enrol()
        assert (await customer.create()).status == 201
        for path, body in (("keys", KEY), ("step-up", {"intent": {"action": "create_key", **KEY}})):
            refused = await customer.call("POST", path, body)
            assert (refused.status, refused.code, refused.body["key_limit"]) == (409, "key_limit_reached", 1)


async def test_an_expired_key_says_so(alice: Customer, database: Database) -> None:
    key_id = (await alice.create(expires_in_days=1)).body["key"]["id"]
    owner = await asyncpg.connect(database.owner_dsn)
    await owner.execute("UPDATE api_keys SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day'")
    await owner.close()
    assert (await alice.call("GET", f"keys/{key_id}")).body["status"] == "expired"
