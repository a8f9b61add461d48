"""What the admin API refuses, each with the contract's code, and that nothing was made then."""

import pytest

from gateway.runtime import clock
from tests.support.customer import STEP_MS, WISH


def refused(reply, status, code):
    assert (reply.status, reply.content.get("code")) == (status, code), reply
    return reply.content


@pytest.fixture(scope="module")
def customer(customer_of):
    """For whatever is refused before a code is spent."""
    return customer_of()


def test_an_unverified_account_creating_a_key(customer_of):
    customer = customer_of("unverified", enrol=False)
    told = refused(customer.call("POST", "keys", WISH | {"step_up": {"challenge_id": "x", "totp": "000000"}}), 403, "kyc_required")
    assert told["detail"]
    refused(customer.call("POST", "step-up", {"intent": WISH | {"action": "create_key"}}), 403, "kyc_required")


def test_a_wrong_code(customer_of):
    customer = customer_of()
    proof = customer.step_up(action="create_key", **WISH)
    wrong = f"{(int(proof['totp']) + 1) % 1_000_000:06}"
    refused(customer.call("POST", "keys", WISH | {"step_up": proof | {"totp": wrong}}), 403, "step_up_failed")
    assert customer.call("GET", "keys").content == {"keys": []}


def test_a_code_used_twice(customer_of):
    customer = customer_of()
    first = customer.step_up(action="create_key", **WISH)
    customer.expect(201, "POST", "keys", WISH | {"step_up": first})
    challenge = customer.expect(201, "POST", "step-up", {"intent": WISH | {"action": "create_key"}})["challenge_id"]
    again = {"challenge_id": challenge, "totp": first["totp"]}
    refused(customer.call("POST", "keys", WISH | {"step_up": again}), 403, "step_up_failed")
    assert len(customer.call("GET", "keys").content["keys"]) == 1


def test_an_expired_code(customer_of):
    customer = customer_of()
    proof = customer.step_up(action="create_key", **WISH) | {"totp": customer.code(step=clock.now_ms() // STEP_MS - 3)}
    refused(customer.call("POST", "keys", WISH | {"step_up": proof}), 403, "step_up_failed")


@pytest.mark.parametrize("changed", [{"label": "Another"}, {"scopes": ["read"]}, {"ip_access": "whitelisted", "ip_allowlist": ["8.8.8.8"]}])
def test_a_step_up_done_for_another_intent(customer_of, changed):
    customer = customer_of()
    proof = customer.step_up(action="create_key", **WISH)
    refused(customer.call("POST", "keys", WISH | changed | {"step_up": proof}), 403, "step_up_failed")
    assert customer.call("GET", "keys").content == {"keys": []}


def field_errors(reply):
    return {(error["field"], error["code"]) for error in refused(reply, 422, "invalid_request")["errors"]}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("192.168.1.10", "not_public"),
        ("10.0.0.1", "not_public"),
        ("127.0.0.1", "not_public"),
        ("::1", "not_public"),
        ("fe80::1", "not_public"),
        ("::ffff:10.0.0.1", "not_public"),
        ("224.0.0.1", "not_public"),
        ("203.0.113.7", "not_public"),
        ("1.2.3", "not_an_address"),
        ("0x08.8.8.8", "not_an_address"),
    ],
)
def test_an_address_that_is_not_a_public_one(customer, address, code):
    wish = WISH | {"ip_access": "whitelisted", "ip_allowlist": [address], "action": "create_key"}
    ((field, found),) = field_errors(customer.call("POST", "step-up", {"intent": wish}))
    assert field.startswith("ip_allowlist")
    assert found == code


def test_a_fourth_address(customer):
    wish = WISH | {"ip_access": "whitelisted", "ip_allowlist": ["8.8.8.8", "8.8.4.4", "1.1.1.1", "9.9.9.9"], "action": "create_key"}
    assert ("ip_allowlist", "too_many") in field_errors(customer.call("POST", "step-up", {"intent": wish}))


@pytest.mark.parametrize("label", ["", "x" * 65])
def test_a_label_that_is_empty_or_too_long(customer, label):
    ((field, _code),) = field_errors(customer.call("POST", "step-up", {"intent": WISH | {"label": label, "action": "create_key"}}))
    assert field == "label"


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_key_cannot_be_edited(customer_of, method):
    customer = customer_of()
    key = customer.create_key()
    refused(customer.call(method, f"keys/{key['key_id']}", {"label": "New"}), 405, "immutable_key")


def test_no_token_and_a_wrong_token(system, customer):
    customer_token, customer.token = customer.token, None
    refused(customer.call("GET", "keys"), 401, "unauthenticated")
    customer.token = customer_token[:-4] + "AAAA"
    refused(customer.call("GET", "keys"), 401, "unauthenticated")
    customer.token = customer_token


def test_the_internal_api_wants_the_service_token_and_is_not_on_the_public_port(system, operator):
    wrong = operator("accounts", "show", "demo", GERBANG_INTERNAL_TOKEN="x" * 43)
    assert (wrong.returncode, wrong.stderr.startswith("Error: ")) == (1, True)
    assert f"{system.internal_url} did not accept the service token from the variable GERBANG_INTERNAL_TOKEN" in wrong.stderr
    public = operator("accounts", "show", "demo", GERBANG_INTERNAL_URL=system.admin_url)
    assert public.returncode == 1
    assert '"kyc": "verified"' in operator("accounts", "show", "demo").stdout


def test_an_account_without_a_factor_left_is_reset_by_the_operator_and_its_keys_stand_still_until_the_thaw(customer_of, bot_of, operator):
    customer = customer_of()
    bot = bot_of(customer.create_key())
    assert bot.call("GET", "/v1/wallets").status == 200
    done = operator("accounts", "reset-factors", customer.account, "--reason", "lost phone")
    assert (done.returncode, "frozen until gerbang accounts thaw" in done.stdout) == (0, True), done
    assert bot.becomes("account_frozen").status == 403
    refused(customer.call("GET", "keys"), 401, "unauthenticated")
    assert operator("accounts", "reset-factors", customer.account).returncode == 2
    assert operator("accounts", "reset-factors", "nobody-at-all", "--reason", "x").returncode == 1
    assert operator("accounts", "thaw", customer.account).returncode == 0
    bot.becomes(200)


def test_an_accounts_keys_are_nobody_elses(customer_of):
    owner, other = customer_of(), customer_of()
    key = owner.create_key()
    assert other.call("GET", f"keys/{key['key_id']}").status == 404
    assert other.call("GET", "keys").content == {"keys": []}


def test_the_audit_trail_is_whole_and_tells_the_owner_what_happened(system, customer_of, operator):
    customer = customer_of()
    customer.create_key()
    assert "key_created" in str(customer.call("GET", "audit").content)
    dsn = (system.folder / "secrets" / "postgres-admin").read_text().strip()
    assert "events, intact" in operator("audit", "verify", "--dsn", dsn).stdout
