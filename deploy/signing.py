"""Signs requests as a client does, in every dialect. Pure: the time and the nonce are arguments.

Written from the contract, independently of the gate's code, so that each checks the other.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

DIALECTS = ("mobee", "binance", "rfc9421")
SESSIONS = ("mobee", "binance")
"""Dialects that also exist for WebSocket sessions."""
LOG_IN_ID = "log-in"
"""The ``id`` of the log-in message in the dialect ``binance``."""
_RFC9421_NAMES = {"hmac-sha256": "hmac-sha256", "ed25519": "ed25519", "rsa-sha256": "rsa-v1_5-sha256"}


@dataclass(frozen=True)
class SigningKey:
    """A key id with its secret (text, for HMAC) or private key."""

    key_id: str
    material: str | Ed25519PrivateKey | RSAPrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id!r}, {self.algorithm})"

    @property
    def algorithm(self) -> str:
        if isinstance(self.material, str):
            return "hmac-sha256"
        return "ed25519" if isinstance(self.material, Ed25519PrivateKey) else "rsa-sha256"

    def sign(self, message: bytes) -> bytes:
        if isinstance(self.material, str):
            return hmac.digest(self.material.encode(), message, "sha256")
        if isinstance(self.material, Ed25519PrivateKey):
            return self.material.sign(message)
        return self.material.sign(message, PKCS1v15(), hashes.SHA256())


class Outgoing(NamedTuple):
    """A signed request: ``target`` is path and query exactly as sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    signed: str
    """The signed text, to compare with the gate's ``string_to_sign``."""


def sign(dialect: str, key: SigningKey, method: str, target: str, body: bytes, *, now_ms: int, nonce: str) -> Outgoing:
    """Sign one request.

    :param dialect: one of :data:`DIALECTS`
    :param target: path and query, percent-encoded already; nothing is re-encoded
    :param now_ms: Unix milliseconds
    :param nonce: unique for each request; only used by ``rfc9421``
    """
    if dialect == "rfc9421":
        return _rfc9421(key, method, target, body, now_ms=now_ms, nonce=nonce)
    return {"mobee": _mobee, "binance": _binance}[dialect](key, method, target, body, now_ms=now_ms)


def content_type(body: bytes) -> dict[str, str]:
    """The Content-Type: JSON if the body looks like JSON, else a form; none for an empty body."""
    if not body:
        return {}
    return {"Content-Type": "application/json" if body.lstrip()[:1] in (b"{", b"[") else "application/x-www-form-urlencoded"}


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _mobee(key: SigningKey, method: str, target: str, body: bytes, *, now_ms: int) -> Outgoing:
    """Uses milliseconds, so that two identical orders within one second are not a replay."""
    message = f"{method}\n{urlsplit(target).path}\n{now_ms}".encode() + (b"\n" + body if body else b"")
    headers = content_type(body) | {
        "X-API-Key": key.key_id,
        "X-Request-Signature": _base64(key.sign(message)),
        "X-Request-Timestamp": str(now_ms),
    }
    return Outgoing(method, target, headers, body, message.decode(errors="replace"))


def _binance(key: SigningKey, method: str, target: str, body: bytes, *, now_ms: int) -> Outgoing:
    """Parameters are added to the query or form that exists; the signature is last."""
    path, _, query = target.partition("?")
    in_body = bool(body)
    parameters = body.decode() if in_body else query
    parameters = f"{parameters}&timestamp={now_ms}" if parameters else f"timestamp={now_ms}"
    message = (query + parameters if in_body else parameters).encode()
    signature = key.sign(message)
    text = signature.hex() if key.algorithm == "hmac-sha256" else quote(_base64(signature), safe="")
    parameters = f"{parameters}&signature={text}"
    headers = {"X-MBX-APIKEY": key.key_id}
    if in_body:
        return Outgoing(method, target, headers | content_type(b"form"), parameters.encode(), message.decode())
    return Outgoing(method, f"{path}?{parameters}", headers, b"", message.decode())


def _rfc9421(key: SigningKey, method: str, target: str, body: bytes, *, now_ms: int, nonce: str) -> Outgoing:
    """Signs the components that the gate requires (RFC 9421 §2.5), with a digest (RFC 9530)."""
    path, mark, query = target.partition("?")
    components = {"@method": method, "@path": path}
    headers = content_type(body)
    if mark:
        components["@query"] = "?" + query
    if body:
        headers["Content-Digest"] = components["content-digest"] = f"sha-256=:{_base64(hashlib.sha256(body).digest())}:"
    names = " ".join(f'"{name}"' for name in components)
    algorithm = _RFC9421_NAMES[key.algorithm]
    parameters = f'({names});created={now_ms // 1000};keyid="{key.key_id}";alg="{algorithm}";nonce="{nonce}"'
    lines = [f'"{name}": {value}' for name, value in components.items()]
    base = "\n".join([*lines, f'"@signature-params": {parameters}'])
    headers["Signature-Input"] = f"sig={parameters}"
    headers["Signature"] = f"sig=:{_base64(key.sign(base.encode()))}:"
    return Outgoing(method, target, headers, body, base)


def log_in(dialect: str, key: SigningKey, *, now_ms: int) -> str:
    """The log-in message of a WebSocket session.

    :param dialect: one of :data:`SESSIONS`
    """
    if dialect == "binance":
        return signed_message(key, LOG_IN_ID, "session.logon", {}, now_ms=now_ms)
    api = json.dumps({"public_key": key.key_id, "timestamp": now_ms})
    signature = key.sign(api.encode())
    text = signature.hex() if key.algorithm == "hmac-sha256" else _base64(signature)
    return f'{{"method":"login","api":{api},"hmac":"{text}"}}'  # exactly the signed text of api


def signed_message(key: SigningKey, own_id: int | str, method: str, params: Mapping[str, int | str], *, now_ms: int) -> str:
    """A signed message in the session dialect ``binance``: its params sorted by name, ``name=value`` joined by ``&``."""
    members = {**params, "apiKey": key.key_id, "timestamp": now_ms}
    signature = key.sign("&".join(f"{name}={value}" for name, value in sorted(members.items())).encode())
    text = signature.hex() if key.algorithm == "hmac-sha256" else _base64(signature)
    return json.dumps({"id": own_id, "method": method, "params": {**members, "signature": text}})
