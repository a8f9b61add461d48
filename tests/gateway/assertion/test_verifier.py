"""Verification by upstreams: only the gate's own, fresh assertion for this upstream is believed."""

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.assertion import ASSERTED, Asserted, AssertionRefused, KeyRing, Signer, SigningKey, require_assertion, verify
from gateway.assertion.keys import base64url
from gateway.assertion.sign import _segment
from gateway.assertion.verifier import LEEWAY_MS, REFRESH_MS, RETRY_MS, JwksCache
from gateway.http1.message import Identity
from gateway.runtime import clock

NOW = 1_800_000_000_000
IDENTITY = Identity("account-1", "gbk_x", ("read", "trade"))
KEY = SigningKey.new(NOW)
JWKS = {"keys": [KEY.public_jwk()]}
CLAIMS = {
    "iss": "gerbang",
    "aud": "spot",
    "sub": "account-1",
    "key_id": "gbk_x",
    "scopes": ["read", "trade"],
    "iat": NOW // 1000,
    "exp": NOW // 1000 + 60,
}
TOKEN = Signer(KEY, issuer="gerbang", ttl_ms=60_000).assertion(IDENTITY, "spot", NOW)


def check(token, *, now_ms=NOW, jwks=JWKS, audience="spot"):
    return verify(token, expected_audience=audience, expected_issuer="gerbang", jwks=jwks, now_ms=now_ms)


def forged(claims=CLAIMS, header=None, private=KEY.private):
    signed = _segment(header or {"alg": "EdDSA", "typ": "JWT", "kid": KEY.kid}) + b"." + _segment(claims)
    return signed + b"." + base64url(private.sign(signed))


def test_the_gates_assertion_tells_who():
    assert check(TOKEN) == Asserted("account-1", "gbk_x", frozenset({"read", "trade"}))
    assert check(TOKEN.decode()) == check(forged())


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "another"},
        {"iss": None},
        {"aud": "futures"},
        {"aud": ["spot", "futures"]},
        {"sub": ""},
        {"sub": 7},
        {"key_id": None},
        {"scopes": "read"},
        {"scopes": [1]},
        {"iat": None},
        {"exp": None},
        {"exp": NOW // 1000 + 61},
        {"exp": True},
        {"iat": NOW // 1000 + 6, "exp": NOW // 1000 + 60},
        {"iat": NOW // 1000 - 66, "exp": NOW // 1000 - 6},
    ],
)
def test_a_claim_that_is_not_as_expected_is_refused(claims):
    with pytest.raises(AssertionRefused):
        check(forged({**CLAIMS, **claims}))


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"a.b.c",
        TOKEN[:-1],
        TOKEN + b"\xff",
        forged(private=Ed25519PrivateKey.generate()),
        forged(header={"alg": "none", "kid": KEY.kid}),
        forged(header={"alg": "HS256", "kid": KEY.kid}),
        forged(header={"alg": "EdDSA", "kid": "other"}),
        forged(header={"alg": "EdDSA", "kid": KEY.kid, "crit": ["x"], "x": 1}),
        forged(claims=[1]),
    ],
    ids=range(10),
)
def test_a_token_that_the_gate_did_not_make_is_refused(token):
    with pytest.raises(AssertionRefused):
        check(token)


def test_it_holds_until_its_end_and_the_leeway_and_no_longer():
    check(TOKEN, now_ms=NOW + 60_000 + LEEWAY_MS - 1)
    with pytest.raises(AssertionRefused, match="expired"):
        check(TOKEN, now_ms=NOW + 60_000 + LEEWAY_MS)


def test_an_assertion_of_nobody_is_accepted_only_where_it_is_allowed():
    token = Signer(KEY, issuer="gerbang", ttl_ms=60_000).assertion(None, "spot", NOW)
    known = {"expected_audience": "spot", "expected_issuer": "gerbang", "jwks": JWKS, "now_ms": NOW}
    assert verify(token, **known, allow_anonymous=True) == Asserted("", "", frozenset())
    with pytest.raises(AssertionRefused, match="sub"):
        verify(token, **known)
    with pytest.raises(AssertionRefused, match="sub"):
        verify(forged({key: value for key, value in CLAIMS.items() if key != "sub"}), **known, allow_anonymous=True)


@pytest.mark.parametrize("jwks", [{}, {"keys": []}, {"keys": [{"kty": "oct"}]}, {"keys": [1]}, []])
def test_an_unusable_key_set_refuses(jwks):
    with pytest.raises(AssertionRefused):
        check(TOKEN, jwks=jwks)


