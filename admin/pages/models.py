"""What the templates are given: the services' values, arranged for reading. No rule is decided here, and nothing is fetched."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from admin.audit import Recorded
from admin.identity.accounts import Account
from admin.lifecycle.service import KeyView
from admin.pages import texts
from admin.pages.chart import Chart, Hour, draw
from admin.pages.i18n import Language
from admin.stepup.factors import Factor
from gateway.keys.ids import masked
from gateway.keys.usage import Refused, UsagePeriod

SHOWN_REFUSALS = 6


class AccountView(NamedTuple):
    """Whether the account can have keys, and what is missing."""

    kyc: str
    frozen: bool
    factors: tuple[str, ...]
    """Kinds, each once."""
    help_url: str | None
    key_limit: int
    key_count: int

    @property
    def limit_reached(self) -> bool:
        return self.key_count >= self.key_limit

    @property
    def may_create(self) -> bool:
        """Whether there is a point in offering the form. The service decides again."""
        return self.kyc == "verified" and not self.frozen and bool(self.factors) and not self.limit_reached


class RefusalRow(NamedTuple):
    """Refused requests of a key for one reason from one address: how many, and when the latest was."""

    at: int
    client_ip: str
    times: int
    text: str
    advice: str | None


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


class EventRow(NamedTuple):
    """One event of the account's audit."""

    at: int
    text: str
    about: str
    client_ip: str | None


def account_view(account: Account, owned: Sequence[Factor], *, help_url: str | None, key_limit: int, key_count: int) -> AccountView:
    kinds = tuple(dict.fromkeys(factor.kind.value for factor in owned))
    return AccountView(account.kyc.value, account.frozen, kinds, help_url, key_limit, key_count)


def key_card(view: KeyView) -> KeyCard:
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
    )


def chart(periods: Sequence[UsagePeriod], language: Language) -> Chart:
    """The last day of one key, with a sentence for those who do not see it."""
    hours = [Hour(period.admitted, sum(period.refused.values())) for period in periods]
    allowed, refused = sum(hour.allowed for hour in hours), sum(hour.refused for hour in hours)
    _ = language.translations.gettext
    description = _("Requests in the last 24 hours: %(allowed)s allowed, %(refused)s refused.")
    return draw(hours, description=description % {"allowed": language.number(allowed), "refused": language.number(refused)})


def refusal_rows(refused: Sequence[Refused], language: Language) -> tuple[RefusalRow, ...]:
    """:param refused: latest first"""
    names, advice = texts.refusals(language.translations.gettext), texts.advice(language.translations.gettext)
    counts = Counter((row.code, row.client_ip) for row in refused)
    latest = {(row.code, row.client_ip): row.at_ms for row in reversed(refused)}
    rows = sorted(((latest[kind], *kind) for kind in counts), reverse=True)
    return tuple(
        RefusalRow(at, client_ip, counts[code, client_ip], names.get(code, code), advice.get(code))
        for at, code, client_ip in rows[:SHOWN_REFUSALS]
    )


def event_rows(events: Sequence[Recorded], language: Language) -> list[EventRow]:
    names = texts.events(language.translations.gettext)
    return [EventRow(event.at_ms, names.get(event.event, event.event), _about(event), event.client_ip) for event in events]


def _about(event: Recorded) -> str:
    """Which key or factor: its label, else its name, else the shortened id."""
    detail = json.loads(event.detail)
    for name in ("label", "name"):
        if isinstance(detail.get(name), str):
            return str(detail[name])
    return masked(event.key_id) if event.key_id else ""
