"""A demo OpenID provider: discovery, keys, authorization code with PKCE and nonce, token endpoint, and ``POST /demo-token``.

It has no passwords: its login page accepts any account name. It listens on loopback and sends codes to loopback addresses only.
Accounts are not stored: any name is an account; only ``unverified`` has no verified identity (KYC).
Sources: OpenID Connect Core 1.0, Discovery 1.0; RFC 6749, RFC 7636 (PKCE), RFC 9207 (``iss`` in the answer).
"""

import argparse
import base64
import hashlib
import html
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

from deploy.local.files import write_private
from gateway.runtime import clock

AUDIENCE = "gerbang"
UNVERIFIED = "unverified"
TOKEN_LIFE_S = 3600
CODE_LIFE_MS = 60_000
MAX_CODES = 1_000

_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Grant(NamedTuple):
    """The login that a code represents until it is redeemed."""

    account: str
    redirect_uri: str
    challenge: str
    nonce: str | None
    expires_ms: int


class OAuthError(Exception):
    """An error response (RFC 6749 §4.1.2.1, §5.2): code and description."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


class IdentityProvider:
    """The provider: its signing key and the pending codes."""

    def __init__(self, issuer: str, key: RSAKey) -> None:
        self.issuer = issuer
        self._key = key
        self._codes: dict[str, Grant] = {}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=16_384)
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/.well-known/openid-configuration", self.discovery),
                web.get("/jwks.json", self.jwks),
                web.get("/authorize", self.login_page),
                web.post("/authorize", self.login),
                web.post("/token", self.token),
                web.post("/demo-token", self.demo_token),
                web.get("/logout", self.logout),
            ]
        )
        return app

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def discovery(self, _request: web.Request) -> web.Response:
        """OpenID Connect Discovery §3."""
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks.json",
                "end_session_endpoint": f"{self.issuer}/logout",
                "response_types_supported": ["code"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid", "email"],
                "claims_supported": ["sub", "email", "email_verified", "kyc", "auth_time"],
                "token_endpoint_auth_methods_supported": ["none"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def jwks(self, _request: web.Request) -> web.Response:
        public = {**self._key.as_dict(private=False), "kid": self._key.thumbprint(), "use": "sig", "alg": "RS256"}
        return web.json_response({"keys": [public]}, headers={"Cache-Control": "max-age=60"})

    async def login_page(self, request: web.Request) -> web.Response:
        """The login page. The request's parameters are kept in hidden form fields."""
        try:
            self._check_authorization(request.query)
        except OAuthError as error:
            return self._refuse(request.query, error)
        return _page(_LOGIN.format(hidden=_hidden(request.query)))

    async def login(self, request: web.Request) -> web.Response:
        form = _texts(await request.post())
        try:
            self._check_authorization(form)
        except OAuthError as error:
            return self._refuse(form, error)
        account = form.get("account", "")
        if not _ACCOUNT.fullmatch(account):
            return _page(_LOGIN.format(hidden=_hidden(form)), status=422)
        code = self._issue_code(account, form, clock.now_ms())
        return _redirect(form["redirect_uri"], {"code": code, "iss": self.issuer} | _state(form))

    async def token(self, request: web.Request) -> web.Response:
        """The token endpoint (RFC 6749 §4.1.3, RFC 7636 §4.5); a code works once."""
        form = _texts(await request.post())
        try:
            grant = self._redeem(form, clock.now_ms())
        except OAuthError as error:
            body = {"error": error.code, "error_description": error.description}
            return web.json_response(body, status=400, headers={"Cache-Control": "no-store"})
        token = self.id_token(grant.account, clock.now_ms(), nonce=grant.nonce)
        answer = {"access_token": token, "id_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE_S}
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    async def demo_token(self, request: web.Request) -> web.Response:
        """A token without a login, for demonstrations and tests."""
        account = _texts(await request.post()).get("account", "")
        if not _ACCOUNT.fullmatch(account):
            detail = "form field account: 1 to 64 lower-case letters, digits, '.', '_' or '-', e.g. account=verified"
            return web.json_response({"error": "invalid_request", "error_description": detail}, status=400)
        return web.json_response({"id_token": self.id_token(account, clock.now_ms())}, headers={"Cache-Control": "no-store"})

    async def logout(self, request: web.Request) -> web.Response:
        target = request.query.get("post_logout_redirect_uri", "")
        return _redirect(target, {}) if _is_loopback(target) else _page("<p>You are logged out.</p>")

    def id_token(self, account: str, now_ms: int, *, nonce: str | None = None) -> str:
        """OpenID Connect Core §2, with the exchange's own claim ``kyc``."""
        now = now_ms // 1000
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": account,
            "email": f"{account}@example.com",
            "email_verified": True,
            "kyc": "unverified" if account == UNVERIFIED else "verified",
            "iat": now,
            "auth_time": now,
            "exp": now + TOKEN_LIFE_S,
            "jti": secrets.token_urlsafe(16),  # two logins in one second are two
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return jwt.encode({"alg": "RS256", "kid": self._key.thumbprint()}, claims, self._key)

    def _check_authorization(self, asked: Mapping[str, str]) -> None:
        if asked.get("client_id") != AUDIENCE:
            raise OAuthError("unauthorized_client", f"client_id must be {AUDIENCE}")
        if not _is_loopback(asked.get("redirect_uri", "")):
            raise OAuthError("unauthorized_client", "redirect_uri must be a loopback address")
        if asked.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type must be code")
        if "openid" not in asked.get("scope", "").split():
            raise OAuthError("invalid_scope", "scope must contain openid")
        if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(asked.get("code_challenge", "")):
            raise OAuthError("invalid_request", "PKCE is required: code_challenge, and code_challenge_method=S256")

    def _refuse(self, asked: Mapping[str, str], error: OAuthError) -> web.Response:
        """Report an error by redirect, unless the client or the redirect URI is invalid (RFC 6749 §4.1.2.1)."""
        if error.code == "unauthorized_client":
            return _page(f"<p>{html.escape(error.description)}</p>", status=400)
        return _redirect(
            asked["redirect_uri"], {"error": error.code, "error_description": error.description, "iss": self.issuer} | _state(asked)
        )

    def _issue_code(self, account: str, asked: Mapping[str, str], now_ms: int) -> str:
        self._codes = {code: grant for code, grant in self._codes.items() if grant.expires_ms > now_ms}
        if len(self._codes) >= MAX_CODES:
            self._codes.pop(next(iter(self._codes)))
        code = secrets.token_urlsafe(32)
        self._codes[code] = Grant(account, asked["redirect_uri"], asked["code_challenge"], asked.get("nonce"), now_ms + CODE_LIFE_MS)
        return code

    def _redeem(self, form: Mapping[str, str], now_ms: int) -> Grant:
        if form.get("grant_type") != "authorization_code":
            raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code")
        if form.get("client_id") != AUDIENCE:
            raise OAuthError("invalid_client", f"client_id must be {AUDIENCE}")
        grant = self._codes.pop(form.get("code", ""), None)
        if grant is None or grant.expires_ms <= now_ms:
            raise OAuthError("invalid_grant", "the code is unknown, used or expired")
        if form.get("redirect_uri") != grant.redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri differs from the one the code was sent to")
        verifier = form.get("code_verifier", "")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if not _VERIFIER.fullmatch(verifier) or challenge != grant.challenge:
            raise OAuthError("invalid_grant", "code_verifier does not belong to code_challenge")
        return grant


def load_key(path: Path) -> RSAKey:
    """The signing key in ``path`` (PEM), created on the first start, so that tokens survive restarts."""
    if not path.exists():
        write_private(path, RSAKey.generate_key(2048).as_pem(private=True).decode())
    return RSAKey.import_key(path.read_text())


_LOGIN = """<h1>Demo exchange</h1><p>Log in as:</p><form method="post" action="/authorize">{hidden}
<p><button name="account" value="verified">a customer with verified identity</button></p>
<p><button name="account" value="unverified">a customer without verified identity</button></p></form>
<form method="post" action="/authorize">{hidden}<p><label>Another verified customer: <input name="account" required
pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="64"></label> <button>Log in</button></p></form>"""


def _page(body: str, *, status: int = 200) -> web.Response:
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Login</title>'
    headers = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store"}
    return web.Response(text=head + body, content_type="text/html", status=status, headers=headers)


def _redirect(target: str, parameters: Mapping[str, str]) -> web.Response:
    joint = "&" if "?" in target else "?"
    location = f"{target}{joint}{urlencode(parameters)}" if parameters else target
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})


def _hidden(fields: Mapping[str, str]) -> str:
    kept = ((name, value) for name, value in fields.items() if name != "account")
    return "".join(f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">' for name, value in kept)


def _state(asked: Mapping[str, str]) -> dict[str, str]:
    return {"state": asked["state"]} if "state" in asked else {}


def _texts(form: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _is_loopback(target: str) -> bool:
    try:
        url = urlsplit(target)
        return url.scheme in ("http", "https") and url.hostname in _LOOPBACK and not url.fragment and target.isprintable()
    except ValueError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="The demo OpenID provider of `gerbang up`.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", type=Path, required=True)
    options = parser.parse_args()
    provider = IdentityProvider(f"http://127.0.0.1:{options.port}", load_key(options.key))
    web.run_app(provider.application(), host="127.0.0.1", port=options.port, print=None, access_log=None, shutdown_timeout=2)


if __name__ == "__main__":
    main()
