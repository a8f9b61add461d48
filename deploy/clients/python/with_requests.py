"""Sign requests' requests: ``requests.get(url, auth=GerbangAuth.from_file("key.json"))``."""

import base64
import hmac
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase


class GerbangAuth(AuthBase):
    """Signs each request when it is sent; works for a session too: ``session.auth = GerbangAuth.from_file(…)``."""

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

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        timestamp = str(time.time_ns() // 1_000_000)
        path = urlsplit(request.url or "").path or "/"
        message = f"{request.method}\n{path}\n{timestamp}".encode()
        if request.body:
            # The prepared request is exactly what is sent.
            message += b"\n" + (request.body.encode() if isinstance(request.body, str) else request.body)
        signature = hmac.digest(self._secret, message, "sha256")
        request.headers["X-API-Key"] = self.key_id
        request.headers["X-Request-Timestamp"] = timestamp
        request.headers["X-Request-Signature"] = base64.b64encode(signature).decode()
        return request