@settings(max_examples=300)
@given(position=st.integers(0, len(TOKEN) - 1), flip=st.integers(1, 255))
def test_one_changed_byte_is_refused_or_the_same_signature(position, flip):
    changed = bytearray(TOKEN)
    changed[position] ^= flip
    # The last character of a Base64url signature carries four bits that mean nothing.
    if position == len(TOKEN) - 1:
        return
    with pytest.raises(AssertionRefused):
        check(bytes(changed))


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_input_raises_anything_else(token):
    with pytest.raises(AssertionRefused):
        check(token)


class Gate:
    """The ops port of a gate, as far as its JWKS goes."""

    def __init__(self):
        self.ring = KeyRing(None, rotate_after_ms=120_000)
        self.ring.refresh(NOW)
        self.url = ""
        self.fetches = 0
        self.broken = False

    async def jwks(self, _request):
        self.fetches += 1
        return web.json_response({"keys": "broken"} if self.broken else self.ring.jwks())


@pytest.fixture
async def gate():
    gate = Gate()
    app = web.Application()
    app.router.add_get("/.well-known/jwks.json", gate.jwks)
    async with TestServer(app) as server:
        gate.url = str(server.make_url("/.well-known/jwks.json"))
        yield gate


def token_of(gate, now_ms, audience="spot"):
    return Signer(gate.ring.refresh(now_ms), issuer="gerbang", ttl_ms=60_000).assertion(IDENTITY, audience, now_ms).decode()


async def test_keys_are_fetched_once_and_again_only_when_old(gate):
    cache, token = JwksCache(gate.url), token_of(gate, NOW)
    for now_ms in (0, 1, REFRESH_MS - 1):
        await cache.keys_for(token, now_ms)
    assert gate.fetches == 1
    await cache.keys_for(token, REFRESH_MS)
    assert gate.fetches == 2


async def test_an_unknown_key_id_fetches_but_not_at_any_rate(gate):
    cache = JwksCache(gate.url)
    await cache.keys_for(token_of(gate, NOW), 0)
    for _attempt in range(5):
        await cache.keys_for("eyJraWQiOiJ4In0.x.y", RETRY_MS)
    assert gate.fetches == 2


async def test_a_broken_key_set_keeps_the_last_good_one(gate):
    cache, token = JwksCache(gate.url), token_of(gate, NOW)
    before = await cache.keys_for(token, 0)
    gate.broken = True
    assert await cache.keys_for(token, REFRESH_MS) is before


async def test_without_any_keys_it_refuses(gate):
    gate.broken = True
    with pytest.raises(AssertionRefused, match="cannot be fetched"):
        await JwksCache(gate.url).keys_for("x", 0)


async def test_the_middleware_lets_through_what_came_through_the_gate(gate, aiohttp_client):
    async def who(request):
        return web.json_response(request[ASSERTED].account_id if ASSERTED in request else None)

    app = web.Application(
        middlewares=[
            require_assertion(  # type: ignore[list-item]  # as aiohttp calls it
                gate.url,
                expected_audience="spot",
                public=lambda request: request.path == "/markets",
                exempt=lambda request: request.path == "/health",
            )
        ]
    )
    app.router.add_get("/orders", who)
    app.router.add_get("/health", who)
    app.router.add_get("/markets", who)
    client = await aiohttp_client(app)
    token = token_of(gate, clock.now_ms())

    async def get(path, *tokens):
        async with client.get(path, headers=[("X-Gateway-Assertion", token) for token in tokens]) as response:
            return response.status, json.loads(await response.read())

    assert await get("/orders", token) == (200, "account-1")
    nobody = Signer(gate.ring.refresh(NOW), issuer="gerbang", ttl_ms=60_000).assertion(None, "spot", clock.now_ms()).decode()
    assert await get("/health") == (200, None)
    assert await get("/markets", nobody) == (200, "")
    assert (await get("/markets"))[0] == 401
    assert (await get("/orders", nobody))[0] == 401
    for refused in ((), (token, token), ("x",), (token_of(gate, clock.now_ms(), "futures"),)):
        status, problem = await get("/orders", *refused)
        assert (status, problem["status"], problem["code"]) == (401, 401, "assertion_refused")


async def test_a_rotation_needs_no_second_fetch(gate):
    cache = JwksCache(gate.url)
    gate.ring.refresh(NOW + 120_000)
    before = await cache.keys_for(token_of(gate, NOW + 120_000), 0)
    rotated = token_of(gate, NOW + 200_000)
    keys = await cache.keys_for(rotated, 1)
    assert check(rotated, jwks=keys, now_ms=NOW + 200_000).account_id == "account-1"
    assert (keys, gate.fetches) == (before, 1)
