"""The authorization code flow against a real token endpoint: what is believed, and what a stranger cannot bring about."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from admin.config import Kyc as KycSettings
from admin.config import Oidc
from admin.errors import IdentityProviderUnavailable
from admin.identity.attempts import TTL_MS
from admin.identity.login import Login, LoginFailed, local_path
from admin.identity.provider import Provider
from admin.identity.sessions import new_token
from admin.identity.tokens import TokenVerifier
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.issuer import AUDIENCE, Issuer, in_pieces, running_issuer

PUBLIC_URL = "https://keys.exchange.example"
SECRET = "s3cret/with+odd:signs"


@dataclass
class World:
    """A login, its provider, and what the token endpoint was asked and shall answer."""

    login: Login
    issuer: Issuer
    make: Callable[..., tuple[Login, Provider]]
    """A login and its provider, by settings of ``[oidc]``."""
    provider: Provider
    asked: list[tuple[dict[str, str], str]] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    answer: web.Response | None = None
    pieces: bool = False
    told: Any = None
    """What userinfo answers, and with which status."""
    status: int = 200

    def configure(self, **settings: Any) -> None:
        """Log in by other settings from now on."""
        self.login, self.provider = self.make(**settings)

    async def userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer acc3ss"
        return web.json_response(self.told, status=self.status)

    async def token(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((dict(await request.post()), request.headers.get("Authorization", "")))
        if self.pieces:
            return await in_pieces(request, {"token_type": "Bearer", "id_token": self.issuer.token("budi", **self.claims)})
        answer = {"token_type": "Bearer", "access_token": "acc3ss", "id_token": self.issuer.token("budi", **self.claims)}
        return self.answer or web.json_response(answer)

    async def begin(self, return_to: str = "/keys/new") -> tuple[dict[str, str], str]:
        """What the provider is asked, and the browser's cookie; the ID token will carry the right nonce."""
        started = await self.login.start(return_to, clock.now_ms())
        query = {name: values[0] for name, values in parse_qs(urlsplit(started.url).query).items()}
        self.claims.setdefault("nonce", query["nonce"])
        return query, started.cookie

    async def finish(self, answer: dict[str, str], cookie: str, *, after_ms: int = 0):
        now_ms = clock.now_ms() + after_ms
        attempt = self.login.attempt(answer, cookie, now_ms)
        return await self.login.finish(answer, attempt, now_ms), attempt.return_to


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_issuer() as issuer, aiohttp.ClientSession() as http:
        world = World(None, issuer, None, None)  # type: ignore[arg-type]
        application = web.Application()
        application.router.add_post("/token", world.token)
        application.router.add_get("/userinfo", world.userinfo)
        server = TestServer(application)
        await server.start_server()
        issuer.discovery = {
            "authorization_endpoint": f"{issuer.url}/authorize?tenant=1",
            "token_endpoint": str(server.make_url("/token")),
            "userinfo_endpoint": str(server.make_url("/userinfo")),
            "end_session_endpoint": f"{issuer.url}/logout",
        }

        def make(**settings: Any) -> tuple[Login, Provider]:
            oidc = Oidc(issuer=issuer.url, audience=AUDIENCE, client_secret=SECRET, timeout_ms=2_000, **settings)
            provider = Provider(http, oidc)
            login = Login(
                provider=provider,
                verifier=TokenVerifier(provider, oidc, KycSettings()),
                vault=Vault.parse(new_entry("k1")),
                http=http,
                oidc=oidc,
                public_url=PUBLIC_URL + "/",
                max_age_ms=43_200_000,
            )
            return login, provider

        world.make = make
        world.configure()
        yield world
        await server.close()


async def test_the_provider_is_asked_for_a_code_with_pkce_state_and_nonce(world):
    query, cookie = await world.begin()
    assert query["response_type"] == "code"
    assert query["client_id"] == AUDIENCE
    assert query["redirect_uri"] == PUBLIC_URL + "/login/callback"
    assert "openid" in query["scope"].split()
    assert query["code_challenge_method"] == "S256"
    assert query["tenant"] == "1", "what the endpoint's own address holds stays"
    assert len({query["state"], query["nonce"], query["code_challenge"], cookie}) == 4
    assert all(len(query[name]) == 43 for name in ("state", "nonce", "code_challenge"))
    assert "prompt" not in query
    assert query["max_age"] == "43200", "as long as a session of ours: the provider then says auth_time"
    again = (await world.login.start("/keys", clock.now_ms(), prompt_again=True)).url
    assert {"prompt=login", "max_age=0"} <= set(urlsplit(again).query.split("&"))


