"""deploy.signing: what goes on the wire is what the contract describes, checked with the other half of each algorithm."""

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from deploy.signing import SigningKey, sign

SECRET = "gbs_secret"
HMAC = SigningKey("gbk_a", SECRET)
ED25519 = SigningKey("gbk_e", Ed25519PrivateKey.generate())
RSA = SigningKey("gbk_r", generate_private_key(65537, 2048))
NOW = 1_800_000_000_123


def public(key: SigningKey) -> Any:
    return key.material.public_key()  # type: ignore[union-attr]  # not of a secret


def check(key, message, signature):
    """Raises unless the signature holds."""
    if key is HMAC:
        assert hmac.compare_digest(hmac.new(SECRET.encode(), message, hashlib.sha256).digest(), signature)
    elif key is ED25519:
        public(key).verify(signature, message)
    else:
        public(key).verify(signature, message, PKCS1v15(), hashes.SHA256())


keys = pytest.mark.parametrize("key", [HMAC, ED25519, RSA], ids=lambda key: key.algorithm)


@keys
def test_mobee_signs_method_path_and_time_without_the_query(key):
    sent = sign("mobee", key, "GET", "/v1/orders?status=open", b"", now_ms=NOW, nonce="n")
    assert sent.target == "/v1/orders?status=open"
    assert sent.headers["X-API-Key"] == key.key_id
    assert sent.headers["X-Request-Timestamp"] == str(NOW)
    check(key, f"GET\n/v1/orders\n{NOW}".encode(), base64.b64decode(sent.headers["X-Request-Signature"], validate=True))


@keys
def test_mobee_adds_the_raw_body(key):
    body = b'{"a": "\xc3\xa9"}'
    sent = sign("mobee", key, "POST", "/v1/orders", body, now_ms=NOW, nonce="n")
    assert sent.body == body
    check(key, b"POST\n/v1/orders\n%d\n" % NOW + body, base64.b64decode(sent.headers["X-Request-Signature"]))


@keys
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/api/v3/account", b""),
        ("GET", "/api/v3/myTrades?symbol=BTCIDR", b""),
        ("POST", "/api/v3/order", b"symbol=BTCIDR&side=BUY"),
        ("POST", "/api/v3/order?symbol=BTCIDR", b"side=BUY"),
    ],
)
def test_binance_signs_raw_query_followed_by_raw_body(key, method, target, body):
    sent = sign("binance", key, method, target, body, now_ms=NOW, nonce="n")
    query, form = sent.target.partition("?")[2], sent.body.decode()
    holder = form or query
    unsigned, _, text = holder.rpartition("&signature=")
    signed = (query if form else "") + unsigned
    assert parse_qs(signed)["timestamp"] == [str(NOW)]
    check(key, signed.encode(), bytes.fromhex(text) if key is HMAC else base64.b64decode(unquote(text), validate=True))
    assert "+" not in text
    assert "/" not in text


@keys
def test_rfc9421_signs_what_the_gate_asks_for(key):
    body = b'{"a":1}'
    sent = sign("rfc9421", key, "POST", "/v1/orders?x=1", body, now_ms=NOW, nonce="once")
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    parameters = sent.headers["Signature-Input"].removeprefix("sig=")
    name = {"hmac-sha256": "hmac-sha256", "ed25519": "ed25519", "rsa-sha256": "rsa-v1_5-sha256"}[key.algorithm]
    assert parameters == (
        f'("@method" "@path" "@query" "content-digest");created={NOW // 1000};keyid="{key.key_id}";alg="{name}";nonce="once"'
    )
    base = f'"@method": POST\n"@path": /v1/orders\n"@query": ?x=1\n"content-digest": {digest}\n"@signature-params": {parameters}'
    assert sent.headers["Content-Digest"] == digest
    check(key, base.encode(), base64.b64decode(sent.headers["Signature"].removeprefix("sig=:").removesuffix(":")))


def test_rfc9421_leaves_out_what_is_not_there():
    sent = sign("rfc9421", HMAC, "GET", "/v1/wallets", b"", now_ms=NOW, nonce="n")
    assert sent.headers["Signature-Input"].startswith('sig=("@method" "@path");')
    assert "Content-Digest" not in sent.headers


def test_a_signing_key_does_not_show_its_secret():
    assert SECRET not in repr(HMAC)
