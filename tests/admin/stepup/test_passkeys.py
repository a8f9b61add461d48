"""WebAuthn ceremonies: what proves a passkey, and everything that does not."""

import contextlib
import json
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.stepup.passkeys import (
    Passkey,
    PasskeyRefused,
    RelyingParty,
    assertion_options,
    claimed_credential_id,
    registration_options,
    user_handle,
    verify_assertion,
    verify_registration,
)
from tests.support.authenticator import Authenticator, b64, unb64

RP = RelyingParty("exchange.example", "https://exchange.example", "Exchange")


def register(device: Authenticator, *, account: str = "budi", challenge: bytes = b"c" * 32) -> Passkey:
    options = registration_options(RP, account_id=account, user_name="budi@example.com", challenge=challenge, existing=())
    return verify_registration(device.register(options), expected_challenge=challenge, relying_party=RP)


def sign(device: Authenticator, passkey: Passkey, challenge: bytes) -> dict:
    return device.assertion(assertion_options(RP, challenge=challenge, allowed=[passkey]))


def check(response: dict, passkey: Passkey, challenge: bytes, *, account: str = "budi") -> int:
    return verify_assertion(response, expected_challenge=challenge, relying_party=RP, passkey=passkey, expected_account=account)


def test_options_demand_user_verification_and_name_what_exists():
    passkey = register(Authenticator())
    creation = registration_options(RP, account_id="budi", user_name="", challenge=b"x" * 32, existing=[passkey])
    request = assertion_options(RP, challenge=b"y" * 32, allowed=[passkey])
    assert creation["authenticatorSelection"]["userVerification"] == request["userVerification"] == "required"
    assert creation["rp"]["id"] == request["rpId"] == "exchange.example"
    assert [item["id"] for item in creation["excludeCredentials"]] == [b64(passkey.credential_id)]
    assert request["allowCredentials"][0]["transports"] == ["internal", "hybrid"]
    assert unb64(creation["challenge"]) == b"x" * 32
    assert "budi" not in creation["user"]["id"]
    assert creation["user"]["name"] == "budi"


def test_a_registered_passkey_proves_a_challenge():
    device = Authenticator()
    passkey = register(device)
    challenge = secrets.token_bytes(32)
    assert passkey.credential_id == device.credential_id
    assert passkey.transports == ("internal", "hybrid")
    assert check(sign(device, passkey, challenge), passkey, challenge) == device.counter


def test_a_passkey_survives_the_store():
    passkey = register(Authenticator())
    assert Passkey.from_json(passkey.to_json()) == passkey


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "https://exchange.example.evil.example"},
        {"origin": "http://exchange.example"},
        {"rp_id": "evil.example"},
        {"verified": False},
        {"present": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("ceremony", ["create", "get"])
def test_another_origin_or_relying_party_or_an_unverified_user_is_refused(ceremony, change):
    honest = Authenticator()
    passkey = register(honest)
    device = Authenticator(**change, key=honest.key, credential_id=honest.credential_id, counter=honest.counter)
    with pytest.raises(PasskeyRefused):
        register(device) if ceremony == "create" else check(sign(device, passkey, b"c" * 32), passkey, b"c" * 32)


def test_another_challenge_is_refused():
    device = Authenticator()
    passkey = register(device)
    with pytest.raises(PasskeyRefused, match="challenge"):
        check(sign(device, passkey, b"a" * 32), passkey, b"b" * 32)
    options = registration_options(RP, account_id="budi", user_name="b", challenge=b"a" * 32, existing=())
    with pytest.raises(PasskeyRefused, match="challenge"):
        verify_registration(Authenticator().register(options), expected_challenge=b"b" * 32, relying_party=RP)


@pytest.mark.parametrize("behind", [0, 1])
def test_a_counter_that_does_not_grow_betrays_a_clone(behind):
    device = Authenticator()
    passkey = register(device)
    seen = check(sign(device, passkey, b"1" * 32), passkey, b"1" * 32)
    kept = Passkey(credential_id=passkey.credential_id, public_key=passkey.public_key, sign_count=seen)
    device.counter = seen - 1 - behind
    with pytest.raises(PasskeyRefused, match="sign count"):
        check(sign(device, kept, b"2" * 32), kept, b"2" * 32)


def test_an_authenticator_that_never_counts_is_accepted():
    device = Authenticator(counter=-1)
    passkey = register(device)
    assert passkey.sign_count == 0
    device.counter = -1
    assert check(sign(device, passkey, b"1" * 32), passkey, b"1" * 32) == 0


def test_a_signature_by_another_key_or_another_accounts_handle_is_refused():
    device = Authenticator()
    passkey = register(device)
    thief = Authenticator(credential_id=device.credential_id, counter=device.counter, user_handle=device.user_handle)
    with pytest.raises(PasskeyRefused):
        check(sign(thief, passkey, b"1" * 32), passkey, b"1" * 32)
    with pytest.raises(PasskeyRefused, match="user handle"):
        check(sign(device, passkey, b"2" * 32), passkey, b"2" * 32, account="siti")
    device.user_handle = None
    assert check(sign(device, passkey, b"3" * 32), passkey, b"3" * 32) > 0


def test_a_registration_is_no_assertion_and_the_reverse():
    device = Authenticator()
    passkey = register(device)
    options = registration_options(RP, account_id="budi", user_name="b", challenge=b"1" * 32, existing=())
    with pytest.raises(PasskeyRefused):
        check(device.register(options), passkey, b"1" * 32)
    with pytest.raises(PasskeyRefused):
        verify_registration(sign(device, passkey, b"1" * 32), expected_challenge=b"1" * 32, relying_party=RP)


def test_a_response_for_another_credential_is_refused():
    one, two = Authenticator(), Authenticator()
    first, second = register(one), register(two)
    with pytest.raises(PasskeyRefused, match="another credential"):
        check(sign(two, second, b"1" * 32), first, b"1" * 32)


def test_handles_tell_nothing_and_differ():
    assert user_handle("budi") != user_handle("siti")
    assert len(user_handle("budi" * 60)) == 32


def test_every_changed_byte_of_an_assertion_is_refused():
    device = Authenticator()
    passkey = register(device)
    response = sign(device, passkey, b"1" * 32)
    for member in ("clientDataJSON", "authenticatorData", "signature"):
        raw = unb64(response["response"][member])
        for index in range(0, len(raw), 3):
            broken = json.loads(json.dumps(response))
            broken["response"][member] = b64(raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :])
            with pytest.raises(PasskeyRefused):
                check(broken, passkey, b"1" * 32)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "rawId": JSON,
        "type": st.just("public-key") | JSON,
        "response": st.dictionaries(
            st.sampled_from(["clientDataJSON", "authenticatorData", "signature", "attestationObject", "userHandle", "transports"]), JSON
        )
        | JSON,
    },
)
PASSKEY = register(Authenticator(credential_id=b"known"))


@given(response=RESPONSES)
def test_no_answer_of_a_browser_raises_anything_but_a_refusal(response):
    with pytest.raises(PasskeyRefused):
        verify_registration(response, expected_challenge=b"1" * 32, relying_party=RP)
    with pytest.raises(PasskeyRefused):
        verify_assertion(
            response | {"id": b64(b"known")}, expected_challenge=b"1" * 32, relying_party=RP, passkey=PASSKEY, expected_account="budi"
        )


@given(claimed=JSON)
def test_the_claimed_credential_id_is_bytes_or_a_refusal(claimed):
    with contextlib.suppress(PasskeyRefused):
        assert isinstance(claimed_credential_id({"id": claimed}), bytes)
