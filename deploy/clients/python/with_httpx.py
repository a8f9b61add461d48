"""Sign httpx's requests: ``httpx.Client(auth=GerbangAuth.from_file("key.json"))``, or ``httpx.AsyncClient``."""

import base64
import hmac
import json
import time
from collections.abc import Generator
from pathlib import Path

import httpx


class GerbangAuth(httpx.Auth):
    """Signs each request when it is sent."""

    requires_request_body = True

    def __init__(self, key_id: str, secret: str) -> None:
        self.key_id = key_id
        self._secret = secret.encode()

    @classmethod
    def from_file(cls, path: str) -> "GerbangAuth":
        """From the key file offered for download when the key is created."""
        key = json.loads(Path(path).read_text("utf-8"))
        if "secret" not in key:
            raise ValueError("this example signs with a secret (HMAC-SHA256), and the key file has none; sign.py shows Ed25519 and RSA")
        return cls(key["key_id"], key["secret"])

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        timestamp = str(time.time_ns() // 1_000_000)
        path = request.url.raw_path.partition(b"?")[0]
        message = b"\n".join([request.method.encode(), path, timestamp.encode()])
        if request.content:
            message += b"\n" + request.content
        signature = hmac.digest(self._secret, message, "sha256")
        request.headers["X-API-Key"] = self.key_id
        request.headers["X-Request-Timestamp"] = timestamp
        request.headers["X-Request-Signature"] = base64.b64encode(signature).decode()
        yield request
