"""Sign in each dialect, with a secret or a private key: python sign.py URL KEYFILE DIALECT METHOD TARGET [BODY].

KEYFILE is {"key_id", "secret"} as downloaded, or {"key_id", "private_key"} with the PEM of your own Ed25519 or RSA key.
"""

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from pathlib import Path
from urllib.parse import quote

import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

Key = dict[str, str]
Request = tuple[str, dict[str, str], str]
"""Target, headers, body."""


def sign(key: Key, message: str) -> tuple[bytes, str]:
    """Signature, and the algorithm as RFC 9421 names it."""
    if "private_key" not in key:
        return hmac.digest(key["secret"].encode(), message.encode(), "sha256"), "hmac-sha256"
    private = load_pem_private_key(key["private_key"].encode(), None)
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(message.encode()), "ed25519"
    if not isinstance(private, RSAPrivateKey):
        raise TypeError("the gate takes Ed25519 and RSA keys")
    return private.sign(message.encode(), PKCS1v15(), SHA256()), "rsa-v1_5-sha256"


def mobee(key: Key, method: str, target: str, body: str) -> Request:
    timestamp = str(time.time_ns() // 1_000_000)
    message = "\n".join([method, target.partition("?")[0], timestamp] + ([body] if body else []))
    signature = base64.b64encode(sign(key, message)[0]).decode()
    return target, {"X-API-Key": key["key_id"], "X-Request-Timestamp": timestamp, "X-Request-Signature": signature}, body


def binance(key: Key, _method: str, target: str, body: str) -> Request:
    """The parameters are in the query or, as a form, in the body."""
    path, _, query = target.partition("?")
    payload = "&".join(filter(None, [body or query, f"timestamp={time.time_ns() // 1_000_000}"]))
    signature, algorithm = sign(key, (query if body else "") + payload)
    text = signature.hex() if algorithm == "hmac-sha256" else quote(base64.b64encode(signature), safe="")
    payload += f"&signature={text}"
    headers = {"X-MBX-APIKEY": key["key_id"]}
    if body:
        return target, headers | {"Content-Type": "application/x-www-form-urlencoded"}, payload
    return f"{path}?{payload}", headers, ""


def rfc9421(key: Key, method: str, target: str, body: str) -> Request:
    path, mark, query = target.partition("?")
    covered, headers = {"@method": method, "@path": path}, {}
    if mark:
        covered["@query"] = f"?{query}"
    if body:
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        headers["Content-Digest"] = covered["content-digest"] = f"sha-256=:{digest}:"
    names = " ".join(f'"{name}"' for name in covered)
    parameters = f'({names});created={int(time.time())};keyid="{key["key_id"]}";nonce="{secrets.token_hex(16)}"'
    base = "\n".join([*(f'"{name}": {value}' for name, value in covered.items()), f'"@signature-params": {parameters}'])
    signature = base64.b64encode(sign(key, base)[0]).decode()
    return target, headers | {"Signature-Input": f"sig={parameters}", "Signature": f"sig=:{signature}:"}, body


DIALECTS = {"mobee": mobee, "binance": binance, "rfc9421": rfc9421}

if __name__ == "__main__":
    if len(sys.argv) < 6 or sys.argv[3] not in DIALECTS:
        sys.exit("python sign.py URL KEYFILE mobee|binance|rfc9421 METHOD TARGET [BODY]")
    url, key_file, dialect, method, target, body = (*sys.argv[1:], "")[:6]
    key = json.loads(Path(key_file).read_text("utf-8"))
    target, headers, body = DIALECTS[dialect](key, method, target, body)
    answer = requests.request(method, url + target, data=body, headers=headers, timeout=10)
    if not answer.ok:
        sys.exit(f"{answer.status_code} {answer.text}")  # "detail" says why, and what to do
    print(answer.text)
