"""The texts of each notification, per language: subject, what happened, what to do, details. Pure.

``pybabel`` extracts the sentences (``locale/babel.cfg``). Permissions have the names used in the exchange's own article.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from babel.dates import format_datetime

from admin.lifecycle.leaks import LEAKED
from admin.notices.delivery import DAY_MS
from admin.outbox import Pending, Topic
from admin.pages.i18n import DEFAULT, Language, Translate, load_languages
from gateway.keys.ids import masked

LOCALE = Path(__file__).parent / "locale"
KEYS_PATH, SECURITY_PATH = "/keys", "/security"

_SCOPES = {"read": "Read Only", "trade": "Spot Trading"}
_LONGEST_VALUE = 300
_OFFICE = "en"


class Letter(NamedTuple):
    """One notice, ready to be rendered. Every value is one line of printable text."""

    subject: str
    happened: str
    advice: str
    facts: tuple[tuple[str, str], ...]
    action: str
    """The link's text, and its path on the site; ``""``: there is none."""
    path: str
    language: str


class Letters:
    """Notices in every language.

    :param time_zone: the time zone of times
    """

    def __init__(self, time_zone: str) -> None:
        self._languages = load_languages(LOCALE)
        self._zone = ZoneInfo(time_zone)

    def language(self, code: str | None) -> Language:
        """The account's language, else the default."""
        return self._languages.get(code or DEFAULT, self._languages[DEFAULT])

    def write(self, notice: Pending) -> Letter:
        """A notice in its account's language."""
        if notice.topic is Topic.KEYS_REVOKED:
            return self._bulk_revocation(notice)
        language = self.language(notice.language)
        _ = language.translations.gettext
        subject, happened, advice = _words(_, notice.topic, notice.detail)
        about_factors = notice.topic in (Topic.FACTOR_ADDED, Topic.FACTOR_REMOVED, Topic.FACTORS_RESET)
        return Letter(
            subject=subject,
            happened=happened,
            advice=advice,
            facts=tuple((name, one_line(value)) for name, value in self._facts(language, notice) if value),
            action=_("Open Security") if about_factors else _("Open API Management"),
            path=SECURITY_PATH if about_factors else KEYS_PATH,
            language=language.code,
        )

    def _bulk_revocation(self, notice: Pending) -> Letter:
        """A notice to staff of the exchange, in the language of the commands."""
        detail = notice.detail
        count, where = detail.get("count"), detail.get("where")
        filters = " ".join(f"{name}={value}" for name, value in where.items()) if isinstance(where, Mapping) else ""
        who = _text(detail, "operator")
        keys = "1 API key" if count == 1 else f"{count} API keys" if isinstance(count, int) else "many API keys"
        facts = [
            ("Operator", who),
            ("Filters", filters),
            ("Reason", _text(detail, "reason")),
            ("IP address", _address(detail)),
            ("Time", self._time(self.language(_OFFICE), notice.at_ms)),
        ]
        return Letter(
            subject=one_line(f"{keys} {'was' if count == 1 else 'were'} revoked at once by {who}"),
            happened=f"An operator revoked {keys} by one command. It cannot be undone.",
            advice="If this was not agreed upon, take the operator's token away and look at: gerbang audit list --event keys_revoked",
            facts=tuple((name, one_line(value)) for name, value in facts if value),
            action="",
            path="",
            language=_OFFICE,
        )

    def _facts(self, language: Language, notice: Pending) -> list[tuple[str, str]]:
        _, detail = language.translations.gettext, notice.detail
        key = " · ".join(filter(None, (_text(detail, "label"), masked(notice.key_id) if notice.key_id else "")))
        reason = _text(detail, "reason")
        return [
            (_("API Key"), key),
            (_("Permissions"), ", ".join(_SCOPES.get(scope, scope) for scope in _texts(detail, "scopes"))),
            (_("IP access"), _access(detail)),
            (_("Expires"), self._time(language, _expiry_ms(notice))),
            (_("Ends"), self._time(language, detail.get("ends_at_ms"))),
            (_("Name"), _text(detail, "name")),
            (_("IP address"), _address(detail)),
            (_("Reason"), _("its secret was found in public") if reason == LEAKED else reason),
            (_("Found at"), _text(detail, "found_at")),
            (_("Time"), self._time(language, notice.at_ms)),
        ]

    def _time(self, language: Language, at_ms: object) -> str:
        if not isinstance(at_ms, int):
            return ""
        moment = datetime.fromtimestamp(at_ms / 1000, UTC)
        return format_datetime(moment, "d MMM y HH:mm zzz", tzinfo=self._zone, locale=language.code)


def one_line(text: str) -> str:
    """User input as one line: unprintable characters become spaces, long text is truncated."""
    flat = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return flat if len(flat) <= _LONGEST_VALUE else flat[: _LONGEST_VALUE - 1] + "…"


