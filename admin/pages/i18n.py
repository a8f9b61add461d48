"""Internationalization: message catalogues, language negotiation, formatting of numbers and times.

The ``.po`` files are compiled in memory when the service starts (a tenth of a second), so that a fresh clone works and no
compiled file is outdated.
"""

import gettext
import io
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import NamedTuple

from babel.dates import format_datetime
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

LANGUAGES = ("id", "en")
DEFAULT = "id"

_LOCALE = Path(__file__).parent / "locale"

Translate = Callable[[str], str]


class Language(NamedTuple):
    """One language, ready for use."""

    code: str
    translations: gettext.NullTranslations
    zone: tzinfo = UTC
    """The time zone of :meth:`time`."""

    def number(self, value: int) -> str:
        """A number with the language's separators: ``1.204`` in Indonesian."""
        return format_decimal(value, locale=self.code)

    def time(self, at_ms: int) -> str:
        """Unix milliseconds as a readable time with its zone; a script converts it to the browser's zone."""
        return self._formatted(at_ms, "d MMM y HH:mm")

    def clock(self, at_ms: int) -> str:
        """Hour and minute only."""
        return self._formatted(at_ms, "HH:mm")

    def _formatted(self, at_ms: int, pattern: str) -> str:
        moment = datetime.fromtimestamp(at_ms / 1000, self.zone)
        return f"{format_datetime(moment, pattern, tzinfo=self.zone, locale=self.code)} {moment.tzname()}"


def load_languages(locale: Path = _LOCALE) -> dict[str, Language]:
    """Every language by its code.

    :param locale: the folder of the catalogues
    """
    return {code: Language(code, _compile(locale / code / "LC_MESSAGES" / "messages.po", code)) for code in LANGUAGES}


def _compile(path: Path, code: str) -> gettext.GNUTranslations:
    with path.open("rb") as source:
        catalogue = read_po(source, locale=code)
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def choose(*, account: str | None, cookie: str | None, accept_language: str) -> str:
    """The account's choice, else the cookie's, else the browser's preference (RFC 9110 §12.5.4), else Indonesian."""
    for chosen in (account, cookie):
        if chosen in LANGUAGES:
            return chosen
    ranked = [(quality, -index, tag) for index, (tag, quality) in enumerate(_accepted(accept_language)) if quality > 0]
    for _, _, tag in sorted(ranked, reverse=True):
        primary = tag.split("-", 1)[0].lower()
        primary = "id" if primary in ("in", "id", "ms") else primary  # "in" is the obsolete code, still sent by Java on Android
        if primary in LANGUAGES:
            return primary
    return DEFAULT


def _accepted(header: str) -> list[tuple[str, float]]:
    accepted: list[tuple[str, float]] = []
    for part in header[:512].split(","):
        tag, _, parameter = part.strip().partition(";")
        try:
            quality = float(parameter.strip().removeprefix("q=")) if parameter else 1.0
        except ValueError:
            continue
        accepted.append((tag.strip(), quality))
    return accepted
