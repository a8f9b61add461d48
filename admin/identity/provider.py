"""The OpenID provider's discovery document and keys, cached and fetched again when keys rotate; and its userinfo endpoint.

This module does not parse tokens. Sources: OpenID Connect Discovery 1.0 §4, RFC 7517.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from admin.config import Oidc
from admin.errors import IdentityProviderUnavailable
from admin.outbound import read_to_end
from gateway.errors import GerbangError
from gateway.runtime import clock
from gateway.runtime.tasks import spawn

_MAX_DOCUMENT, _MAX_USERINFO = 262_144, 65_536
_RETRY_AFTER_FAILURE_MS = 1_000
_STALE_LIMIT_MS = 86_400_000  # how long keys are used while the provider is unavailable, since one may have been withdrawn
_MAX_WAIT_S = 0.5  # wait for fresh keys after a long time without use

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Discovery:
    """The provider's metadata. The endpoints are for the browser's login."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    end_session_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    claims: frozenset[str] | None = None
    """``claims_supported`` of its metadata; ``None`` if absent."""
    scopes: frozenset[str] | None = None
    algorithms: frozenset[str] | None = None
    """Signature algorithms of ID tokens."""
    client_authentication: frozenset[str] = frozenset({"client_secret_basic"})
    """Authentication methods of the token endpoint; the default is that of Discovery §3."""


class ProviderUnusable(GerbangError):
    """The provider's answer is not usable."""


class Provider:
    """One issuer. Times are monotonic milliseconds.

    :param note: called with ``failed=…`` after each reading of the documents
    :param http: used for two GETs at a time, of a bounded size, without redirects
    """

    def __init__(self, http: aiohttp.ClientSession, settings: Oidc, *, note: Callable[..., None] = lambda **_: None) -> None:
        self.settings = settings
        self._http = http
        self._discovery: Discovery | None = None
        self._keys: tuple[Key, ...] = ()
        self._fetched_ms = 0
        self._attempted_ms: int | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._note = note
        self._failing = False

    async def discovery(self, now_ms: int) -> Discovery:
        """:raises IdentityProviderUnavailable: it was never fetched, and cannot be fetched now"""
        await self._ensure_fresh(now_ms)
        if self._discovery is None:
            raise _unavailable()
        return self._discovery

    async def keys(self, kid: str | None, now_ms: int) -> list[Key]:
        """The keys that may have signed a token with this ``kid``; empty if the provider publishes none.

        For an unknown ``kid`` the keys are fetched again, at most every ``refetch_after_ms``, because anyone can invent key ids.

        :raises IdentityProviderUnavailable: no keys are available, or the keys lack this one and cannot be fetched again
        """
        await self._ensure_fresh(now_ms)
        matching = self._matching(kid)
        if not matching:
            await self._refresh(now_ms, not_within_ms=self.settings.refetch_after_ms)
            matching = self._matching(kid)
        if not self._keys or (self._failing and not matching) or self._too_old(now_ms):
            raise _unavailable()
        return matching

    async def userinfo(self, token: str, subject: str, *, or_empty: bool = False) -> Mapping[str, Any]:
        """The claims about ``subject`` that this access token may read (OpenID Connect Core §5.3); none if there is no such endpoint.

        Many providers omit ``email`` and custom claims from the ID token and return them here.

        :param or_empty: return no claims if the token is not accepted, as an ID token is not
        :raises IdentityProviderUnavailable: no answer, or about another subject: without it the customer would count as unverified
        """
        endpoint = (await self.discovery(clock.monotonic_ms())).userinfo_endpoint
        if endpoint is None:
            return {}
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=self.settings.timeout_ms / 1000)
        try:
            async with self._http.get(endpoint, headers=headers, timeout=timeout, allow_redirects=False) as response:
                body, status = await read_to_end(response, _MAX_USERINFO), response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _no_userinfo(type(error).__name__) from None
        if or_empty and status in {401, 403}:
            return {}
        claims = _json_object(body)
        if status != 200 or claims is None:
            raise _no_userinfo(f"answered {status}" if status != 200 else "is not a JSON object: a signed answer is not read")
        # §5.3.2: without this, the answer may be about somebody else.
        if claims.get("sub") != subject:
            raise _no_userinfo("answered about another subject")
        return claims

    async def _ensure_fresh(self, now_ms: int) -> None:
        """Use the cached documents while they are refreshed in the background; wait only if they are too old."""
        age_ms = now_ms - self._fetched_ms
        if self._discovery is None or self._too_old(now_ms):
            await self._refresh(now_ms)
        elif age_ms >= self.settings.keys_ttl_ms:
            refreshing = self._start_refresh(now_ms, _RETRY_AFTER_FAILURE_MS)
            # The keys were unused for their whole lifetime: one may have been withdrawn long ago.
            if refreshing is not None and age_ms >= 2 * self.settings.keys_ttl_ms and not self._failing:
                await asyncio.wait([refreshing], timeout=_MAX_WAIT_S)

    def _matching(self, kid: str | None) -> list[Key]:
        # Without a key id there must be exactly one key (OpenID Connect Core §10.1).
        return [key for key in self._keys if key.kid == kid or (kid is None and len(self._keys) == 1)]

    def _too_old(self, now_ms: int) -> bool:
        return now_ms - self._fetched_ms > self.settings.keys_ttl_ms + _STALE_LIMIT_MS

    async def _refresh(self, now_ms: int, *, not_within_ms: int = _RETRY_AFTER_FAILURE_MS) -> None:
        """Wait until both documents have been fetched again, or the attempt has failed."""
        refreshing = self._start_refresh(now_ms, not_within_ms)
        if refreshing is not None:
            await asyncio.shield(refreshing)  # other tasks wait for it, too

    def _start_refresh(self, now_ms: int, not_within_ms: int) -> "asyncio.Task[None] | None":
        """The fetch in progress, started if necessary; ``None``: an attempt was made just before."""
        if self._refreshing is None:
            if self._attempted_ms is not None and now_ms - self._attempted_ms < not_within_ms:
                return None
            self._refreshing = spawn(self._read_again(now_ms), name="oidc-keys")
        return self._refreshing

    async def _read_again(self, now_ms: int) -> None:
        """Fetch both documents. On a failure the known ones are kept."""
        began_ms = clock.monotonic_ms()
        try:
            discovery, keys = await self.read()
        except ProviderUnusable as error:
            # Measured from the end, or a provider that hangs for longer than the back-off would be queried without a pause.
            self._attempted_ms = now_ms + clock.monotonic_ms() - began_ms
            self._failing = True
            self._note(failed=True)
            _log.warning("identity_provider_unusable", error=str(error), keys_kept=len(self._keys))
        else:
            self._discovery, self._keys = discovery, keys
            self._attempted_ms = self._fetched_ms = now_ms
            self._failing = False
            self._note(failed=False)
        finally:
            self._refreshing = None

    async def read(self) -> tuple[Discovery, tuple[Key, ...]]:
        """Fetch both documents without caching them.

        :raises ProviderUnusable: with the reason
        """
        url = self._discovery_url()
        try:
            async with asyncio.timeout(self.settings.timeout_ms / 1000):
                discovery = _read_discovery(await self._get(url), self.settings.issuer)
                url = discovery.jwks_uri
                return discovery, _read_keys(await self._get(url))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ProviderUnusable(f"{url}: {type(error).__name__} {error}".rstrip()) from None

    def _discovery_url(self) -> str:
        return self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration"

    async def _get(self, url: str) -> dict[str, Any]:
        async with self._http.get(url, allow_redirects=False, headers={"Accept": "application/json"}) as response:
            if response.status != 200:
                raise ProviderUnusable(f"{url} answered {response.status}")
            body = await read_to_end(response, _MAX_DOCUMENT)
        document = _json_object(body)
        if document is None:
            raise ProviderUnusable(f"{url} is not a JSON object")
        return document


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _no_userinfo(why: str) -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable("The identity provider did not answer. Try again shortly.", reason=f"userinfo endpoint: {why}")


