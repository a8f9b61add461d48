"""The pages that list, create and delete keys."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

from aiohttp import web

from admin.errors import FieldError, InvalidRequest
from admin.lifecycle.addresses import MAX_ADDRESSES, parse_allowlist, why_not_public
from admin.lifecycle.service import KeyView
from admin.pages import models
from admin.pages.context import Context, Visit
from admin.pages.examples import signed_requests
from admin.pages.models import KeyCard, Prefill
from gateway.errors import StoreUnavailable
from gateway.keys import usage_store

FEW = 5
"""Up to this number keys are shown expanded; more are collapsed, searchable and paginated."""
DANGEROUS_DAYS = 90
"""The lifetime that the form suggests for an unrestricted key with ``trade``."""


class KeyPages:
    """Handlers of the section "API keys"."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._services = context.services

    def routes(self) -> list[web.RouteDef]:
        private = self._context.private
        return [
            web.get("/keys", private(self.list)),
            web.get("/keys/new", private(self.create)),
            web.post("/keys/check-addresses", private(self.check_addresses)),
            web.get("/keys/{key_id}/delete", private(self.delete)),
        ]

    async def list(self, visit: Visit) -> web.StreamResponse:
        views = await self._services.keys.list_keys(visit.caller, visit.provenance.now_ms)
        account, _, _ = await self._context.overview(visit, len(views))
        cards = await asyncio.gather(*(self._card(view, visit) for view in reversed(views)))
        return self._context.page(visit, "keys.html", section="/keys", account=account, keys=cards, few=FEW)

    async def create(self, visit: Visit) -> web.StreamResponse:
        views = await self._services.keys.list_keys(visit.caller, visit.provenance.now_ms)
        account, _, _ = await self._context.overview(visit, len(views))
        gateway_url = self._services.settings.pages.gateway_url
        return self._context.page(
            visit,
            "create.html",
            section="/keys",
            account=account,
            current_address=_current_address(visit),
            gateway_url=gateway_url.rstrip("/") if gateway_url else None,
            prefill=_prefill(visit, views),
            newest=max((view.key.created_ms for view in views), default=0),
            dangerous_days=min(DANGEROUS_DAYS, self._services.settings.keys.unrestricted_trade_days or DANGEROUS_DAYS),
            lifetimes=self._services.settings.keys,
            examples=signed_requests(gateway_url) if gateway_url else (),
        )

    async def check_addresses(self, visit: Visit) -> web.StreamResponse:
        """Validate addresses while they are typed. Same format as the API; changes nothing."""
        texts = await self._context.json_member(visit.request, "ip_allowlist")
        if not isinstance(texts, list) or len(texts) > MAX_ADDRESSES or not all(isinstance(text, str) for text in texts):
            raise InvalidRequest([FieldError("ip_allowlist", "malformed", "Send a list of at most three strings.")])
        _, errors = parse_allowlist(texts)
        return web.json_response({"errors": [error._asdict() for error in errors]}, headers={"Cache-Control": "no-store"})

    async def delete(self, visit: Visit) -> web.StreamResponse:
        view = await self._services.keys.show(visit.caller, visit.request.match_info["key_id"], visit.provenance.now_ms)
        account, _, _ = await self._context.overview(visit, 0)
        return self._context.page(
            visit, "delete.html", section="/keys", account=account, key=models.key_card(view, visit.language, visit.provenance.now_ms)
        )

    async def _card(self, view: KeyView, visit: Visit) -> KeyCard:
        """A key with its last day and refusals, which are omitted if Redis is unavailable."""
        card = models.key_card(view, visit.language, visit.provenance.now_ms)
        redis = self._services.stores.redis
        try:
            hours, refused = await asyncio.gather(
                usage_store.read_hours(redis, card.id, now_ms=visit.provenance.now_ms), usage_store.read_refusals(redis, card.id)
            )
        except StoreUnavailable:
            return card
        return card._replace(chart=models.chart(hours, visit.language), refusals=models.refusal_rows(refused, visit.language, card.scopes))


def _prefill(visit: Visit, views: Sequence[KeyView]) -> Prefill:
    """An empty form, or a copy of one of the account's keys (``?from=``) with the address or permission that a request lacked."""
    query = visit.request.query
    like = next((view for view in views if view.key.key_id == query.get("from")), None)
    if like is None:
        return Prefill()
    address = query.get("address", "")
    known, errors = parse_allowlist([address]) if address else ((), ())
    card = models.key_card(like, visit.language, visit.provenance.now_ms)
    return models.prefill(card, address=str(known[0]) if known and not errors else None, scope=query.get("scope"))


def _current_address(visit: Visit) -> dict[str, object]:
    """The customer's current address, for the button that enters it."""
    _ = visit.language.translations.gettext
    text = visit.provenance.client_ip
    if text is None:
        return {"text": "", "usable": False, "why": _("Your current address is not known here.")}
    if why_not_public(ip_address(text)) is not None:
        why = _("Your current address %(address)s is not public: it cannot be listed.")
        return {"text": text, "usable": False, "why": why % {"address": text}}
    return {"text": text, "usable": True, "why": ""}
