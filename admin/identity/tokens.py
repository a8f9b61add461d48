"""Bearer token validation: a JWT in, a :class:`Caller` out. Sources: RFC 7519, RFC 6750, OpenID Connect Core §3.1.3.7."""

import hashlib
import re
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from aiohttp import web
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError, SecurityWarning
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from admin.config import Kyc as KycSettings
from admin.config import Oidc
from admin.errors import Unauthenticated
from admin.identity.caller import Caller, Kyc
from admin.identity.provider import Provider
from gateway.runtime import clock

FetchClaims = Callable[[str], Awaitable[Mapping[str, Any]]]
"""Fetches further claims about a subject."""

_log = structlog.get_logger(__name__)

_SUBJECT = re.compile(r"[!-~]{1,255}")  # OpenID Connect Core §2; it also becomes a header field's value
_TYPES = ("jwt", "at+jwt")  # a logout token, for example, is signed by the same key and proves no login (RFC 8725 §3.11)
_MAX_EMAIL = 320
_USERINFO_FOR_MS = 60_000
_MAX_CACHED = 10_000
# Raised by joserfc and its JSON parser for malicious input: it is not a token.
_UNREADABLE = (JoseError, ValueError, TypeError, AttributeError, KeyError, RecursionError)


class TokenVerifier:
    """Checks signature, issuer, audience, times; algorithms are pinned by the configuration."""

    def __init__(self, provider: Provider, oidc: Oidc, kyc: KycSettings) -> None:
        self._provider = provider
        self._oidc = oidc
        self._kyc = kyc
        self._registry = JWSRegistry(algorithms=list(oidc.algorithms), strict_check_header=False)
        self._reported_missing: set[str] = set()
        self._userinfo_cache: dict[bytes, tuple[int, Mapping[str, Any]]] = {}

    async def bearer(self, request: web.Request, now_ms: int) -> Caller | None:
        """An :data:`~admin.identity.caller.Authenticator` for ``Authorization: Bearer``."""
        values = request.headers.getall("Authorization", [])
        if not values:
            return None
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated.because("Send one header: Authorization: Bearer TOKEN.", token_given=True)
        token = token.strip()

        async def fetch_claims(subject: str) -> Mapping[str, Any]:
            return await self._cached_userinfo(token, subject, now_ms)

        return await self.verify(token, now_ms=now_ms, fetch_claims=fetch_claims)

    async def _cached_userinfo(self, token: str, subject: str, now_ms: int) -> Mapping[str, Any]:
        """The userinfo claims for this token, cached for :data:`_USERINFO_FOR_MS`; none if it is an ID token."""
        name = hashlib.sha256(token.encode()).digest()
        asked_ms, claims = self._userinfo_cache.get(name, (now_ms - _USERINFO_FOR_MS, {}))
        if not 0 <= now_ms - asked_ms < _USERINFO_FOR_MS:
            claims = await self._provider.userinfo(token, subject, or_empty=True)
            if len(self._userinfo_cache) >= _MAX_CACHED:
                self._userinfo_cache.clear()
            self._userinfo_cache[name] = now_ms, claims
        return claims

    async def verify(
        self, token: str, *, now_ms: int, expected_nonce: str | None = None, fetch_claims: FetchClaims | None = None
    ) -> Caller:
        """The account holder that the token identifies.

        :param now_ms: Unix milliseconds
        :param expected_nonce: for the ID token of a login that was started here
        :param fetch_claims: called if e-mail or KYC claims are not in the token
        :raises Unauthenticated: with the reason, never with the token
        :raises IdentityProviderUnavailable: the issuer's keys are not available
        """
        kid = _header(token)
        keys = await self._provider.keys(kid, clock.monotonic_ms())
        if not keys:
            raise Unauthenticated.because("The token is signed by a key that the issuer does not publish.", token_given=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # EdDSA: renamed by RFC 9864, but providers still use the old name
                claims = jwt.decode(token, KeySet(keys), registry=self._registry).claims
        except _UNREADABLE as error:
            raise Unauthenticated.because(
                "The token's signature or algorithm is not accepted.", token_given=True, reason=f"token: {type(error).__name__}"
            ) from None
        self._check_claims(claims, now_ms, expected_nonce)
        return self._caller(await self._completed(claims, fetch_claims), token)

    async def _completed(self, claims: Mapping[str, Any], fetch_claims: FetchClaims | None) -> Mapping[str, Any]:
        """The token's claims, completed by userinfo; the token's own take precedence."""
        wanted = ("email", self._kyc.claim)
        if fetch_claims is not None and not all(name in claims for name in wanted) and isinstance(claims["sub"], str):
            more = await fetch_claims(claims["sub"])
            if "email" not in claims:
                claims = {**claims, "email_verified": more.get("email_verified", True)}
            claims = {**{name: more[name] for name in wanted if name in more}, **claims}
        for name in wanted:
            if name not in claims and name not in self._reported_missing:
                self._reported_missing.add(name)
                advice = "add the scope that provides it to oidc.scopes, or correct kyc.claim; without it customers count as unverified"
                _log.warning("claim_absent", claim=name, advice=advice if name == self._kyc.claim else "notices by mail are not sent")
        return claims

    def _check_claims(self, claims: Mapping[str, Any], now_ms: int, expected_nonce: str | None) -> None:
        registry = jwt.JWTClaimsRegistry(
            now=now_ms // 1000,
            leeway=self._oidc.leeway_ms // 1000,
            iss={"essential": True, "value": self._oidc.issuer},
            aud={"essential": True, "value": self._oidc.audience},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            registry.validate(dict(claims))
        except ExpiredTokenError:
            raise Unauthenticated.because("The token has expired: log in again.", token_given=True) from None
        except MissingClaimError as error:
            raise Unauthenticated.because(f"The token has no {error.claim}.", token_given=True) from None
        except InvalidClaimError as error:
            raise Unauthenticated.because(_WRONG_CLAIM.get(error.claim, "A claim of the token is wrong."), token_given=True) from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        # The ID token of our own login must be issued to this client; a bearer token may be issued to another configured client.
        ours = {self._oidc.audience} if expected_nonce is not None else {self._oidc.audience, *self._oidc.other_clients}
        party = claims.get("azp", None if several else self._oidc.audience)
        if not isinstance(party, str) or party not in ours:
            raise Unauthenticated.because("The token was issued to another client.", token_given=True)
        if expected_nonce is not None and claims.get("nonce") != expected_nonce:
            raise Unauthenticated.because("The token belongs to another login.", token_given=True)

    def _caller(self, claims: Mapping[str, Any], token: str) -> Caller:
        subject, email, issued, authenticated = claims["sub"], claims.get("email"), claims["iat"], claims.get("auth_time")
        if not _SUBJECT.fullmatch(subject):
            raise Unauthenticated.because("The token's sub is not 1 to 255 visible ASCII characters.", token_given=True)
        if isinstance(authenticated, bool) or not isinstance(authenticated, int | float) or not 0 <= authenticated <= issued:
            authenticated = 0  # unknown, so it may have been long ago
        has_email = isinstance(email, str) and 0 < len(email) <= _MAX_EMAIL and email.isprintable() and _is_email_verified(claims)
        state = claims.get(self._kyc.claim)
        # Without the types, true would equal 1.
        verified = type(state) is type(self._kyc.verified) and state == self._kyc.verified
        return Caller(
            account_id=subject,
            email=email if has_email else None,
            kyc=Kyc.VERIFIED if verified else Kyc.UNVERIFIED,
            authenticated_ms=int(authenticated * 1000),
            issued_ms=int(issued * 1000),
            token_id=token_id(claims, token),
        )


def _is_email_verified(claims: Mapping[str, Any]) -> bool:
    """Whether the e-mail address is verified (OpenID Connect Core §5.1). Some providers send the flag as a string."""
    return claims.get("email_verified", True) in (True, "true")


_WRONG_CLAIM = {
    "iss": "The token is of another issuer.",
    "aud": "The token is for another audience.",
    "nbf": "The token is not valid yet.",
    "iat": "The token was issued in the future: check the clocks.",
    "sub": "The token names no account.",
    "exp": "The token has no usable expiry.",
}


def token_id(claims: Mapping[str, Any], token: str) -> str:
    """Identifies the login: by the provider's session if given, so that a refreshed token is the same login."""
    session = claims.get("sid")
    named = f"sid {session}" if isinstance(session, str) and session else f"token {token}"
    return hashlib.sha256(named.encode(errors="replace")).hexdigest()[:32]


def _header(token: str) -> str | None:
    """The key id in the unverified token."""
    try:
        header = jws.extract_compact(token.encode("ascii")).headers()
        kid, kind = header.get("kid"), header.get("typ", "JWT")
        readable = (kid is None or isinstance(kid, str)) and isinstance(kind, str)
    except _UNREADABLE:
        readable = False
    if not readable:
        raise Unauthenticated.because("The token is not a JWT.", token_given=True)
    if kind.lower().removeprefix("application/") not in _TYPES:
        raise Unauthenticated.because("The token is of another type than an ID token or access token.", token_given=True)
    return kid
