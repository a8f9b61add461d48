"""What every page handler needs: services, session, language, and error pages."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from admin.api.limiter import Limiter
from admin.api.problems import ACCOUNT, CODE, REASON, of_aiohttp
from admin.api.reading import host_of, read_body, read_form, read_json
from admin.audit import Provenance
from admin.config import AdminSettings
from admin.errors import ServiceUnavailable, Unauthenticated, UnsupportedMediaType, rate_limited
from admin.identity.accounts import Account, Accounts
from admin.identity.browser import CSRF_FIELD, CSRF_HEADER, Browsers, check_csrf
from admin.identity.caller import Caller
from admin.identity.login import Login
from admin.identity.sessions import Session
from admin.lifecycle.service import KeyService
from admin.pages import texts
from admin.pages.i18n import Language
from admin.pages.models import AccountView
from admin.pages.render import Renderer
from admin.relay import LOOPBACK
from admin.stepup.enrolment import Enrolment
from admin.stepup.factors import Factor
from admin.stores import Stores
from gateway.errors import Refusal, StoreUnavailable
from gateway.keys.postgres import translated
from gateway.runtime import clock


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServices:
    """The services that page handlers call; built once by ``admin.wiring``."""

    settings: AdminSettings
    stores: Stores
    browsers: Browsers
    login: Login
    accounts: Accounts
    keys: KeyService
    enrolment: Enrolment
    client_ip: Callable[[web.Request], str | None]


class Visit(NamedTuple):
    """One request of a logged-in customer."""

    request: web.Request
    session: Session
    caller: Caller
    account: Account
    provenance: Provenance
    language: Language


PageHandler = Callable[[Visit], Awaitable[web.StreamResponse]]


class Context:
    """The services and the renderer, and wrappers for the two kinds of handlers."""

    def __init__(self, services: PageServices, renderer: Renderer) -> None:
        self.services = services
        self.renderer = renderer
        self._per_account = Limiter(services.settings.limits.per_account)
        self._timeout_s = services.settings.limits.request_timeout_ms / 1000

    def open(self, handler: Handler) -> Handler:
        """Wrap the handler of a public page: refusals become pages."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return self._to_canonical_host(request) or await handler(request)
            except Refusal as refusal:
                return self._refused(request, refusal)
            except StoreUnavailable as error:
                return self._refused(request, ServiceUnavailable("A store did not answer.", reason=str(error)))

        return answer

    def private(self, handler: PageHandler) -> Handler:
        """Wrap the handler of a page that requires a login; unsafe requests must come from our own pages, with their token."""

        async def answer(request: web.Request) -> web.StreamResponse:
            now_ms = clock.now_ms()
            session = await self.services.browsers.session(request, now_ms)
            if session is None:
                return to_login(request)
            request[ACCOUNT] = session.caller.account_id
            wait_ms = self._per_account.take(session.caller.account_id, clock.monotonic_ms())
            if wait_ms:
                raise rate_limited("Too many page requests for this account: slow down.", wait_ms)
            if request.method == "POST":
                self.services.browsers.check_origin(request)
                check_csrf(await self._token(request), session)
            try:
                visit = await self._visit(request, session, now_ms)
            except Unauthenticated:
                return await self._session_ended(request)
            return await handler(visit)

        return self.open(answer)

    @property
    def lost(self) -> Middleware:
        """Middleware that answers browsers with a page instead of a problem if the URL does not exist, or is not to be opened."""

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
                if "text/html" not in request.headers.get("Accept", ""):
                    raise
                return self._refused(request, of_aiohttp(error, request))

        return middleware

    async def scripts_needed(self, request: web.Request) -> web.StreamResponse:
        """The target of forms in a browser without scripts: by POST, so that their contents are in no URL; the body is not read."""
        _ = self.renderer.language(request).translations.gettext
        values = {
            "heading": _("This needs JavaScript"),
            "text": _("Nothing was changed. Please turn JavaScript on for this site, then try again."),
            "way_out": {"path": "/keys", "text": _("To your keys")},
        }
        return self.renderer.page(request, "problem.html", values, status=400)

    async def overview(self, visit: Visit, key_count: int) -> tuple[AccountView, list[Factor], int | None]:
        """The account for a template, its factors, and the number of recovery codes left."""
        owned, codes_left = await self.services.enrolment.factors(visit.account.id)
        kinds = tuple(dict.fromkeys(factor.kind.value for factor in owned))
        help_url, key_limit = self.services.settings.kyc.help_url, self.services.keys.key_limit
        view = AccountView(visit.account.kyc.value, visit.account.frozen, kinds, help_url, key_limit, key_count)
        return view, owned, codes_left

    async def form(self, request: web.Request) -> Mapping[str, str]:
        """:raises InvalidJson, TooSlow, TooLarge, UnsupportedMediaType: it cannot be read"""
        return await read_form(request, timeout_s=self._timeout_s)

    async def json_member(self, request: web.Request, name: str) -> object:
        """One member of a script's JSON object; ``None`` if it is absent.

        :raises InvalidJson, TooSlow, TooLarge, UnsupportedMediaType: the body cannot be read
        """
        body = await read_body(request, timeout_s=self._timeout_s)
        if request.content_type != "application/json":
            raise UnsupportedMediaType("Send Content-Type: application/json.")
        found = read_json(body)
        return found.get(name) if isinstance(found, dict) else None

    async def _token(self, request: web.Request) -> str:
        """The CSRF token, from the header of scripts or the field of forms."""
        if CSRF_HEADER in request.headers:
            return request.headers[CSRF_HEADER]
        return (await self.form(request)).get(CSRF_FIELD, "")

    def page(self, visit: Visit, template: str, *, section: str, **values: object) -> web.Response:
        """Render a page for a logged-in customer."""
        frame = {"section": section, "account_name": visit.account.email or visit.account.id}
        return self.renderer.page(visit.request, template, {**frame, **values})

    async def _visit(self, request: web.Request, session: Session, now_ms: int) -> Visit:
        provenance = Provenance(now_ms, self.services.client_ip(request))
        account = await self.services.accounts.for_caller(session.caller, provenance)
        language = self.renderer.language(request, await read_language(self.services.stores, account.id))
        return Visit(request, session, session.caller, account, provenance, language)

    async def _session_ended(self, request: web.Request) -> web.Response:
        """The login has been ended: delete the cookie, or the sign-in page would redirect back here."""
        response = to_login(request)
        await self.services.browsers.close(request, response)
        return response

    def _to_canonical_host(self, request: web.Request) -> web.Response | None:
        """On one machine, redirect from ``127.0.0.1`` to ``localhost``, since cookies and passkeys belong to one name. Elsewhere the proxy
        handles host names, and a redirect could loop.
        """
        home, host = URL(self.services.settings.public_url), host_of(request)
        if request.method != "GET" or host == home.host or not {host, home.host} <= LOOPBACK:
            return None
        return see_other(f"{home.origin()}{request.path_qs}")

    def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        if request.content_type == "application/json":
            raise refusal  # scripts read the problem as JSON
        _ = self.renderer.language(request).translations.gettext
        sentences = texts.problems(_)
        values = {
            "heading": _("That did not work"),
            "text": sentences.get(f"{refusal.code}.page") or sentences.get(refusal.code, sentences["unknown"]),
            "way_out": {"path": "/keys", "text": _("To your keys")},
        }
        response = self.renderer.page(request, "problem.html", values, status=refusal.status)
        for name, value in refusal.headers:
            response.headers[name.decode("ascii")] = value.decode("ascii")
        response[CODE] = refusal.code  # for the log and the metrics, as of the API's refusals
        response[REASON] = refusal.reason
        return response


async def read_language(stores: Stores, account_id: str) -> str | None:
    """The language chosen by the account's holder."""
    async with stores.transaction() as connection:
        with translated():
            chosen: str | None = await connection.fetchval("SELECT language FROM accounts WHERE id = $1", account_id)
    return chosen


async def write_language(stores: Stores, account_id: str, code: str) -> None:
    async with stores.transaction() as connection:
        with translated():
            await connection.execute("UPDATE accounts SET language = $2 WHERE id = $1", account_id, code)


def to_login(request: web.Request) -> web.Response:
    """Redirect a request without a session to the sign-in page, which returns to this page."""
    query = f"?return_to={quote(request.path_qs)}" if request.method == "GET" and request.path != "/keys" else ""
    return see_other(f"/login{query}")


def see_other(where: str) -> web.Response:
    return web.Response(status=303, headers={"Location": where, "Cache-Control": "no-store"})
