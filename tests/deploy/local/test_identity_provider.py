"""deploy.local.identity_provider: the demo provider keeps the rules a real one keeps."""

import base64
import hashlib
import re
import stat
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from deploy.local.identity_provider import IdentityProvider, load_key

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "http://127.0.0.1:8090/callback"
ASKED = {
    "client_id": "gerbang",
    "response_type": "code",
    "scope": "openid email",
    "redirect_uri": CALLBACK,
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "nonce": "n-1",
    "state": "s-1",
}
KEY = RSAKey.generate_key(2048)


@pytest.fixture
async def provider(aiohttp_client):
    return await aiohttp_client(IdentityProvider("http://127.0.0.1:8091", KEY).application())


async def claims_of(provider, token):
    keys = KeySet.import_key_set(await (await provider.get("/jwks.json")).json())
    return jwt.decode(token, keys, algorithms=["RS256"]).claims


async def login(provider, account="verified", **changed):
    answer = await provider.post("/authorize", data=ASKED | changed | {"account": account}, allow_redirects=False)
    assert answer.status == 303
    assert answer.headers["Location"].startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def redeem(code, **changed):
    return {
        "grant_type": "authorization_code",
        "client_id": "gerbang",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    } | changed


async def test_a_login_ends_in_a_token_with_the_nonce_that_was_asked(provider):
    answer = await login(provider)
    assert (answer["state"], answer["iss"]) == ("s-1", "http://127.0.0.1:8091")
    token = (await (await provider.post("/token", data=redeem(answer["code"]))).json())["id_token"]
    claims = await claims_of(provider, token)
    assert (claims["sub"], claims["aud"], claims["kyc"], claims["nonce"]) == ("verified", "gerbang", "verified", "n-1")


async def test_the_login_page_offers_a_verified_and_an_unverified_customer_and_escapes_what_it_carries(provider):
    page = await (await provider.get("/authorize", params=ASKED | {"state": '"><script>'})).text()
    assert re.findall(r'name="account" value="(\w+)"', page) == ["verified", "unverified"]
    assert "<script>" not in page


async def test_a_code_is_good_once(provider):
    code = (await login(provider))["code"]
    assert (await provider.post("/token", data=redeem(code))).status == 200
    second = await provider.post("/token", data=redeem(code))
    assert (second.status, (await second.json())["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/other"}, "invalid_grant"),
        ({"code": "guess"}, "invalid_grant"),
        ({"client_id": "other"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
async def test_a_code_is_not_redeemed_otherwise_than_it_was_given(provider, changed, error):
    code = (await login(provider))["code"]
    answer = await provider.post("/token", data=redeem(code) | changed)
    assert (answer.status, (await answer.json())["error"]) == (400, error)


@pytest.mark.parametrize("target", ["https://attacker.example/", "http://127.0.0.1.attacker.example/", "javascript:alert(1)", ""])
async def test_a_code_goes_to_loopback_only(provider, target):
    answer = await provider.post("/authorize", data=ASKED | {"redirect_uri": target, "account": "verified"}, allow_redirects=False)
    assert answer.status == 400
    assert "Location" not in answer.headers


async def test_pkce_is_not_optional(provider):
    answer = await provider.get("/authorize", params=ASKED | {"code_challenge_method": "plain"}, allow_redirects=False)
    assert parse_qs(urlsplit(answer.headers["Location"]).query)["error"] == ["invalid_request"]


@pytest.mark.parametrize(("account", "kyc"), [("verified", "verified"), ("unverified", "unverified"), ("siti-2", "verified")])
async def test_demo_token_speaks_for_the_account_it_was_asked_for(provider, account, kyc):
    token = (await (await provider.post("/demo-token", data={"account": account})).json())["id_token"]
    claims = await claims_of(provider, token)
    assert (claims["sub"], claims["kyc"]) == (account, kyc)


async def test_two_logins_in_one_second_are_two(provider):
    answers = [await (await provider.post("/demo-token", data={"account": "verified"})).json() for _ in range(2)]
    assert answers[0]["id_token"] != answers[1]["id_token"]


@pytest.mark.parametrize("account", ["", "A", "a b", "a" * 65, "../x"])
async def test_demo_token_refuses_a_name_that_is_none(provider, account):
    assert (await provider.post("/demo-token", data={"account": account})).status == 400


def test_the_signing_key_is_made_once_and_is_nobody_elses_to_read(tmp_path):
    first = load_key(tmp_path / "key.pem")
    assert load_key(tmp_path / "key.pem").thumbprint() == first.thumbprint()
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
