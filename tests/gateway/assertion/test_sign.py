"""Signing: what the contract says an assertion holds."""

import json
from base64 import urlsafe_b64decode

import pytest

from gateway.assertion import Signer, SigningKey
from gateway.http1.message import Identity

NOW = 1_800_000_000_999
IDENTITY = Identity("account-1", "gbk_x", ("read", "trade"))


@pytest.fixture(scope="module")
def key():
    return SigningKey.new(NOW)


def parts(token):
    header, claims, signature = token.split(b".")
    return *(json.loads(urlsafe_b64decode(part + b"==")) for part in (header, claims)), urlsafe_b64decode(signature + b"==")


def test_header_and_claims_are_those_of_the_contract(key):
    header, claims, _signature = parts(Signer(key, issuer="gerbang", ttl_ms=60_000).assertion(IDENTITY, "spot", NOW))
    assert header == {"alg": "EdDSA", "typ": "JWT", "kid": key.kid}
    assert claims == {
        "iss": "gerbang",
        "aud": "spot",
        "sub": "account-1",
        "key_id": "gbk_x",
        "scopes": ["read", "trade"],
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }


def test_the_signature_covers_header_and_claims(key):
    token = Signer(key, issuer="gerbang", ttl_ms=60_000).assertion(IDENTITY, "spot", NOW)
    signed, _dot, _signature = token.rpartition(b".")
    key.private.public_key().verify(parts(token)[2], signed)


def test_an_assertion_used_for_its_period_has_half_its_life_left(key):
    assert Signer(key, issuer="gerbang", ttl_ms=30_000).period_ms == 15_000


def test_a_new_key_signs_from_now_on(key):
    signer = Signer(key, issuer="gerbang", ttl_ms=60_000)
    fresh = SigningKey.new(NOW)
    signer.use(fresh)
    assert parts(signer.assertion(IDENTITY, "spot", NOW))[0]["kid"] == fresh.kid


def test_a_public_request_is_asserted_to_be_from_nobody(key):
    _header, claims, _signature = parts(Signer(key, issuer="gerbang", ttl_ms=60_000).assertion(None, "spot", NOW))
    assert set(claims) == {"iss", "aud", "iat", "exp"}
