"""Browser login: the OpenID Connect authorization code flow with PKCE, state and nonce.

Contains the two steps of the flow, from "log in" to a verified ID token; not cookies, pages, or what
the customer may do afterwards. Sources: OpenID Connect Core §3.1, RFC 7636 (PKCE), RFC 9207 (``iss`` in the answer), RFC 9700.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp

from admin.config import Oidc
from admin.errors import IdentityProviderUnavailable, Unauthenticated
from admin.identity import attempts
from admin.identity.attempts import LoginAttempt
from admin.identity.caller import Caller
from admin.identity.provider import Provider
from admin.identity.sessions import new_token
from admin.identity.tokens import TokenVerifier
from admin.outbound import read_to_end
from gateway.keys.vault import Vault
from gateway.runtime import clock
from gateway.runtime.tasks import spawn

CALLBACK_PATH = "/login/callback"

_LOCAL_PATH = re.compile(r"/(?:[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*)?")
_MAX_ANSWER = 65_536
_MAX_PATH = 96  # it is kept in a cookie


class LoginFailed(Exception):
    """The login failed. ``outcome`` selects the page's text: ``denied``, ``stale`` or ``failed``; the message is for the log."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Started(NamedTuple):
    """Where to redirect the browser, and the value of its cookie, which :meth:`Login.attempt` reads."""

    url: str
    state: str
    cookie: str


class Tokens(NamedTuple):
    """The tokens received for a code."""

    id_token: str
    access_token: str | None


