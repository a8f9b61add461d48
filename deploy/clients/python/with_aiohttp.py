"""Sign aiohttp's requests: ``aiohttp.ClientSession(middlewares=[gerbang_auth_from_file("key.json")])``."""

import base64
import hmac
import json
import time
from pathlib import Path

from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse, Payload


def gerbang_auth(key_id: str, secret: str) -> ClientMiddlewareType:
    """A client middleware that signs each request when it is sent."""

    async def sign(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        timestamp = str(time.time_ns() // 1_000_000)
        message = f"{request.method}\n{request.url.raw_path}\n{timestamp}".encode()
        if isinstance(request.body, Payload):
            message += b"\n" + await request.body.as_bytes()
        signature = hmac.digest(secret.encode(), message, "sha256")
        request.headers["X-API-Key"] = key_id
        request.headers["X-Request-Timestamp"] = timestamp
        request.headers["X-Request-Signature"] = base64.b64encode(signature).decode()
        return await handler(request)

    return sign


def gerbang_auth_from_file(path: str) -> ClientMiddlewareType:
    """From the key file offered for download when the key is created."""
    key = json.loads(Path(path).read_text("utf-8"))
    if "secret" not in key:
        raise ValueError("this example signs with a secret (HMAC-SHA256), and the key file has none; sign.py shows Ed25519 and RSA")
    return gerbang_auth(key["key_id"], key["secret"])
