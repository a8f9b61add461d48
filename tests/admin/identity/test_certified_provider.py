"""A whole login at a provider that others wrote and OpenID certified: npm's ``oidc-provider``, pinned in ``node/package-lock.json``.

It tells e-mail and KYC at userinfo, and not in the ID token.
"""

import asyncio
import json
import re
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import pytest
from joserfc.jwk import OKPKey, RSAKey

from admin.config import Kyc as KycSettings
from admin.config import Oidc
from admin.identity.caller import Kyc
from admin.identity.login import CALLBACK_PATH, Login
from admin.identity.provider import Provider
from admin.identity.tokens import TokenVerifier
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.lacking import tool
from tests.support.ports import free_port

NODE = Path(__file__).parent / "node"
PUBLIC_URL = "https://keys.exchange.example"
SECRET = "s3cret/with+odd:signs-of-more-than-thirty-two-bytes"
_FORM = re.compile(r'<form[^>]*action="([^"]+)"')


@pytest.fixture(scope="session")
def node_modules() -> None:
    """Installed when they are not there."""
    tool("npm", "apt-get install npm")
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
        done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


@asynccontextmanager
async def certified(client):
    """The provider's URL; it runs until the block ends."""
    port = free_port()
    keys: list[Any] = [
        RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig", "alg": "RS256"}),
        OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}),
    ]
    issuer = f"http://127.0.0.1:{port}"
    settings = {"issuer": issuer, "port": port, "client": client, "jwks": {"keys": [key.as_dict(private=True) for key in keys]}}
    process = await asyncio.create_subprocess_exec(
        "node", "provider.mjs", json.dumps(settings), cwd=NODE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
        yield issuer
    finally:
        process.kill()
        await process.wait()


async def log_in(url, account):
    """As a browser: fill in what the provider shows until it leads back to us; with which query."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        form = None
        for _ in range(20):
            request = browser.get(url, allow_redirects=False) if form is None else browser.post(url, data=form, allow_redirects=False)
            async with request as response:
                text, form = await response.text(), None
                if "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    if url.startswith(PUBLIC_URL):
                        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
                    continue
            assert response.status == 200, text
            url = urljoin(url, _FORM.search(text)[1])
            form = {"prompt": "login", "login": account, "password": "any"} if 'name="login"' in text else {"prompt": "consent"}
    raise AssertionError(f"no way back from {url}")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("method", "alg", "account", "kyc"),
    [
        ("client_secret_basic", "RS256", "budi", Kyc.VERIFIED),
        ("client_secret_post", "EdDSA", "budi", Kyc.VERIFIED),
        ("none", "EdDSA", "unverified", Kyc.UNVERIFIED),
    ],
)
@pytest.mark.usefixtures("node_modules")
async def test_a_customer_logs_in_and_their_email_and_kyc_are_found_at_userinfo(method, alg, account, kyc):
    client = {
        "client_id": "gerbang",
        "client_secret": SECRET,
        "redirect_uris": [PUBLIC_URL + CALLBACK_PATH],
        "token_endpoint_auth_method": method,
        "id_token_signed_response_alg": alg,
    }
    if method == "none":
        del client["client_secret"]
    async with certified(client) as issuer, aiohttp.ClientSession() as http:
        oidc = Oidc.model_validate({
            "issuer": issuer, "audience": "gerbang", "scopes": ["openid", "email", "exchange"], "algorithms": [alg],
            "client_secret": client.get("client_secret"), "client_authentication": "body" if method == "client_secret_post" else "header",
        })  # fmt: skip
        provider = Provider(http, oidc)
        login = Login(
            provider=provider, verifier=TokenVerifier(provider, oidc, KycSettings()), vault=Vault.parse(new_entry("k1")), http=http,
            oidc=oidc, public_url=PUBLIC_URL, max_age_ms=43_200_000,
        )  # fmt: skip
        started = await login.start("/keys", clock.now_ms())
        answer = await log_in(started.url, account)
        attempt = login.attempt(answer, started.cookie, clock.now_ms())
        caller = await login.finish(answer, attempt, clock.now_ms())
    assert (caller.account_id, caller.email, caller.kyc, attempt.return_to) == (account, f"{account}@example.com", kyc, "/keys")
    assert 0 <= clock.now_ms() - caller.authenticated_ms < 120_000, "a login that has just been made is fresh"
