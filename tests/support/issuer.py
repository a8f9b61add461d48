"""An OpenID issuer on loopback: real discovery, real keys, tokens signed for whoever a test says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from gateway.runtime import clock

AUDIENCE = "gerbang"
_PARAMETERS = {"use": "sig"}
_FIRST = RSAKey.generate_key(2048, {**_PARAMETERS, "kid": "first"})


class Issuer:
    """``published`` is the key set it shows; ``signing`` the key it signs with; ``requests`` counts what was asked."""

    def __init__(self) -> None:
        self.signing: RSAKey | ECKey = _FIRST
        self.published: list[Any] = [_FIRST.as_dict(private=False)]
        self.url = ""
        self.discovery: dict[str, Any] = {}
        self.requests: list[str] = []
        self.keys_read = asyncio.Event()
        self.fail_with: int | None = None
        self.answer: bytes | None = None
        self.hangs = asyncio.Event()
        """Cleared: it answers nothing until this is set."""
        self.hangs.set()
        self.told: Any = None
        """What userinfo answers: claims, or a status."""
        self.pieces = False
        """Whether documents come a few bytes at a time."""

    def rotate(self, kid: str = "second") -> None:
        """Sign with a new key from now on, and publish it alone."""
        self.signing = RSAKey.generate_key(2048, {**_PARAMETERS, "kid": kid, "alg": "RS256"})
        self.published = [self.signing.as_dict(private=False)]

    def token(self, account: str = "alice", *, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token as the provider makes them; a claim given as ``None`` is left out."""
        now = clock.now_ms() // 1000
        body = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": account,
            "email": f"{account}@example.com",
            "kyc": "verified",
            "iat": now,
            "exp": now + 3600,
            "auth_time": now,
            **claims,
        }
        key = key or self.signing
        head = {"alg": "RS256", "kid": key.kid, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        registry = JWSRegistry(algorithms=list(JWSRegistry.algorithms), strict_check_header=False)
        return jwt.encode(head, {name: value for name, value in body.items() if value is not None}, key, registry=registry)

    def bearer(self, account: str = "alice", **claims: Any) -> dict[str, str]:
        """Request headers of a caller."""
        return {"Authorization": f"Bearer {self.token(account, **claims)}"}

    async def _document(self, request: web.Request, document: object) -> web.StreamResponse:
        return await in_pieces(request, document) if self.pieces else web.json_response(document)

    async def serve_discovery(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        await self.hangs.wait()
        if self.fail_with is not None:
            return web.Response(status=self.fail_with)
        return await self._document(request, {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **self.discovery})

    async def serve_userinfo(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        return web.Response(status=self.told) if isinstance(self.told, int) else web.json_response(self.told)

    async def serve_jwks(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        self.keys_read.set()
        if self.answer is not None:
            return web.Response(body=self.answer)
        return await self._document(request, {"keys": self.published})


async def in_pieces(request: web.Request, document: object) -> web.StreamResponse:
    """An answer that the network delivers in several pieces, each by itself."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    body = json.dumps(document).encode()
    for start in range(0, len(body), len(body) // 3 + 1):
        await response.write(body[start : start + len(body) // 3 + 1])
        await asyncio.sleep(0.02)  # so that the receiver's kernel hands it over before the next
    await response.write_eof()
    return response


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    """An issuer that answers until the block ends."""
    issuer = Issuer()
    application = web.Application()
    application.router.add_get("/.well-known/openid-configuration", issuer.serve_discovery)
    application.router.add_get("/jwks", issuer.serve_jwks)
    application.router.add_get("/userinfo", issuer.serve_userinfo)
    server = TestServer(application)
    await server.start_server()
    issuer.url = str(server.make_url("")).rstrip("/")
    try:
        yield issuer
    finally:
        issuer.hangs.set()
        await server.close()
