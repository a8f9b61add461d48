"""The admin service as tests use it: the real one, in this process, and an account holder with a phone."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pyotp

from admin.app import serving
from admin.config import AdminSettings
from gateway.keys.vault import new_entry
from tests.support.customer import next_step
from tests.support.issuer import AUDIENCE, Issuer

INTERNAL_TOKEN = secrets.token_urlsafe(32)
KEY = {"label": "My bot", "scopes": ["read"], "ip_access": "whitelisted", "ip_allowlist": ["8.8.8.8"]}


class Reply(NamedTuple):
    """An answer, read whole."""

    status: int
    headers: Any
    body: Any
    text: str

    @property
    def code(self) -> str:
        return str(self.body["code"])

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(error["field"], error["code"]) for error in self.body["errors"]]


class Service:
    """A running service. ``public`` and ``internal`` are its URLs."""

    def __init__(self, public: str, internal: str, issuer: Issuer, http: aiohttp.ClientSession, settings: AdminSettings) -> None:
        self.public = public
        self.internal = internal
        self.issuer = issuer
        self.http = http
        self.settings = settings

    async def send(self, method: str, url: str, **options: Any) -> Reply:
        async with self.http.request(method, url, **options) as response:
            text = await response.text()
            body = await response.json(content_type=None) if "json" in response.headers.get("Content-Type", "") else None
            return Reply(response.status, response.headers, body, text)

    async def operator(self, method: str, path: str, body: object = None, token: str = INTERNAL_TOKEN) -> Reply:
        """A call of the back office."""
        headers = {"Authorization": f"Bearer {token}"}
        return await self.send(method, f"{self.internal}/internal/v1/{path}", json=body, headers=headers)

    def customer(self, account: str = "alice", **claims: Any) -> "Customer":
        return Customer(self, account, self.issuer.bearer(account, **claims))


class Customer:
    """An account holder: a token, and after ``enrol`` an authenticator app whose codes are each good once."""

    def __init__(self, service: Service, account: str, headers: dict[str, str]) -> None:
        self.service = service
        self.account = account
        self.headers = headers
        self.factor_id = ""
        self.secret = ""
        self.recovery_codes: list[str] = []
        self._last_step = 0

    async def call(self, method: str, path: str, body: object = None, **options: Any) -> Reply:
        if body is not None:
            options["json"] = body
        return await self.service.send(method, f"{self.service.public}/api/v1/{path}", headers=self.headers, **options)

    def code(self) -> str:
        """The next code that was not used: a step of drift either way makes three at hand."""
        self._last_step = next_step(self._last_step)
        return pyotp.TOTP(self.secret).generate_otp(self._last_step)

    async def enrol(self) -> None:
        started = await self.call("POST", "factors/totp")
        assert started.status == 201, started.text
        self.factor_id, self.secret = started.body["id"], started.body["secret"]
        confirmed = await self.call("POST", f"factors/totp/{self.factor_id}/confirm", {"code": self.code()})
        assert confirmed.status == 200, confirmed.text
        self.recovery_codes = confirmed.body["recovery_codes"]

    async def challenge(self, action: str, **members: object) -> str:
        reply = await self.call("POST", "step-up", {"intent": {"action": action, **members}})
        assert reply.status == 201, reply.text
        return str(reply.body["challenge_id"])

    async def proof(self, action: str, **members: object) -> dict[str, str]:
        return {"challenge_id": await self.challenge(action, **members), "totp": self.code()}

    async def create(self, **changes: object) -> Reply:
        wish = {**KEY, **changes}
        return await self.call("POST", "keys", {**wish, "step_up": await self.proof("create_key", **wish)})

    async def delete(self, key_id: str) -> Reply:
        return await self.call("DELETE", f"keys/{key_id}", {"step_up": await self.proof("delete_key", key_id=key_id)})


def settings_for(issuer: Issuer, postgres: str, redis: str, **changes: Any) -> AdminSettings:
    """Complete settings on ports of the system's choosing."""
    raw = {
        "listen": {"public": "127.0.0.1:0", "internal": "127.0.0.1:0", "drain_timeout_ms": 2_000},
        "public_url": "http://127.0.0.1:8090",
        "stores": {"postgres": postgres, "redis": redis},
        "vault": {"keys": new_entry("test")},
        "oidc": {"issuer": issuer.url, "audience": AUDIENCE},
        "internal": {"token": INTERNAL_TOKEN},
        **changes,
    }
    return AdminSettings.model_validate(raw)


@asynccontextmanager
async def running_service(settings: AdminSettings, issuer: Issuer) -> AsyncIterator[Service]:
    """The real service until the block ends."""
    async with serving(settings) as bound, aiohttp.ClientSession() as http:
        yield Service(f"http://{bound.public}", f"http://{bound.internal}", issuer, http, settings)
