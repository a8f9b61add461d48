"""Bearer tokens: only a fresh token of the configured issuer, for this audience, by a pinned algorithm."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from multidict import CIMultiDict
from structlog.testing import capture_logs

from admin.config import Kyc as KycSettings
from admin.config import Oidc
from admin.errors import IdentityProviderUnavailable, Unauthenticated
from admin.identity import tokens
from admin.identity.caller import Kyc
from admin.identity.provider import Provider
from admin.identity.tokens import TokenVerifier, _header
from gateway.runtime import clock
from tests.support.inside import remembered
from tests.support.issuer import AUDIENCE, Issuer, running_issuer

FOREIGN = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as issuer:
        yield issuer


@pytest.fixture
async def verifier(issuer: Issuer) -> AsyncIterator[TokenVerifier]:
    async with aiohttp.ClientSession() as http:
        oidc = Oidc(issuer=issuer.url, audience=AUDIENCE, leeway_ms=2000)
        yield TokenVerifier(Provider(http, oidc), oidc, KycSettings())


async def refusal(verifier: TokenVerifier, token: str, **expected: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token, now_ms=clock.now_ms(), **expected)
    challenge = dict(caught.value.headers)[b"WWW-Authenticate"].decode()
    assert challenge.startswith('Bearer realm="gerbang", error="invalid_token", error_description="')
    assert challenge.count('"') == 6
    for part in token.split("."):
        assert len(part) < 8 or part not in f"{caught.value.detail} {caught.value.reason} {challenge}"
    return caught.value


async def test_a_good_token_names_its_account(issuer: Issuer, verifier: TokenVerifier) -> None:
    now = clock.now_ms()
    caller = await verifier.verify(issuer.token("alice", auth_time=now // 1000 - 50), now_ms=now)
    assert (caller.account_id, caller.email, caller.kyc) == ("alice", "alice@example.com", Kyc.VERIFIED)
    assert caller.authenticated_ms == (now // 1000 - 50) * 1000
    assert caller.session_id is None


@pytest.mark.parametrize(
    ("told", "kept"),
    [("a", "a"), ("a" * 320, "a" * 320), ("a" * 321, None), ("", None), ("a\nb@c", None), ("a\u202eb@c", None), (5, None), (["a@b"], None)],
)
async def test_an_email_is_printable_text_of_the_length_that_mail_has(
    issuer: Issuer, verifier: TokenVerifier, told: object, kept: str | None
) -> None:
    assert (await verifier.verify(issuer.token(email=told), now_ms=clock.now_ms())).email == kept


@pytest.mark.parametrize(
    ("verified", "kept"),
    [(True, True), ("true", True), (False, False), ("false", False), (0, False), (None, True), ("", False), ([], False), ("yes", False)],
)
async def test_an_email_that_the_provider_has_not_verified_is_nobody_s(
    issuer: Issuer, verifier: TokenVerifier, verified: object, kept: bool
) -> None:
    caller = await verifier.verify(issuer.token(email_verified=verified), now_ms=clock.now_ms())
    assert (caller.email, caller.kyc) == ("alice@example.com" if kept else None, Kyc.VERIFIED)


async def test_when_it_was_issued_is_told_and_a_login_may_be_of_that_moment(issuer: Issuer, verifier: TokenVerifier) -> None:
    now_s = clock.now_ms() // 1000
    for auth_time, kept in ((now_s, now_s), (1, 1), (now_s + 1, 0)):
        caller = await verifier.verify(issuer.token(iat=now_s, auth_time=auth_time), now_ms=now_s * 1000)
        assert (caller.issued_ms, caller.authenticated_ms) == (now_s * 1000, kept * 1000)


async def test_a_login_is_the_providers_session_or_the_token_alone(issuer: Issuer, verifier: TokenVerifier) -> None:
    async def login(**claims: object) -> str | None:
        return (await verifier.verify(issuer.token(**claims), now_ms=clock.now_ms())).token_id

    assert await login(sid="s", jti="1") == await login(sid="s", jti="2") != await login(sid="t", jti="1")
    for none in ({}, {"sid": ""}, {"sid": 5}, {"sid": None}, {"sid": True}):
        assert await login(**none, jti="1") != await login(**none, jti="2")


@pytest.mark.parametrize("claim", ["unverified", "revoked", None, True, 1, "", ["verified"], {"verified": True}])
async def test_only_the_one_value_means_verified(issuer: Issuer, verifier: TokenVerifier, claim: object) -> None:
    assert (await verifier.verify(issuer.token(kyc=claim), now_ms=clock.now_ms())).kyc is Kyc.UNVERIFIED


@pytest.mark.parametrize("auth_time", [None, "yesterday", True, -5, 2**60, float("inf")])
async def test_without_a_usable_login_time_no_login_is_fresh(issuer: Issuer, verifier: TokenVerifier, auth_time: object) -> None:
    caller = await verifier.verify(issuer.token(auth_time=auth_time), now_ms=clock.now_ms())
    assert caller.authenticated_ms == 0


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "no iss"),
        ({"aud": "another"}, "audience"),
        ({"aud": None}, "no aud"),
        ({"aud": []}, "audience"),
        ({"aud": [AUDIENCE, "another"]}, "another client"),
        ({"azp": "another"}, "another client"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "no exp"),
        ({"exp": "soon"}, "expiry"),
        ({"exp": float("nan")}, "expiry"),
        ({"iat": None}, "no iat"),
        ({"iat": 2**40}, "future"),
        ({"nbf": 2**40}, "not valid yet"),
        ({"sub": None}, "no sub"),
        ({"sub": ""}, "no account"),
        ({"sub": 5}, "no account"),
        ({"sub": "a b"}, "visible ASCII"),
        ({"sub": "a\r\nX-Key-Id: b"}, "visible ASCII"),
        ({"sub": "x" * 256}, "visible ASCII"),
    ],
)
async def test_a_wrong_claim_is_told(issuer: Issuer, verifier: TokenVerifier, claims: dict[str, object], told: str) -> None:
    assert told in (await refusal(verifier, issuer.token(**claims))).detail


async def test_a_token_is_refused_at_its_expiry_plus_the_leeway(issuer: Issuer, verifier: TokenVerifier) -> None:
    exp = clock.now_ms() // 1000 + 10
    token = issuer.token(exp=exp)
    assert await verifier.verify(token, now_ms=(exp + 1) * 1000)
    with pytest.raises(Unauthenticated):
        await verifier.verify(token, now_ms=(exp + 2) * 1000)


async def test_several_audiences_need_this_client_as_authorised_party(issuer: Issuer, verifier: TokenVerifier) -> None:
    assert await verifier.verify(issuer.token(aud=[AUDIENCE, "another"], azp=AUDIENCE), now_ms=clock.now_ms())


async def test_a_foreign_signature_under_a_known_key_id_is_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    assert "signature" in (await refusal(verifier, issuer.token(key=FOREIGN))).detail


@pytest.mark.parametrize("alg", ["none", "HS256", "RS512", "PS256"])
async def test_an_algorithm_that_is_not_pinned_is_refused(issuer: Issuer, verifier: TokenVerifier, alg: str) -> None:
    secret = OctKey.import_key(json.dumps(issuer.published[0]).encode(), {"kid": "first"})
    _, body, _ = issuer.token().split(".")
    if alg == "none":
        forged = base64.urlsafe_b64encode(b'{"alg":"none","kid":"first"}').rstrip(b"=").decode()
        token = f"{forged}.{body}."
    else:
        token = issuer.token(key=secret if alg == "HS256" else None, header={"alg": alg, "kid": "first"})
    assert "algorithm" in (await refusal(verifier, token)).detail


async def test_a_key_of_another_type_does_not_serve_a_pinned_algorithm(issuer: Issuer, verifier: TokenVerifier) -> None:
    key = ECKey.generate_key("P-256", {"kid": "curve", "use": "sig"})
    issuer.published.append(key.as_dict(private=False))
    await refusal(verifier, issuer.token(key=key, header={"alg": "ES256"}))


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt"])
async def test_a_token_of_another_kind_is_refused(issuer: Issuer, verifier: TokenVerifier, kind: str) -> None:
    assert "another type" in (await refusal(verifier, issuer.token(header={"typ": kind}))).detail


async def test_a_changed_payload_is_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    head, body, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "mallory"}).encode()).rstrip(b"=").decode()
    await refusal(verifier, f"{head}.{changed}.{signature}")


async def test_an_id_token_for_another_login_is_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token(nonce="theirs")
    assert "another login" in (await refusal(verifier, token, expected_nonce="ours")).detail
    assert await verifier.verify(token, now_ms=clock.now_ms(), expected_nonce="theirs")


@pytest.mark.parametrize("token", ["", "x", "a.b", "a.b.c", "..", "a.b.c.d.e", "é.é.é", "eyJhbGciOjV9..", "W10..", "bnVsbA..", "NQ.."])
async def test_what_is_no_jwt_is_refused(verifier: TokenVerifier, token: str) -> None:
    await refusal(verifier, token)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda b: base64.urlsafe_b64encode(b).decode().rstrip("=") + ".e30.")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_text_as_a_token_is_refused_or_read_and_never_breaks(token: str) -> None:
    with suppress(Unauthenticated):
        assert _header(token) is None or isinstance(_header(token), str)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
)
@settings(max_examples=100)
def test_any_json_as_a_header_is_refused_or_read(value: object) -> None:
    for header in (value, {"alg": value}, {"alg": "RS256", "kid": value}, {"alg": "RS256", "typ": value}):
        encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        with suppress(Unauthenticated):
            _header(f"{encoded}.e30.")


def with_headers(*values: str):
    return SimpleNamespace(headers=CIMultiDict([("Authorization", value) for value in values]))


async def test_no_header_is_not_mine(verifier: TokenVerifier) -> None:
    assert await verifier.bearer(with_headers(), clock.now_ms()) is None


async def test_the_scheme_is_read_in_any_case(issuer: Issuer, verifier: TokenVerifier) -> None:
    caller = await verifier.bearer(with_headers(f"bEARER  {issuer.token()}"), clock.now_ms())
    assert caller is not None
    assert caller.account_id == "alice"


@pytest.mark.parametrize("values", [("Basic YTpi",), ("Bearer",), ("Bearer ",), ("Bearer a", "Bearer b")])
async def test_a_header_that_is_no_single_bearer_token_is_refused(verifier: TokenVerifier, values: tuple[str, ...]) -> None:
    with pytest.raises(Unauthenticated):
        await verifier.bearer(with_headers(*values), clock.now_ms())


async def test_without_keys_nobody_is_believed_and_nobody_is_called_a_liar(issuer: Issuer, verifier: TokenVerifier) -> None:
    issuer.fail_with = 500
    with pytest.raises(IdentityProviderUnavailable):
        await verifier.verify(issuer.token(), now_ms=clock.now_ms())


async def test_a_bearer_token_of_another_client_of_the_provider_is_taken_when_the_settings_name_it(issuer: Issuer) -> None:
    oidc = Oidc(issuer=issuer.url, audience=AUDIENCE, other_clients=("app",))
    async with aiohttp.ClientSession() as http:
        verifier = TokenVerifier(Provider(http, oidc), oidc, KycSettings())
        accepted: list[dict[str, Any]] = [{"azp": "app"}, {"azp": AUDIENCE}, {"aud": [AUDIENCE, "app"], "azp": "app"}]
        for claims in accepted:
            assert await verifier.verify(issuer.token(**claims), now_ms=clock.now_ms())
        refused: list[dict[str, Any]] = [{"azp": "another"}, {"azp": ["app"]}, {"azp": 5}, {"aud": "app", "azp": "app"}]
        for claims in refused:
            assert await refusal(verifier, issuer.token(**claims))


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # of signing by the older name
@pytest.mark.parametrize(("accepted", "used", "taken"), [("EdDSA", "EdDSA", True), ("Ed25519", "Ed25519", True), ("RS256", "EdDSA", False)])
async def test_ed25519_is_accepted_by_its_older_name(issuer: Issuer, accepted: str, used: str, taken: bool) -> None:
    key = OKPKey.generate_key("Ed25519", {"kid": "edwards", "use": "sig"})
    issuer.published.append(key.as_dict(private=False))
    oidc = Oidc.model_validate({"issuer": issuer.url, "audience": AUDIENCE, "algorithms": [accepted]})
    token = issuer.token(key=key, header={"alg": used, "kid": "edwards"})
    async with aiohttp.ClientSession() as http:
        verifier = TokenVerifier(Provider(http, oidc), oidc, KycSettings())
        if taken:
            assert (await verifier.verify(token, now_ms=clock.now_ms())).account_id == "alice"
        else:
            assert "algorithm" in (await refusal(verifier, token)).detail


@pytest.mark.parametrize(
    ("token", "told", "expected"),
    [
        ({"email": None, "kyc": None}, {"sub": "alice", "email": "a@example.com", "kyc": "verified"}, ("a@example.com", Kyc.VERIFIED)),
        ({"kyc": None}, {"sub": "alice", "email": "b@example.com", "kyc": "verified"}, ("alice@example.com", Kyc.VERIFIED)),
        ({"email": None}, {"sub": "alice", "email": "a@example.com", "email_verified": False}, (None, Kyc.VERIFIED)),
        (
            {"email": None, "email_verified": True},
            {"sub": "alice", "email": "a@example.com", "email_verified": False},
            (None, Kyc.VERIFIED),
        ),
        ({"email": None, "email_verified": False}, {"sub": "alice", "email": "a@example.com"}, ("a@example.com", Kyc.VERIFIED)),
        ({"kyc": None}, {"sub": "alice", "email_verified": False, "kyc": "verified"}, ("alice@example.com", Kyc.VERIFIED)),
        ({"kyc": None}, {"sub": "alice"}, ("alice@example.com", Kyc.UNVERIFIED)),
        ({"kyc": None}, 401, ("alice@example.com", Kyc.UNVERIFIED)),
        ({"kyc": None}, 403, ("alice@example.com", Kyc.UNVERIFIED)),
    ],
)
async def test_what_a_bearer_token_does_not_say_is_asked_at_userinfo_once_a_minute(issuer, verifier, token, told, expected) -> None:
    issuer.discovery = {"userinfo_endpoint": f"{issuer.url}/userinfo"}
    issuer.told = told
    request, now_ms = with_headers("Bearer " + issuer.token(**token)), clock.now_ms()
    for later_ms, asked in ((0, 1), (59_999, 1), (60_000, 2)):
        caller = await verifier.bearer(request, now_ms + later_ms)
        assert (caller.email, caller.kyc) == expected
        assert issuer.requests.count("/userinfo") == asked


async def test_a_bearer_token_that_says_everything_is_not_asked_about_and_one_of_another_is_no_answer(issuer, verifier) -> None:
    issuer.discovery = {"userinfo_endpoint": f"{issuer.url}/userinfo"}
    assert (await verifier.bearer(with_headers("Bearer " + issuer.token()), clock.now_ms())).kyc is Kyc.VERIFIED
    assert "/userinfo" not in issuer.requests
    for issuer.told in ({"sub": "bob", "kyc": "verified"}, 500):
        with pytest.raises(IdentityProviderUnavailable):
            await verifier.bearer(with_headers("Bearer " + issuer.token(kyc=None)), clock.now_ms())


@pytest.mark.parametrize(
    "values",
    [
        ("Bearer {}", "Bearer {}"),
        ("Bearer {}", "Basic eDp5"),
        ("Basic eDp5", "Bearer {}"),
        ("Basic {}",),
        ("Token {}",),
        ("Bearer2 {}",),
        ("{}",),
    ],
)
async def test_a_good_token_in_two_fields_or_under_another_scheme_is_refused(issuer, verifier, values) -> None:
    token = issuer.token()
    with pytest.raises(Unauthenticated):
        await verifier.bearer(with_headers(*(value.format(token) for value in values)), clock.now_ms())


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (None, True), ("JWT", True), ("jwt", True), ("at+jwt", True), ("application/at+jwt", True), ("application/JWT", True),
        ("logout+jwt", False), ("application/logout+jwt", False), ("secevent+jwt", False), ("", False),
    ],
)  # fmt: skip
async def test_a_token_says_that_it_is_one_of_ours_in_every_spelling_of_its_type(issuer, verifier, kind, taken) -> None:
    token = issuer.token(header={"typ": kind})
    if taken:
        assert (await verifier.verify(token, now_ms=clock.now_ms())).account_id == "alice"
    else:
        assert "another type" in (await refusal(verifier, token)).detail


async def test_a_token_need_not_name_its_key_where_there_is_one(issuer, verifier) -> None:
    assert (await verifier.verify(issuer.token(header={"kid": None}), now_ms=clock.now_ms())).account_id == "alice"


def test_a_session_may_have_any_name() -> None:
    assert len({tokens.token_id({"sid": sid}, "t") for sid in ("\ud800", "\ud800x", "é")}) == 3  # JSON can hold lone surrogates


def test_a_login_is_told_by_32_digits_that_say_nothing_of_its_token() -> None:
    assert tokens.token_id({"sid": "s"}, "t") == hashlib.sha256(b"sid s").hexdigest()[:32]
    assert tokens.token_id({}, "t") == hashlib.sha256(b"token t").hexdigest()[:32]


async def test_what_userinfo_told_is_bounded_and_asked_again_when_the_clock_is_set_back(issuer, verifier, monkeypatch) -> None:
    monkeypatch.setattr(tokens, "_MAX_CACHED", 2)
    issuer.discovery, issuer.told = {"userinfo_endpoint": f"{issuer.url}/userinfo"}, {"sub": "alice"}
    now_ms = clock.now_ms()
    for number in range(5):
        await verifier.bearer(with_headers("Bearer " + issuer.token(kyc=None, jti=str(number))), now_ms)
        assert len(remembered(verifier)) <= 2
    last = with_headers("Bearer " + issuer.token(kyc=None, jti="last"))
    for at, asked in ((now_ms, 6), (now_ms, 6), (now_ms - 1, 7)):
        await verifier.bearer(last, at)
        assert issuer.requests.count("/userinfo") == asked


async def test_of_a_claim_that_is_absent_the_log_says_once_what_it_leads_to(issuer, verifier) -> None:
    with capture_logs() as logs:
        for _ in range(2):
            await verifier.verify(issuer.token(kyc=None, email=None), now_ms=clock.now_ms())
    absent = {line["claim"]: line["advice"] for line in logs if line["event"] == "claim_absent"}
    assert len(absent) == len(logs) == 2
    assert "customers count as unverified" in absent["kyc"]
    assert "notices by mail" in absent["email"]
