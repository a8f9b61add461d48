"""Signed requests: the published vectors, and a gate that holds their keys in memory."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, load_pem_public_key

from gateway.admission.failures import AddressLimiter, FailureLimiter
from gateway.admission.gate import Gate
from gateway.admission.principal import Principal
from gateway.admission.routes import RouteTable
from gateway.admission.services import Services
from gateway.config.settings import GatewaySettings
from gateway.http1.message import Request
from gateway.keys.cache import ABSENT
from gateway.keys.record import Algorithm, KeyRecord
from gateway.keys.secret import Secret
from gateway.keys.usage import UsageCounts
from gateway.runtime.gcra import Charge
from tests.support.keys import a_record

VECTORS = Path(__file__).parents[1] / "vectors"
ROUTES = [
    {"match": f"{method} /{{path...}}", "scope": scope, "upstream": "spot", "replay": "off"}
    for method, scope in (("GET", "read"), ("POST", "trade"), ("PUT", "trade"), ("DELETE", "trade"))
]


def vectors(dialect: str) -> dict[str, Any]:
    """A file of ``tests/vectors``."""
    return json.loads((VECTORS / f"{dialect}.json").read_text("utf-8"))


def vector(dialect: str, name: str) -> dict[str, Any]:
    """One vector, by its name."""
    return next(each for each in vectors(dialect)["vectors"] if each["name"] == name)


def record_of(key: dict[str, Any], **changes: Any) -> KeyRecord:
    """The gate's record of a vector file's key."""
    secret = key["secret"].encode() if "secret" in key else base64.b64decode(key.get("secret_base64", ""))
    public = key.get("public_key")
    der = load_pem_public_key(public.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if public else None
    members: dict[str, Any] = {"key_id": key["key_id"], "algorithm": Algorithm(key["algorithm"])}
    return a_record(**members, secret=Secret(secret) if secret else None, public_key=der, **changes)


def sign_with(key: dict[str, Any], message: bytes) -> bytes:
    """The signature of a key whose secret or private half is known."""
    if "secret" in key:
        return hmac.new(key["secret"].encode(), message, hashlib.sha256).digest()
    private = load_pem_private_key(key["private_key"].encode(), None)
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(message)
    assert isinstance(private, RSAPrivateKey)
    return private.sign(message, PKCS1v15(), SHA256())


def request_of(given: dict[str, Any], **changes: Any) -> Request:
    """A vector's request as the server hands it over, received at the moment it was signed."""
    sent = given["request"]
    target = sent["target"].encode()
    path, mark, query = target.partition(b"?")
    request = Request(
        method=sent["method"].encode(),
        target=target,
        path=path,
        query=query if mark else None,
        headers=tuple((name.lower().encode(), value.encode()) for name, value in sent["headers"]),
        body=sent["body"].encode(),
        peer="192.0.2.1",
        secure=False,
        received_ms=given["timestamp_ms"],
        request_id="request-1",
    )
    return request.replace(**changes)


def with_field(request: Request, name: bytes, value: bytes) -> Request:
    """The request with another value in a header field."""
    return request.replace(headers=tuple((field, value if field == name else old) for field, old in request.headers))


def fields_of(dialect: Any, request: Request) -> dict[bytes, bytes]:
    """What the gate hands a dialect."""
    return {name: value for name, value in request.headers if name in dialect.fields}


def a_gate(*records: KeyRecord, routes: list[dict[str, Any]] | None = None, **sections: Any) -> Gate:
    """A gate with these keys in memory and no limit per key; sections of the configuration by name."""
    settings = GatewaySettings.model_validate(
        {
            "stores": {"postgres": "postgresql://unused", "redis": "redis://unused"},
            "vault": {"keys": "unused"},
            "limits": {"per_ip_failures": "900000000/second"},
            "upstreams": {"spot": {"servers": ["http://127.0.0.1:9"]}},
            "routes": ROUTES if routes is None else routes,
            **sections,
        }
    )
    principals = {record.key_id: Principal.of(record) for record in records}
    services = Services(
        lookup=SimpleNamespace(peek=lambda key_id, _now_ms: principals.get(key_id, ABSENT)),
        limiter=SimpleNamespace(charge=lambda *_: Charge(True, 0.0, 1, 0.0, 0.0), give_back=lambda *_: None, used=lambda *_: 1),
        failures=FailureLimiter(),
        public=AddressLimiter(),
        messages=AddressLimiter(),
        replay=SimpleNamespace(),
        usage=UsageCounts(),
        monotonic_ms=lambda: 1_000_000,
        now_ms=lambda: 1_790_000_000_000,
    )
    return Gate(settings, RouteTable.compile(settings.routes, settings.methods), services)
