"""Sign-in, sign-out and language selection."""

import structlog
from aiohttp import web

from admin import audit
from admin.api.limiter import Limiter
from admin.audit import Actor, Entry, Event, Provenance
from admin.errors import rate_limited
from admin.identity import browser
from admin.identity.login import CALLBACK_PATH, LoginFailed, local_path
from admin.identity.new_address import note_login
from admin.pages import texts
from admin.pages.context import Context, Visit, read_language, see_other, write_language
from admin.pages.i18n import LANGUAGES
from admin.pages.render import remember_language
from gateway.net.addresses import most_of_site, owners
from gateway.runtime import clock
from gateway.telemetry import AccessLog

_log = structlog.get_logger(__name__)


class Entrance:
    """Handlers; each is one step."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._services = context.services
        rate = context.services.settings.limits.per_ip_failures
        self._codes = Limiter(rate)
        self._codes_of_sites = Limiter(rate._replace(units=most_of_site(rate.units)))
        """Who has a whole IPv6 /48 must not keep the identity provider busy with invented codes."""
        self._budget = AccessLog(0.0)
        """Of failed logins in the log: anyone can send the browser back without one."""

    def routes(self) -> list[web.RouteDef]:
        around = self._context
        return [
            web.get("/login", around.open(self.sign_in)),
            web.get("/login/start", around.open(self.start)),
            web.get(CALLBACK_PATH, around.open(self.callback)),
            web.post("/logout", around.private(self.sign_out)),
            web.post("/logout/everywhere", around.private(self.sign_out_everywhere)),
            web.post("/logout/others", around.private(self.end_others)),
            web.post("/language", around.open(self.choose_language)),
        ]

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        session = await self._services.browsers.session(request, clock.now_ms())
        return_to = local_path(request.query.get("return_to", ""))
        if session is not None:
            return see_other(return_to)
        _ = self._context.renderer.language(request).translations.gettext
        said = texts.login_outcomes(_).get(request.query.get("outcome", ""))
        message = {"kind": "warn", "text": said} if said else None
        return self._context.renderer.page(request, "login.html", {"message": message, "return_to": return_to})

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Redirect to the provider. ``again`` makes it authenticate the customer again, for steps that need a recent login."""
        return_to, again = request.query.get("return_to", ""), "again" in request.query
        started = await self._services.login.start(return_to, clock.now_ms(), prompt_again=again)
        response = see_other(started.url)
        browser.set_login_cookie(request, response, started.state, started.cookie)
        return response

    async def callback(self, request: web.Request) -> web.StreamResponse:
        now_ms = clock.now_ms()
        cookie = browser.login_cookie(request.query.get("state", ""))
        try:
            attempt = self._services.login.attempt(request.query, request.cookies.get(cookie, ""), now_ms)
            self._admit(request)
            caller = await self._services.login.finish(request.query, attempt, now_ms)
        except LoginFailed as failed:
            if self._budget.takes(clock.monotonic_ms()):
                _log.info("login_failed", outcome=failed.outcome, reason=str(failed))
            response = see_other(f"/login?outcome={failed.outcome}")
        else:
            provenance = Provenance(now_ms, self._services.client_ip(request))
            await self._services.accounts.for_caller(caller, provenance)
            async with self._services.stores.transaction() as connection:
                await note_login(connection, caller.account_id, provenance)
                entry = Entry(provenance=provenance, event=Event.LOGIN, actor=Actor.ACCOUNT, account_id=caller.account_id)
                await audit.append(connection, entry)
            response = see_other(attempt.return_to)
            await self._services.browsers.open(request, response, caller, provenance)
            chosen = await read_language(self._services.stores, caller.account_id)
            if chosen is not None:
                remember_language(response, chosen)
        browser.drop_cookie(response, cookie)
        return response

    def _admit(self, request: web.Request) -> None:
        """Bound the codes redeemed: each is a call to the identity provider, and anyone can start a login and invent codes for it.

        Called once the cookie has been verified, so that no other site can use up its visitors' allowance.

        :raises RateLimited: the browser keeps the cookie, and may send the code again
        """
        whose, now_ms = owners(self._services.client_ip(request) or ""), clock.monotonic_ms()
        wait_ms = self._codes.take(whose[-1], now_ms) or self._codes_of_sites.take(whose[0], now_ms)
        if wait_ms:
            raise rate_limited("Too many logins from this address.", wait_ms)

    async def sign_out(self, visit: Visit) -> web.StreamResponse:
        _ = visit.language.translations.gettext
        values = {
            "heading": _("You are signed out"),
            "text": _("Your session here has ended."),
            "way_out": {"path": "/login", "text": _("Sign in again")},
        }
        response = self._context.renderer.page(visit.request, "problem.html", {**values, "session": None})
        elsewhere = await self._services.login.logout_url()
        if elsewhere is not None:
            # No redirect: browsers apply form-action to a form's redirects, and the provider's URL may be on any host.
            response.headers["Refresh"] = f"0; url={elsewhere}"
        await self._services.browsers.close(visit.request, response)
        return response

    async def sign_out_everywhere(self, visit: Visit) -> web.StreamResponse:
        """End all logins of the account, including this one."""
        await self._services.accounts.end_logins(visit.account.id, visit.provenance)
        return await self.sign_out(visit)

    async def end_others(self, visit: Visit) -> web.StreamResponse:
        """End all other logins; this one continues with a new cookie."""
        await self._services.accounts.end_logins(visit.account.id, visit.provenance, others=True)
        response = see_other("/security#others-ended")
        await self._services.browsers.keep(visit.request, response, visit.session, visit.provenance.now_ms)
        return response

    async def choose_language(self, request: web.Request) -> web.StreamResponse:
        """Set the language of the browser and, if logged in, of the account. Accepted from our own pages only."""
        self._services.browsers.check_origin(request)
        form = await self._context.form(request)
        code, return_to = form.get("language", ""), local_path(form.get("return_to", ""))
        response = see_other(return_to)
        if code in LANGUAGES:
            remember_language(response, code)
            session = await self._services.browsers.session(request, clock.now_ms())
            if session is not None:
                browser.check_csrf(form.get(browser.CSRF_FIELD, ""), session)
                await write_language(self._services.stores, session.caller.account_id, code)
        return response