async def test_a_code_becomes_the_caller_of_the_id_token(world):
    query, cookie = await world.begin()
    caller, return_to = await world.finish({"state": query["state"], "code": "c0de", "iss": world.issuer.url}, cookie)
    assert (caller.account_id, caller.kyc, return_to) == ("budi", "verified", "/keys/new")
    form, authorization = world.asked[0]
    assert form["code"] == "c0de"
    assert form["redirect_uri"] == query["redirect_uri"]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
    assert challenge == query["code_challenge"]
    assert base64.b64decode(authorization.removeprefix("Basic ")) == b"gerbang:s3cret%2Fwith%2Bodd%3Asigns"


async def test_a_token_answer_in_pieces_is_read_to_its_end(world):
    world.pieces = True
    query, cookie = await world.begin()
    caller, _ = await world.finish({"state": query["state"], "code": "c0de"}, cookie)
    assert caller.account_id == "budi"


async def test_a_token_answer_without_an_end_is_given_up(world):
    world.answer = web.Response(body=b" " * 70_000, content_type="application/json")
    query, cookie = await world.begin()
    with pytest.raises(IdentityProviderUnavailable):
        await world.finish({"state": query["state"], "code": "c0de"}, cookie)


async def logged_in(world):
    query, cookie = await world.begin()
    caller, _ = await world.finish({"state": query["state"], "code": "c"}, cookie)
    return caller


@pytest.mark.parametrize(
    ("token", "told", "email", "kyc"),
    [
        ({"email": None, "kyc": None}, {"email": "b@example.com", "kyc": "verified"}, "b@example.com", "verified"),
        ({"kyc": None}, {"email": "other@example.com", "kyc": "verified"}, "budi@example.com", "verified"),
        ({"email": None, "kyc": "unverified"}, {"email": "b@example.com", "kyc": "verified"}, "b@example.com", "unverified"),
        ({"email": None, "kyc": None}, {}, None, "unverified"),
        ({"kyc": None}, {"kyc": "pending"}, "budi@example.com", "unverified"),
    ],
)
async def test_what_the_id_token_does_not_say_is_asked_at_userinfo_and_what_it_says_stands(world, token, told, email, kyc):
    world.claims, world.told = dict(token), {"sub": "budi", **told}
    caller = await logged_in(world)
    assert (caller.email, caller.kyc) == (email, kyc)


@pytest.mark.parametrize(
    ("told", "status"),
    [({"sub": "siti", "kyc": "verified"}, 200), ({"kyc": "verified"}, 200), ([], 200), ({"sub": "budi"}, 401), ({}, 503)],
)
async def test_no_customer_becomes_unverified_because_userinfo_fails_nor_verified_by_anothers(world, told, status):
    world.claims, world.told, world.status = {"kyc": None}, told, status
    with pytest.raises(IdentityProviderUnavailable):
        await logged_in(world)


async def test_a_claim_that_nobody_tells_is_said_once_in_the_log(world):
    world.claims, world.told = {"email": None, "kyc": None}, {"sub": "budi"}
    with capture_logs() as logs:
        await logged_in(world)
        world.claims.pop("nonce")
        await logged_in(world)
    assert [line["claim"] for line in logs if line["event"] == "claim_absent"] == ["email", "kyc"]


async def test_scopes_and_the_way_to_authenticate_are_settings(world):
    world.configure(scopes=("openid", "profile", "kyc"), client_authentication="body")
    query, cookie = await world.begin()
    assert query["scope"] == "openid profile kyc"
    await world.finish({"state": query["state"], "code": "c"}, cookie)
    form, authorization = world.asked[0]
    assert (form["client_secret"], authorization) == (SECRET, "")


async def test_an_id_token_issued_to_another_client_logs_nobody_in(world):
    world.configure(other_clients=("app",))
    world.claims = {"azp": "app"}
    with pytest.raises(LoginFailed, match="another client"):
        await logged_in(world)


async def test_a_state_works_only_if_it_is_ours_and_for_ten_minutes(world):
    query, cookie = await world.begin()
    await world.finish({"state": query["state"], "code": "c"}, cookie)
    with pytest.raises(LoginFailed, match="not a login that this browser has in progress"):
        await world.finish({"state": query["state"], "code": "c"}, cookie, after_ms=TTL_MS)
    for state in (new_token(), "", "x" * 5000):
        with pytest.raises(LoginFailed) as failed:
            await world.finish({"state": state, "code": "c"}, cookie)
        assert failed.value.outcome == "stale"
    assert len(world.asked) == 1, "no code of a stranger reaches the provider"


