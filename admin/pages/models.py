"""View models of the templates."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from admin.audit import Actor, Recorded
from admin.lifecycle.addresses import MAX_ADDRESSES, parse_allowlist
from admin.lifecycle.service import KeyView
from admin.pages import texts
from admin.pages.chart import Chart, Hour, draw
from admin.pages.i18n import Language
from gateway.keys.ids import masked
from gateway.keys.record import Scope
from gateway.keys.usage import Refused
from gateway.keys.usage_store import HOUR_MS, UsagePeriod

SHOWN_REFUSALS = 6
SCOPES = tuple(scope.value for scope in Scope)
_DAY_MS = 86_400_000
SOON_MS = 7 * _DAY_MS
"""A key that ends within this time is marked."""


class AccountView(NamedTuple):
    """Whether the account can have keys, and what is missing."""

    kyc: str
    frozen: bool
    factors: tuple[str, ...]
    """The kinds of its factors, without duplicates."""
    help_url: str | None
    key_limit: int
    key_count: int

    @property
    def limit_reached(self) -> bool:
        return self.key_count >= self.key_limit

    @property
    def why_not(self) -> str | None:
        """Why no key can be created, a code of ``texts.labels``; ``None``: one can."""
        if self.frozen:
            return "frozen"
        if self.kyc != "verified":
            return "kyc"
        if not self.factors:
            return "factor"
        return "limit" if self.limit_reached else None

    @property
    def may_create(self) -> bool:
        """Whether to offer the form. The service checks again."""
        return self.why_not is None


class RefusalRow(NamedTuple):
    """Refused requests of a key with the same reason, address and route: their number, and the time of the latest."""

    at: int
    client_ip: str
    call: str
    times: int
    text: str
    advice: str | None
    code: str
    again: str | None
    """Query of the form for a new key that would have been admitted: with the address, if it may be listed, or the permission."""


class KeyCard(NamedTuple):
    """One key of the list. Times are Unix milliseconds."""

    id: str
    masked_id: str
    label: str
    scopes: tuple[str, ...]
    ip_access: str
    ip_allowlist: tuple[str, ...]
    algorithm: str
    status: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    last_used_ip: str | None
    chart: Chart | None = None
    refusals: tuple[RefusalRow, ...] = ()
    expires_soon: bool = False
    reason: str | None = None
    """Why it was revoked."""


class Prefill(NamedTuple):
    """The initial values of the form for a new key."""

    label: str = ""
    scopes: tuple[str, ...] = ("read",)
    ip_access: str = "whitelisted"
    addresses: tuple[str, ...] = ()
    algorithm: str = "hmac-sha256"
    days: int | None = None


class EventRow(NamedTuple):
    """One audit event of the account."""

    at: int
    text: str
    about: str
    client_ip: str | None
    by_owner: bool
    """Whether the account's holder did it; only then is the address shown."""


def key_card(view: KeyView, language: Language, now_ms: int) -> KeyCard:
    key, used = view.key, view.last_use
    return KeyCard(
        id=key.key_id,
        masked_id=masked(key.key_id),
        label=key.label,
        scopes=tuple(sorted(scope.value for scope in key.scopes)),
        ip_access="unrestricted" if key.ip_allowlist is None else "whitelisted",
        ip_allowlist=tuple(str(address) for address in key.ip_allowlist or ()),
        algorithm=key.algorithm.value,
        status=view.status,
        created_at=key.created_ms,
        expires_at=key.expires_ms,
        last_used_at=used.at_ms if used else None,
        last_used_ip=used.client_ip if used else None,
        expires_soon=view.status == "active" and key.expires_ms is not None and key.expires_ms - now_ms <= SOON_MS,
        reason=_reason(view, language),
    )


def _reason(view: KeyView, language: Language) -> str | None:
    reason = view.key.revoked_reason if view.status == "revoked" else None
    return texts.labels(language.translations.gettext)["reason"].get(reason, reason) if reason else None


def prefill(card: KeyCard, *, address: str | None, scope: str | None) -> Prefill:
    """The form for a copy of this key with one more address or permission."""
    addresses = card.ip_allowlist
    if address is not None and card.ip_access == "whitelisted" and address not in addresses:
        addresses = (*addresses[: MAX_ADDRESSES - 1], address)
    scopes = tuple(sorted({*card.scopes, *([scope] if scope in SCOPES else [])}))
    days = None if card.expires_at is None else max(round((card.expires_at - card.created_at) / _DAY_MS), 1)
    return Prefill(card.label, scopes, card.ip_access, addresses, card.algorithm, days)


def chart(periods: Sequence[UsagePeriod], language: Language) -> Chart:
    """The chart of a key's last day, with a text alternative."""
    hours = [Hour(period.admitted, sum(period.refused.values())) for period in periods]
    allowed, refused = sum(hour.allowed for hour in hours), sum(hour.refused for hour in hours)
    _ = language.translations.gettext
    description = _("Requests in the last 24 hours: %(allowed)s allowed, %(refused)s refused.")
    ticks = (periods[0].start_ms, periods[len(periods) // 2].start_ms, periods[-1].start_ms + HOUR_MS) if periods else ()
    return draw(hours, ticks=ticks, description=description % {"allowed": language.number(allowed), "refused": language.number(refused)})


def refusal_rows(refused: Sequence[Refused], language: Language, scopes: Sequence[str]) -> tuple[RefusalRow, ...]:
    """:param refused: latest first
    :param scopes: the key's scopes
    """
    missing = [scope for scope in SCOPES if scope not in scopes]
    permission = ", ".join(texts.labels(language.translations.gettext)["scope"][scope] for scope in missing)
    names, advice = texts.refusals(language.translations.gettext), texts.advice(language.translations.gettext)
    counts = Counter((row.code, row.client_ip, row.call) for row in refused)
    latest = {(row.code, row.client_ip, row.call): row.at_ms for row in reversed(refused)}
    rows = sorted(((latest[kind], *kind) for kind in counts), reverse=True)
    return tuple(
        RefusalRow(
            at,
            client_ip,
            call,
            counts[code, client_ip, call],
            f"{names.get(code, code)}: {permission}" if code == "scope_not_granted" and permission else names.get(code, code),
            advice.get(code),
            code,
            _again(code, client_ip, missing),
        )
        for at, code, client_ip, call in rows[:SHOWN_REFUSALS]
    )


def _again(code: str, client_ip: str, missing: Sequence[str]) -> str | None:
    if code == "ip_not_allowed" and client_ip and not parse_allowlist([client_ip])[1]:
        return urlencode({"address": client_ip})
    return urlencode({"scope": missing[0]}) if code == "scope_not_granted" and missing else None


def event_rows(events: Sequence[Recorded], language: Language) -> list[EventRow]:
    names = texts.events(language.translations.gettext)
    return [
        EventRow(event.at_ms, names.get(event.event, event.event), _about(event), event.client_ip, event.actor == Actor.ACCOUNT)
        for event in events
    ]


def _about(event: Recorded) -> str:
    """The key or factor of an event: its label, else its name, else the shortened id."""
    detail = json.loads(event.detail)
    for name in ("label", "name"):
        if isinstance(detail.get(name), str):
            return str(detail[name])
    return masked(event.key_id) if event.key_id else ""