def _words(_: Translate, topic: Topic, detail: Mapping[str, object]) -> tuple[str, str, str]:
    """Subject, what happened, what to do."""
    not_you = _("If this was not you, delete your API keys, end your sessions and contact support at once.")
    match topic:
        case Topic.KEY_CREATED:
            return _("A new API key was created"), _("A new API key was created on your account."), not_you
        case Topic.KEY_DELETED:
            return _("An API key was deleted"), _("An API key was deleted. It no longer works."), not_you
        case Topic.KEY_REVOKED if detail.get("reason") == LEAKED:
            return (
                _("An API key was revoked: its secret is public"),
                _("The secret of your API key was found where others can read it. The key was revoked at once and no longer works."),
                _("Check your orders and balances, remove the secret from where it was found, and create a new API key."),
            )
        case Topic.KEY_REVOKED:
            return (
                _("An API key was revoked"),
                _("The exchange revoked your API key. It no longer works."),
                _("Contact support if you have questions. You can create a new API key and delete this one."),
            )
        case Topic.KEY_FIRST_USED:
            return (
                _("An API key was used for the first time"),
                _("Your API key was used for the first time."),
                _("If this was not your bot, delete the API key at once."),
            )
        case Topic.KEY_REFUSED_NEW_ADDRESS:
            return (
                _("An API key was used from an address that is not listed"),
                _("A request with your API key and a valid signature came from an IP address that is not in its list. It was refused."),
                _(
                    "If your bot has a new IP address, create a new API key with it and delete this one. "
                    "If it was not you, someone else has your secret: delete the API key at once."
                ),
            )
    return _words_of_ends(_, topic, detail) or _words_of_accounts(_, topic, detail, not_you)


def _words_of_ends(_: Translate, topic: Topic, detail: Mapping[str, object]) -> tuple[str, str, str] | None:
    anew = _("Create a new API key, give it to your bot, and delete this one.")
    match topic:
        case Topic.KEY_EXPIRING if detail.get("cause") == "idle":
            return (
                _("An unused API key ends soon"),
                _("Nobody has used your API key for a long time. It ends soon if it stays unused."),
                _("Use it once to keep it, or delete it."),
            )
        case Topic.KEY_EXPIRING:
            return _("An API key expires soon"), _("Your API key expires soon. Requests with it are refused afterwards."), anew
        case Topic.KEY_EXPIRED:
            return _("An API key has expired"), _("Your API key has expired. Requests with it are refused."), anew
        case Topic.KEY_IDLE:
            return _("An unused API key has ended"), _("Nobody used your API key for a long time, so it has ended."), anew
    return None


def _words_of_accounts(_: Translate, topic: Topic, detail: Mapping[str, object], not_you: str) -> tuple[str, str, str]:
    support = _("Contact support if you have questions.")
    match topic:
        case Topic.FACTOR_ADDED:
            return _("A 2FA method was added"), _("A way to confirm changes (2FA) was added to your account."), not_you
        case Topic.FACTOR_REMOVED:
            return _("A 2FA method was removed"), _("A way to confirm changes (2FA) was removed from your account."), not_you
        case Topic.FACTORS_RESET:
            return (
                _("Your 2FA was reset"),
                _("The exchange removed every way to confirm changes (2FA) from your account and ended your sessions."),
                _("If you did not ask for this, contact support at once."),
            )
        case Topic.ACCOUNT_FROZEN:
            return _("Your account was frozen"), _("The exchange froze your account. Your API keys do not work meanwhile."), support
        case Topic.ACCOUNT_THAWED if "kyc" in detail:
            return (
                _("Your account is no longer frozen"),
                _("The exchange ended the freeze of your account. Your API keys stay off until your identity is verified."),
                support,
            )
        case Topic.ACCOUNT_THAWED:
            return (
                _("Your account is no longer frozen"),
                _("The exchange ended the freeze of your account. Your API keys work again."),
                support,
            )
    return _("Login from a new address"), _("Someone logged in to API Management from a new IP address."), not_you


def _expiry_ms(notice: Pending) -> object:
    days = notice.detail.get("expires_in_days")
    return notice.at_ms + days * DAY_MS if isinstance(days, int) else notice.detail.get("expires_at_ms")


def _access(detail: Mapping[str, object]) -> str:
    if "ip_allowlist" in detail:
        return "Whitelisted IP: " + ", ".join(_texts(detail, "ip_allowlist"))
    return "Unrestricted" if "scopes" in detail else ""


def _address(detail: Mapping[str, object]) -> str:
    """The address, validated again: some come from an untrusted store."""
    try:
        return str(ip_address(_text(detail, "client_ip")))
    except ValueError:
        return ""


def _text(detail: Mapping[str, object], name: str) -> str:
    value = detail.get(name)
    return value if isinstance(value, str) else ""


def _texts(detail: Mapping[str, object], name: str) -> list[str]:
    value = detail.get(name)
    return [str(item) for item in value] if isinstance(value, list | tuple) else []
