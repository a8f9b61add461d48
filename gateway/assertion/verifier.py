"""Verifies the gateway assertion in an upstream, as a function or as aiohttp middleware.

    web.Application(middlewares=[require_assertion("http://127.0.0.1:8081/.well-known/jwks.json", expected_audience="spot")])
    …
    async def orders(request):
        account = request[ASSERTED].account_id

The gate itself does not use this module.
"""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from gateway.errors import PROBLEM_JSON, GerbangError, problem
from gateway.runtime import clock

MAX_LIFE_S = 60
"""Maximum lifetime of the gate's assertions; longer ones are refused."""
LEEWAY_MS = 5_000
"""Tolerated difference between this machine's clock and the gate's."""
REFRESH_MS = 300_000
"""Age at which a cached JWKS is fetched again."""
RETRY_MS = 1_000
"""Minimum interval between fetches for unknown key ids."""


class AssertionRefused(GerbangError):
    """The assertion is invalid; the message says why, for the upstream's log."""


class Asserted(NamedTuple):
    """The identity asserted by the gate; all members are empty for a request to a public route."""

    account_id: str
    key_id: str
    scopes: frozenset[str]


ASSERTED: web.RequestKey[Asserted] = web.RequestKey("gerbang.asserted", Asserted)
"""The key under which :func:`require_assertion` stores the identity: ``request[ASSERTED]``."""


class _EdDSAOnly(JWSRegistry):
    """Accepts EdDSA only. (RFC 9864 renames it to ``Ed25519``; joserfc warns about the old name.)"""

    def get_alg(self, name: str) -> Any:
        if name != "EdDSA":
            raise UnsupportedAlgorithmError(f"Algorithm of '{name}' is not allowed")
        return self.algorithms[name]


def verify(
    token: str | bytes,
    *,
    expected_audience: str,
    expected_issuer: str,
    jwks: Mapping[str, Any] | KeySet,
    now_ms: int,
    allow_anonymous: bool = False,
) -> Asserted:
    """Check an ``X-Gateway-Assertion``.

    :param expected_audience: this upstream's name in the gate's configuration
    :param jwks: the JSON of ``/.well-known/jwks.json``, or a key set imported from it
    :param allow_anonymous: also accept the assertion of a request to a public route
    :raises AssertionRefused: it is not valid
    """
    try:
        keys = jwks if isinstance(jwks, KeySet) else KeySet.import_key_set(jwks)  # type: ignore[arg-type]  # it checks the shape
        claims = jwt.decode(token, keys, registry=_EdDSAOnly()).claims
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise AssertionRefused(f"signature: {error}") from None
    if claims.get("iss") != expected_issuer:
        raise AssertionRefused("iss: not the expected issuer")
    if claims.get("aud") != expected_audience:
        raise AssertionRefused("aud: another upstream")
    _check_times(claims.get("iat"), claims.get("exp"), now_ms)
    if allow_anonymous and claims.keys().isdisjoint({"sub", "key_id", "scopes"}):
        return Asserted("", "", frozenset())
    return _asserted(claims.get("sub"), claims.get("key_id"), claims.get("scopes"))


def _asserted(account_id: object, key_id: object, scopes: object) -> Asserted:
    if not (isinstance(account_id, str) and account_id and isinstance(key_id, str) and key_id):
        raise AssertionRefused("sub, key_id: missing")
    if not (isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)):
        raise AssertionRefused("scopes: not a list of strings")
    return Asserted(account_id, key_id, frozenset(scopes))


def _check_times(issued: object, expires: object, now_ms: int) -> None:
    if type(issued) is not int or type(expires) is not int:  # isinstance would accept a bool
        raise AssertionRefused("iat, exp: missing")
    if not 0 < expires - issued <= MAX_LIFE_S:
        raise AssertionRefused("exp: later than the maximum lifetime of an assertion")
    if issued * 1000 > now_ms + LEEWAY_MS:
        raise AssertionRefused("iat: in the future")
    if expires * 1000 + LEEWAY_MS <= now_ms:
        raise AssertionRefused("exp: expired")


class JwksCache:
    """A cache of the gate's public keys: fetched on first use, again when old, and for unknown key ids (at most once a second)."""

    def __init__(self, url: str, *, timeout_ms: int = 3_000) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._keys: KeySet | None = None
        self._tried_ms: int | None = None
        self._lock = asyncio.Lock()

    async def keys_for(self, token: str, now_ms: int) -> KeySet:
        """A key set that contains the token's key, if the gate has it. ``now_ms`` is monotonic.

        :raises AssertionRefused: the gate's keys could not be fetched
        """
        kid = _kid_of(token)
        if self._due(kid, now_ms):
            async with self._lock:  # another task may have fetched it meanwhile
                if self._due(kid, now_ms):
                    self._tried_ms = now_ms
                    self._keys = await self._fetch() or self._keys
        if self._keys is None:
            raise AssertionRefused("the gate's public keys cannot be fetched")
        return self._keys

    def _due(self, kid: object, now_ms: int) -> bool:
        if self._tried_ms is None:
            return True
        known = self._keys is not None and any(key.kid == kid for key in self._keys.keys)
        return now_ms - self._tried_ms >= (REFRESH_MS if known else RETRY_MS)

    async def _fetch(self) -> KeySet | None:
        try:
            async with aiohttp.ClientSession(timeout=self._timeout) as session, session.get(self._url) as response:
                response.raise_for_status()
                return KeySet.import_key_set(await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, OSError, JoseError, ValueError, KeyError, TypeError):
            return None


def _kid_of(token: str) -> object:
    """The key id in an unverified token; only used to decide whether to fetch."""
    header = token.partition(".")[0]
    try:
        return json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    except (ValueError, KeyError, TypeError):
        return None


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def require_assertion(
    jwks_url: str,
    *,
    expected_audience: str,
    expected_issuer: str = "gerbang",
    header: str = "X-Gateway-Assertion",
    public: Callable[[web.Request], bool] = lambda _request: False,
    exempt: Callable[[web.Request], bool] = lambda _request: False,
) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """An aiohttp middleware that answers 401 to requests that did not come through the gate, and sets ``request[ASSERTED]``.

    :param public: requests that the gate routes as ``public``: they must come through the gate, but need no identity
    :param exempt: requests that need no assertion, such as the gate's health checks
    """
    cache = JwksCache(jwks_url)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not exempt(request):
            try:
                (token,) = request.headers.getall(header, [])
                keys = await cache.keys_for(token, clock.monotonic_ms())
                request[ASSERTED] = verify(
                    token,
                    expected_audience=expected_audience,
                    expected_issuer=expected_issuer,
                    jwks=keys,
                    now_ms=clock.now_ms(),
                    allow_anonymous=public(request),
                )
            except (AssertionRefused, ValueError):  # ValueError: the header is missing or repeated
                refused = problem(401, "assertion_refused", "Assertion refused", f"no valid {header}")
                return web.json_response(refused, status=401, content_type=PROBLEM_JSON)
        return await handler(request)

    return middleware
