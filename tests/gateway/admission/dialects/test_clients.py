"""Client libraries that we did not write: what one signs is admitted, and what is refused raises the right exception in another."""

import json
from datetime import UTC, datetime

import ccxt
import pytest
import requests
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

from gateway import errors
from gateway.errors import InvalidCredentials
from gateway.http1.message import Request
from tests.support.signed import a_gate, record_of, request_of, vector, vectors

KEYS = vectors("rfc9421")["keys"]
ALGORITHMS = {"hmac": algorithms.HMAC_SHA256, "ed25519": algorithms.ED25519, "rsa": algorithms.RSA_V1_5_SHA256}
SIGNED_AT = datetime.fromtimestamp(1_790_000_000, UTC)


class Resolver(HTTPSignatureKeyResolver):
    """The private half of the vectors' keys."""

    def resolve_private_key(self, key_id):
        key = next(key for key in KEYS.values() if key["key_id"] == key_id)
        return key["secret"].encode() if "secret" in key else load_pem_private_key(key["private_key"].encode(), None)


def signed(name, method, url, body=None):
    """The request as it arrives."""
    message = requests.Request(method, url, headers={"Host": "api.example.id", "Content-Type": "text/plain"}, data=body).prepare()
    covered = ["@method", "@path", "@authority", *(["@query"] if "?" in url else []), *(["content-type"] if body else [])]
    signer = HTTPMessageSigner(signature_algorithm=ALGORITHMS[name], key_resolver=Resolver())
    signer.sign(message, key_id=KEYS[name]["key_id"], covered_component_ids=covered, created=SIGNED_AT, nonce="n-1", body=message.body)
    target = message.path_url.encode()
    path, mark, query = target.partition(b"?")
    return Request(
        method=method.encode(),
        target=target,
        path=path,
        query=query if mark else None,
        headers=tuple((field.lower().encode(), value.encode()) for field, value in message.headers.items()),
        body=message.body or b"",
        peer="192.0.2.1",
        secure=True,
        received_ms=1_790_000_000_500,
        request_id="r",
    )


def admit(name, request):
    gate = a_gate(record_of(KEYS[name]))
    return gate.admit(request, gate.route(request))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "https://api.example.id/v1/wallets", None),
        ("GET", "https://api.example.id/v1/orders?status=open&note=%20+é", None),
        ("POST", "https://api.example.id/v1/orders", b'{"symbol":"BTC-IDR"}'),
        ("DELETE", "https://api.example.id/v1/orders/7?why=", b"x"),
    ],
)
def test_what_the_library_signs_is_admitted(name, method, url, body):
    request = signed(name, method, url, body)
    assert admit(name, request).identity.key_id == KEYS[name]["key_id"]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_with_other_content_is_not(name):
    request = signed(name, "POST", "https://api.example.id/v1/orders", b'{"side":"buy"}')
    with pytest.raises(InvalidCredentials, match="Content-Digest"):
        admit(name, request.replace(body=b'{"side":"sel"}'))


EXCEPTIONS = [
    (errors.InvalidCredentials, ccxt.AuthenticationError),
    (errors.KeyExpired, ccxt.AuthenticationError),
    (errors.IpNotAllowed, ccxt.AuthenticationError),
    (errors.ScopeNotGranted, ccxt.AuthenticationError),
    (errors.AccountFrozen, ccxt.AuthenticationError),
    (errors.TimestampOutOfWindow, ccxt.InvalidNonce),
    (errors.RateLimited, ccxt.DDoSProtection),
    (errors.ReplayedRequest, ccxt.InvalidOrder),
    (errors.MalformedRequest, ccxt.BadRequest),
    (errors.UpstreamTimeout, ccxt.RequestTimeout),
    (errors.UpstreamUnavailable, ccxt.OperationFailed),
    (errors.NoRoute, ccxt.BadRequest),
    (errors.UpstreamUnreachable, ccxt.OperationFailed),
]


@pytest.mark.parametrize("succeeded", [False, True], ids=["before a success", "after a success"])
@pytest.mark.parametrize(("refusal", "raised"), EXCEPTIONS, ids=lambda each: each.__name__)
def test_ccxt_raises_what_a_bot_can_act_on(refusal, raised, succeeded):
    signed_ = request_of(vector("binance", "account, hmac"))
    public = signed_.replace(
        path=b"/api/v3/exchangeInfo", target=b"/api/v3/exchangeInfo", query=None, headers=()
    )  # ccxt sends no key there
    client = ccxt.binance({"options": {"hasAlreadyAuthenticatedSuccessfully": succeeded}})
    for request in (signed_, public):
        answer = a_gate().render(refusal("do this"), request)
        text = answer.body.decode()
        with pytest.raises(raised, match="do this") as told:
            client.handle_errors(answer.status, "", "https://gate" + request.path.decode(), "GET", {}, text, json.loads(text), {}, None)
        assert isinstance(told.value, ccxt.DDoSProtection) is (refusal is errors.RateLimited)
