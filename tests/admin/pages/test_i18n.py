"""Languages: which one a request gets, and that no sentence is missing in either."""

import re
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st

from admin import audit
from admin.pages import i18n, texts
from admin.pages.i18n import LANGUAGES, choose, load_languages
from admin.stepup.proof import Wrong
from gateway.keys.record import Algorithm, Scope

PAGES = Path(i18n.__file__).parent
ARTICLE = {"API Management", "API Key", "Secret Key", "Read Only", "Spot Trading", "Whitelisted IP", "Unrestricted"}
"""Words of the exchange's own article, which stand in both languages as they are."""
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w+\}")


def written() -> set[str | tuple[str, ...]]:
    """Every sentence of the templates and modules, as ``pybabel extract`` finds them."""
    methods = [("**.py", "python"), ("templates/**.html", "jinja2")]
    options = {"templates/**.html": {"silent": "false"}}
    return {message for _, _, message, _, _ in extract_from_dir(PAGES, methods, options)}


def catalogue(code: str):
    with (PAGES / "locale" / code / "LC_MESSAGES" / "messages.po").open("rb") as source:
        return read_po(source, locale=code)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_sentence_is_translated(code):
    messages = {message.id: message for message in catalogue(code) if message.id}
    sentences = written()
    assert len(sentences) > 200, "the extraction itself works"
    assert sentences - set(messages) == set(), "missing: run the commands in locale/babel.cfg"
    assert set(messages) - sentences == set(), "no longer used"
    untranslated = [m.id for m in messages.values() if m.fuzzy or not all(m.string if isinstance(m.string, tuple) else [m.string])]
    assert untranslated == []


@pytest.mark.parametrize("code", LANGUAGES)
def test_translations_keep_the_placeholders(code):
    for message in catalogue(code):
        sources = message.id if isinstance(message.id, tuple) else (message.id,)
        targets = message.string if isinstance(message.string, tuple) else (message.string,)
        expected = set(PLACEHOLDER.findall(sources[-1]))
        for target in targets if message.id else ():
            assert set(PLACEHOLDER.findall(target)) == expected, message.id


def test_indonesian_is_not_english():
    same = [m.id for m in catalogue("id") if m.id and m.string == m.id]
    assert set(same) <= {"Label", "Passkey", *ARTICLE}, same


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_code_that_can_be_shown_has_a_sentence(code):
    translate = load_languages()[code].translations.gettext
    assert set(texts.events(translate)) == set(audit.Event)
    assert {f"step_up_failed.{reason}" for reason in Wrong} <= set(texts.problems(translate))
    labels = texts.labels(translate)
    assert set(labels["scope"]) == set(Scope)
    assert set(labels["algorithm"]) == set(Algorithm)


def codes_of_field_errors() -> set[str]:
    """Every code that stands in a ``FieldError("field", "code", …)`` of the admin service."""
    sources = [path.read_text() for path in PAGES.parent.rglob("*.py")]
    return {code for source in sources for code in re.findall(r'FieldError\(\s*[^,()]+(?:\([^)]*\))?, "(\w+)"', source)}


def codes_of_refusals() -> set[str]:
    source = (PAGES.parent / "errors.py").read_text()
    return set(re.findall(r'status, code, title = \d+, "(\w+)"', source))


def test_every_code_of_the_services_has_a_sentence():
    translate = load_languages()["id"].translations.gettext
    found = codes_of_field_errors()
    assert {"not_public", "too_many", "required", "weak_key"} <= found
    assert found - set(texts.field_errors(translate)) - {"malformed", "wrong_type"} == set()
    # What only a program can run into: our own pages send no such request.
    programs = {
        *("malformed_request", "method_not_allowed", "request_timeout", "immutable_key", "body_too_large", "unsupported_media_type"),
        "count_changed",
    }
    programs.add("report_not_signed")
    assert codes_of_refusals() - programs - set(texts.problems(translate)) == set()


@pytest.mark.parametrize(
    ("account", "cookie", "accept", "language"),
    [
        (None, None, "", "id"),
        (None, None, "en", "en"),
        (None, None, "id-ID,id;q=0.9,en-US;q=0.8,en;q=0.7", "id"),
        (None, None, "en-GB,en;q=0.9,id;q=0.8", "en"),
        (None, None, "en;q=0.1,id;q=0.9", "id"),
        (None, None, "in-ID", "id"),
        (None, None, "fr-FR,en;q=0.5", "en"),
        (None, None, "fr,de", "id"),
        (None, None, "en;q=0,id;q=0", "id"),
        (None, None, "en;q=nonsense", "id"),
        (None, "en", "id", "en"),
        ("id", "en", "en", "id"),
        ("xx", "../../etc", "en", "en"),
    ],
)
def test_the_accounts_choice_then_the_browsers_then_what_it_asks_for(account, cookie, accept, language):
    assert choose(account=account, cookie=cookie, accept_language=accept) == language


@given(st.text() | st.text(alphabet="en-id;q=0.1, *"))
def test_no_header_breaks_the_choice(header):
    assert choose(account=None, cookie=header, accept_language=header) in LANGUAGES


def test_numbers_and_times_are_written_as_the_language_does():
    languages = load_languages()
    assert (languages["id"].number(1204), languages["en"].number(1204)) == ("1.204", "1,204")
    assert languages["id"].time(1_700_000_000_000) == "14 Nov 2023 22:13 UTC"
    for language in languages.values():
        assert language._replace(zone=ZoneInfo("Asia/Jakarta")).time(1_754_000_000_000).endswith("2025 05:13 WIB")
