"""Sign aiohttp's requests: ``aiohttp.ClientSession(middlewares=[gerbang_auth(key_id, secret)])``."""

import base64
import hmac
import time

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