async def test_nobody_is_logged_in_by_the_link_of_another_browser(world):
    query, cookie = await world.begin()
    _, others = await world.begin()
    for other in ("", new_token(), "\udcff\udcfe", others):
        with pytest.raises(LoginFailed, match="not a login that this browser has in progress"):
            await world.finish({"state": query["state"], "code": "c"}, other)
    assert world.asked == []
    await world.finish({"state": query["state"], "code": "c"}, cookie)  # nor is it ended by one


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"iss": "https://evil.example"},
        {"exp": 1},
    ],
    ids=str,
)
async def test_an_id_token_that_does_not_answer_this_login_is_refused(world, claims):
    world.claims = {**claims}
    query, cookie = await world.begin()
    if "nonce" not in claims:
        world.claims["nonce"] = query["nonce"]
    with pytest.raises(LoginFailed) as failed:
        await world.finish({"state": query["state"], "code": "c"}, cookie)
    assert failed.value.outcome == "failed"


async def test_an_answer_of_another_issuer_is_refused_before_its_code_is_used(world):
    query, cookie = await world.begin()
    with pytest.raises(LoginFailed, match="RFC 9207"):
        await world.finish({"state": query["state"], "code": "c", "iss": "https://evil.example"}, cookie)
    assert world.asked == []


@pytest.mark.parametrize(
    ("answer", "outcome"), [({"error": "access_denied"}, "denied"), ({"error": "server_error"}, "failed"), ({}, "failed")]
)
async def test_what_the_provider_says_instead_of_a_code_is_told_apart(world, answer, outcome):
    query, cookie = await world.begin()
    with pytest.raises(LoginFailed) as failed:
        await world.finish({"state": query["state"], **answer}, cookie)
    assert failed.value.outcome == outcome


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response({"error": "invalid_grant"}, status=400),
        lambda: web.json_response({"access_token": "x"}),
        lambda: web.json_response(["id_token"]),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(status=302, headers={"Location": "http://evil.example/"}),
        lambda: web.json_response({"id_token": "a.b.c"}),
    ],
)
async def test_whatever_the_token_endpoint_answers_wrongly_ends_in_no_login(world, answer):
    world.answer = answer()
    query, cookie = await world.begin()
    with pytest.raises(LoginFailed):
        await world.finish({"state": query["state"], "code": "c"}, cookie)


@pytest.mark.parametrize(
    ("status", "error", "advice"),
    [
        (401, "invalid_client", ": check oidc.audience, oidc.client_secret and oidc.client_authentication"),
        (400, "unauthorized_client", ": check oidc.audience, oidc.client_secret and oidc.client_authentication"),
        (503, "temporarily_unavailable", ""),
    ],
)
async def test_a_provider_that_refuses_this_service_or_fails_is_no_failure_of_the_customers(world, status, error, advice):
    world.answer = web.json_response({"error": error}, status=status)
    query, cookie = await world.begin()
    with pytest.raises(IdentityProviderUnavailable) as refusal:
        await world.finish({"state": query["state"], "code": "c"}, cookie)
    assert refusal.value.reason == f"token endpoint answered {status} {error!r}{advice}"


async def test_a_provider_without_login_endpoints_or_out_of_reach_is_said_to_be_unavailable(world):
    world.issuer.discovery = {}
    with pytest.raises(IdentityProviderUnavailable):
        await world.login.start("/keys", clock.now_ms())


async def test_keys_that_rotated_between_two_logins_are_found(world, monkeypatch):
    query, cookie = await world.begin()
    await world.finish({"state": query["state"], "code": "c"}, cookie)
    world.issuer.rotate()
    world.claims.clear()
    monkeypatch.setattr(world.provider, "_attempted_ms", None)  # half a minute later
    query, cookie = await world.begin()
    caller, _ = await world.finish({"state": query["state"], "code": "c"}, cookie)
    assert caller.account_id == "budi"


async def test_logging_out_leads_to_the_provider_and_back(world):
    url = await world.login.logout_url()
    assert url is not None
    assert url.startswith(
        f"{world.issuer.url}/logout?client_id=gerbang&post_logout_redirect_uri=https%3A%2F%2Fkeys.exchange.example%2Flogin"
    )


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/", "/"),
        ("/keys/new", "/keys/new"),
        ("/security", "/security"),
        ("//evil.example", "/keys"),
        ("/\\evil.example", "/keys"),
        ("https://evil.example", "/keys"),
        ("/keys\n", "/keys"),
        ("/keys?x=//evil", "/keys"),
        ("", "/keys"),
        ("keys", "/keys"),
        ("/" + "k" * 96, "/keys"),
        ("/../x", "/keys"),
    ],
)
def test_after_a_login_only_plain_paths_of_this_site_are_gone_to(asked, path):
    assert local_path(asked) == path


@given(st.text() | st.text(alphabet="/\\.:@?#%aA\n "))
def test_no_text_leads_to_another_host(text):
    assert urlsplit("https://keys.exchange.example" + local_path(text)).hostname == "keys.exchange.example"
    assert not local_path(text).startswith("//")
