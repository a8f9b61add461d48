"""Account pages: second factors, and activity."""

import io
from urllib.parse import urlsplit

import segno
from aiohttp import web

from admin import audit
from admin.errors import FieldError, InvalidRequest
from admin.pages import models, texts
from admin.pages.context import Context, Visit
from admin.stepup import passkeys

EVENTS_PER_PAGE = 50
_LONGEST_URI = 600


class AccountPages:
    """Handlers of the sections "Security" and "Activity"."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._services = context.services

    def routes(self) -> list[web.RouteDef]:
        private = self._context.private
        return [
            web.get("/security", private(self.security)),
            web.post("/security/qr", private(self.qr)),
            web.get("/activity", private(self.activity)),
        ]

    async def security(self, visit: Visit) -> web.StreamResponse:
        account, owned, codes_left = await self._context.overview(visit, 0)
        sessions = await self._services.browsers.store.of_account(visit.account.id, visit.provenance.now_ms)
        return self._context.page(
            visit,
            "security.html",
            section="/security",
            factors=owned,
            kinds=account.factors,
            next_path="/keys/new" if visit.request.query.get("next") == "/keys/new" else None,
            recovery_left=codes_left,
            sessions=[each for each in sessions if each.caller.stands_since_ms > visit.account.logins_after_ms],
            passkeys_possible=passkeys.possible_at(urlsplit(self._services.settings.public_url).hostname or ""),
            suggested_name=texts.labels(visit.language.translations.gettext)["factor"]["passkey"],
        )

    async def qr(self, visit: Visit) -> web.StreamResponse:
        """The QR code of an ``otpauth:`` URI. By POST, so that its secret is in no URL, log or history."""
        uri = await self._context.json_member(visit.request, "otpauth_uri")
        if not isinstance(uri, str) or not uri.startswith("otpauth://") or not uri.isascii() or len(uri) > _LONGEST_URI:
            raise InvalidRequest([FieldError("otpauth_uri", "malformed", "Send the otpauth_uri of a pending enrolment.")])
        picture = io.BytesIO()
        segno.make_qr(uri, error="m").save(picture, kind="svg", border=2, scale=4)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=picture.getvalue(), content_type="image/svg+xml", headers=headers)

    async def activity(self, visit: Visit) -> web.StreamResponse:
        before = visit.request.query.get("before", "")
        before_seq = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else None
        async with self._services.stores.transaction() as connection:
            events = await audit.list_for_account(connection, visit.account.id, limit=EVENTS_PER_PAGE + 1, before_seq=before_seq)
        shown = events[:EVENTS_PER_PAGE]
        older = shown[-1].seq if len(events) > EVENTS_PER_PAGE else None
        rows = models.event_rows(shown, visit.language)
        return self._context.page(visit, "activity.html", section="/activity", events=rows, older=older)