class Login:
    """The flow for one provider and one client.

    :param vault: seals the logins in progress, which their browsers keep
    :param http: for the call to the token endpoint
    :param max_age_ms: a customer whose last authentication is older must authenticate again
    :param public_url: the URL at which browsers reach this service; the callback's address is derived from it
    """

    def __init__(
        self,
        *,
        provider: Provider,
        verifier: TokenVerifier,
        vault: Vault,
        http: aiohttp.ClientSession,
        oidc: Oidc,
        public_url: str,
        max_age_ms: int,
    ) -> None:
        self._provider = provider
        self._verifier = verifier
        self._vault = vault
        self._http = http
        self._oidc = oidc
        self._public_url = public_url.rstrip("/")
        self._max_age_s = max_age_ms // 1000

    async def start(self, return_to: str, now_ms: int, *, prompt_again: bool = False) -> Started:
        """:param prompt_again: have the provider authenticate the customer again, even if it has a session

        :raises IdentityProviderUnavailable: the provider publishes no authorization endpoint, or cannot be reached
        """
        discovery = await self._provider.discovery(clock.monotonic_ms())
        if discovery.authorization_endpoint is None or discovery.token_endpoint is None:
            raise IdentityProviderUnavailable("The identity provider publishes no endpoints for a login.")
        state = new_token()
        attempt = LoginAttempt(
            nonce=new_token(), code_verifier=new_token(), return_to=local_path(return_to), expires_ms=now_ms + attempts.TTL_MS
        )
        query = {
            "response_type": "code",
            "client_id": self._oidc.audience,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self._oidc.scopes),
            "state": state,
            "nonce": attempt.nonce,
            "code_challenge": _s256(attempt.code_verifier),
            "code_challenge_method": "S256",
            # It also makes the provider include auth_time (OpenID Connect Core §3.1.2.1 and §2).
            "max_age": "0" if prompt_again else str(self._max_age_s),
        } | ({"prompt": "login"} if prompt_again else {})
        joint = "&" if "?" in discovery.authorization_endpoint else "?"
        cookie = attempts.seal(attempt, self._vault, state=state)
        return Started(discovery.authorization_endpoint + joint + urlencode(query), state, cookie)

    def attempt(self, answer: Mapping[str, str], cookie: str, now_ms: int) -> LoginAttempt:
        """The login that an answer belongs to.

        :param answer: the query with which the provider sent the browser back
        :param cookie: the value set at :meth:`start`
        :raises LoginFailed: it was started by another browser or for another state, or has expired
        """
        attempt = attempts.unseal(cookie, self._vault, now_ms, expected_state=answer.get("state", ""))
        if attempt is None:
            raise LoginFailed("stale", "not a login that this browser has in progress")
        return attempt

    async def finish(self, answer: Mapping[str, str], attempt: LoginAttempt, now_ms: int) -> Caller:
        """Complete the login. Returns the caller.

        :raises LoginFailed: the provider's answer is not valid
        :raises IdentityProviderUnavailable: the provider did not answer
        """
        if answer.get("iss", self._oidc.issuer) != self._oidc.issuer:
            raise LoginFailed("failed", "the answer is of another issuer (RFC 9207)")
        if "error" in answer:
            outcome = "denied" if answer["error"] == "access_denied" else "failed"
            raise LoginFailed(outcome, f"the provider answered {answer['error'][:64]!r}")
        if not answer.get("code"):
            raise LoginFailed("failed", "no code in the answer")
        tokens = await self._redeem(answer["code"], attempt.code_verifier)

        async def fetch_claims(subject: str) -> Mapping[str, Any]:
            return {} if tokens.access_token is None else await self._provider.userinfo(tokens.access_token, subject)

        try:
            return await self._verifier.verify(tokens.id_token, now_ms=now_ms, expected_nonce=attempt.nonce, fetch_claims=fetch_claims)
        except Unauthenticated as refused:
            raise LoginFailed("failed", f"ID token: {refused.detail}") from refused

    async def logout_url(self) -> str | None:
        """Where the provider's own session ends (OpenID Connect RP-Initiated Logout §2); ``None``: it has no such endpoint."""
        try:
            discovery = await self._provider.discovery(clock.monotonic_ms())
        except IdentityProviderUnavailable:
            return None  # our own session has ended nevertheless
        if discovery.end_session_endpoint is None:
            return None
        query = {"client_id": self._oidc.audience, "post_logout_redirect_uri": f"{self._public_url}/login"}
        return discovery.end_session_endpoint + ("&" if "?" in discovery.end_session_endpoint else "?") + urlencode(query)

    @property
    def _redirect_uri(self) -> str:
        return self._public_url + CALLBACK_PATH

    async def _redeem(self, code: str, code_verifier: str) -> Tokens:
        """Redeem a code for tokens. A code works once, so this continues even if the browser disconnects."""
        tokens: Tokens = await spawn(self._ask_for_tokens(code, code_verifier), name="oidc-code")
        return tokens

    async def _ask_for_tokens(self, code: str, code_verifier: str) -> Tokens:
        discovery = await self._provider.discovery(clock.monotonic_ms())
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._oidc.audience,
            "code_verifier": code_verifier,
        }
        headers = {"Accept": "application/json"}
        if self._oidc.client_secret is not None:
            if self._oidc.client_authentication == "body":
                form["client_secret"] = self._oidc.client_secret.get_secret_value()
            else:
                headers["Authorization"] = _basic(self._oidc.audience, self._oidc.client_secret.get_secret_value())
        timeout = aiohttp.ClientTimeout(total=self._oidc.timeout_ms / 1000)
        try:
            async with self._http.post(
                str(discovery.token_endpoint), data=form, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                body = await read_to_end(response, _MAX_ANSWER)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise IdentityProviderUnavailable(
                "The identity provider did not answer. Try again shortly.", reason=f"token endpoint: {type(error).__name__}"
            ) from None
        return _tokens(status, body)


_REFUSES_THIS_SERVICE = ("invalid_client", "unauthorized_client")
"""RFC 6749 §5.2: errors that do not depend on the customer's code."""


def local_path(text: str) -> str:
    """``text`` if it is a plain, short path of this site, else the list of keys, which prevents open redirects."""
    return text if len(text) <= _MAX_PATH and _LOCAL_PATH.fullmatch(text) else "/keys"


def _s256(code_verifier: str) -> str:
    """RFC 7636 §4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(code_verifier.encode("ascii")).digest()).decode("ascii").rstrip("=")


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749 §2.3.1: both parts are form-encoded before they are joined."""
    pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def _tokens(status: int, body: bytes) -> Tokens:
    """The token endpoint's answer (OpenID Connect Core §3.1.3.3).

    :raises LoginFailed: it is none, or this code is refused
    :raises IdentityProviderUnavailable: the provider has failed, or refuses this service, e.g. an old client secret
    """
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if status != 200 or not isinstance(answer, dict):
        named = answer.get("error") if isinstance(answer, dict) else None
        said = f"token endpoint answered {status} {str(named)[:64]!r}"
        if named in _REFUSES_THIS_SERVICE:
            reason = f"{said}: check oidc.audience, oidc.client_secret and oidc.client_authentication"
            raise IdentityProviderUnavailable("The identity provider does not accept this service at the moment.", reason=reason)
        if status >= 500:
            raise IdentityProviderUnavailable("The identity provider did not answer. Try again shortly.", reason=said)
        raise LoginFailed("failed", said)
    id_token = answer.get("id_token")
    if not isinstance(id_token, str):
        raise LoginFailed("failed", "token endpoint gave no ID token")
    access_token = answer.get("access_token")
    return Tokens(
        id_token, access_token if isinstance(access_token, str) and access_token.isascii() and access_token.isprintable() else None
    )
