"""Browser requests: the session cookie, and protection against cross-site requests.

Contains cookies, the Origin check and the CSRF token; not storage (``sessions``) or HTML.

Cookies are ``__Host-`` and Secure everywhere, also for ``gerbang up`` over plain HTTP: Chromium and Firefox count
``http://localhost`` and ``http://127.0.0.1`` as trustworthy and keep such cookies, so that no setting exists that could
weaken a real installation by mistake. (Safari does not; there the demo needs another browser.)
"""

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from admin.audit import Provenance
from admin.errors import CrossSite
from admin.identity import attempts
from admin.identity.caller import Caller
from admin.identity.devices import device_of
from admin.identity.sessions import Session, SessionStore, digest
from gateway.runtime import clock

SESSION_COOKIE = "__Host-gerbang"
LOGIN_COOKIE = "__Host-gerbang-login-"
"""Prefix of the cookies of logins in progress: each has its own, so that two tabs do not interfere.

Not scoped to the callback's path: ``__Host-``, which keeps other hosts of the domain from planting one (login CSRF), requires ``/``.
"""
MAX_LOGINS = 8
"""Maximum logins in progress in one browser; the oldest are dropped. Together at most 4 KiB of a request's header section."""
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"

SESSION = web.RequestKey("browser_session", Session)

_SAFE_METHODS = frozenset({"GET", "HEAD"})


class Browsers:
    """Browser sessions of requests.

    :param public_url: the only origin whose pages may send unsafe requests
    """

    def __init__(self, store: SessionStore, public_url: str) -> None:
        self.store = store
        self.origin = origin_of(public_url)

    async def session(self, request: web.Request, now_ms: int) -> Session | None:
        """The valid session of the request's cookie. Looked up once per request.

        :raises StoreUnavailable: Redis did not answer
        """
        if SESSION not in request:
            token = request.cookies.get(SESSION_COOKIE)
            session = await self.store.find(token, now_ms) if token else None
            if session is None:
                return None
            request[SESSION] = session
        return request[SESSION]

    async def authenticate(self, request: web.Request, now_ms: int) -> Caller | None:
        """An :data:`~admin.identity.caller.Authenticator` for the JSON API called by our pages.

        :raises CrossSite: an unsafe request that does not come from them
        """
        session = await self.session(request, now_ms)
        if session is None:
            return None
        if request.method not in _SAFE_METHODS:
            self.check_origin(request)
            check_csrf(request.headers.get(CSRF_HEADER, ""), session)
        return session.caller

    def check_origin(self, request: web.Request) -> None:
        """:raises CrossSite: for an unsafe request from another origin, or without one (browsers send it, Fetch §3.1)"""
        if request.headers.getall("Origin", []) != [self.origin]:
            raise CrossSite("This request did not come from this site's own pages.")

    async def open(self, request: web.Request, response: web.StreamResponse, caller: Caller, provenance: Provenance) -> None:
        """Begin a session with a new cookie. The browser's earlier session ends, which prevents session fixation."""
        await self.close(request, response)
        device = device_of(request.headers.get("User-Agent", ""))
        token, _ = await self.store.open(caller, provenance.now_ms, client_ip=provenance.client_ip, device=device)
        set_cookie(response, SESSION_COOKIE, token)

    async def rotate(self, request: web.Request, response: web.StreamResponse) -> None:
        """A new cookie value after a proof of presence; does nothing for a request without a session."""
        token, session = request.cookies.get(SESSION_COOKIE), request.get(SESSION)
        if token and session is not None:
            self._renew(response, await self.store.rotate(token, session, clock.now_ms()))

    async def keep(self, request: web.Request, response: web.StreamResponse, session: Session, now_ms: int) -> None:
        """Keep this session, with a new cookie value, after the account's other logins have been ended."""
        token = request.cookies.get(SESSION_COOKIE)
        if token:
            self._renew(response, await self.store.keep(token, session, now_ms))

    @staticmethod
    def _renew(response: web.StreamResponse, token: str | None) -> None:
        if token is not None:  # otherwise another response has set, or dropped, the cookie
            set_cookie(response, SESSION_COOKIE, token)

    async def close(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session, here and in the browser."""
        token = request.cookies.get(SESSION_COOKIE)
        if token:
            await self.store.close(token)
        drop_cookie(response, SESSION_COOKIE)


def check_csrf(given: str, session: Session) -> None:
    """:raises CrossSite: without the token of this session's pages"""
    if not hmac.compare_digest(given.encode(errors="surrogatepass"), session.csrf_token.encode()):
        raise CrossSite("The page belongs to another session: reload it.")


def origin_of(url: str) -> str:
    """Scheme, host and port as a browser writes them in ``Origin`` (RFC 6454 §6.2: no default port, lower case)."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, default) else "")


def login_cookie(state: str) -> str:
    """The name of the cookie of a login in progress."""
    return LOGIN_COOKIE + digest(state)[:16]


def set_login_cookie(request: web.Request, response: web.StreamResponse, state: str, value: str) -> None:
    """Set the cookie of a new login. Browsers send older cookies first (RFC 6265 §5.4), so the first of too many are dropped."""
    under_way = [name for name in request.cookies if name.startswith(LOGIN_COOKIE)]
    for name in under_way[: max(len(under_way) - MAX_LOGINS + 1, 0)]:
        drop_cookie(response, name)
    set_cookie(response, login_cookie(state), value, max_age_s=attempts.TTL_MS // 1000)


def set_cookie(response: web.StreamResponse, name: str, value: str, *, max_age_s: int | None = None) -> None:
    # Lax: the provider's redirect back to us is a top-level GET and must carry the cookies (RFC 6265bis §5.6.7).
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite="Lax")


def drop_cookie(response: web.StreamResponse, name: str) -> None:
    response.del_cookie(name, path="/", secure=True, httponly=True, samesite="Lax")