def _unavailable() -> IdentityProviderUnavailable:
    return IdentityProviderUnavailable(
        "The identity provider's keys cannot be read at the moment. Try again shortly.", headers=((b"Retry-After", b"5"),)
    )


def _read_discovery(document: dict[str, Any], expected_issuer: str) -> Discovery:
    # Discovery §4.3: the two MUST be identical, or one provider could impersonate another.
    if document.get("issuer") != expected_issuer:
        raise ProviderUnusable(f"the discovery document is of another issuer than {expected_issuer}")
    secure = urlsplit(expected_issuer).scheme == "https"
    jwks_uri = _endpoint(document, "jwks_uri", secure=secure)
    if jwks_uri is None:
        raise ProviderUnusable("the discovery document has no usable jwks_uri")
    return Discovery(
        issuer=expected_issuer,
        jwks_uri=jwks_uri,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", secure=secure),
        token_endpoint=_endpoint(document, "token_endpoint", secure=secure),
        end_session_endpoint=_endpoint(document, "end_session_endpoint", secure=secure),
        userinfo_endpoint=_endpoint(document, "userinfo_endpoint", secure=secure),
        claims=_names(document, "claims_supported"),
        scopes=_names(document, "scopes_supported"),
        algorithms=_names(document, "id_token_signing_alg_values_supported"),
        client_authentication=_names(document, "token_endpoint_auth_methods_supported") or frozenset({"client_secret_basic"}),
    )


def _names(document: dict[str, Any], name: str) -> frozenset[str] | None:
    value = document.get(name)
    return frozenset(each for each in value if isinstance(each, str)) if isinstance(value, list) else None


def _endpoint(document: dict[str, Any], name: str, *, secure: bool) -> str | None:
    value = document.get(name)
    if not isinstance(value, str) or not value.startswith("https://" if secure else ("https://", "http://")):
        return None
    return value


def _read_keys(document: dict[str, Any]) -> tuple[Key, ...]:
    """The public signature keys of a JWK Set; unknown ones are skipped (RFC 7517 §5)."""
    published = document.get("keys")
    if not isinstance(published, list):
        raise ProviderUnusable("the key set has no keys")
    keys: list[Key] = []
    for item in published:
        if not isinstance(item, dict) or item.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(item)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        # A published symmetric key must not verify anything.
        if isinstance(key, RSAKey | ECKey | OKPKey):
            keys.append(key)
    if not keys:
        raise ProviderUnusable("the key set has no key that can be used")
    return tuple(keys)
