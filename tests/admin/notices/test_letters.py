"""Sentences of notices: both languages whole, and each topic with words of its own."""

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from admin.notices.letters import LOCALE, Letters, one_line
from admin.outbox import Topic
from admin.pages.i18n import LANGUAGES
from tests.admin.notices.test_mail import notice


def catalogue(code: str) -> dict[str, str]:
    with (LOCALE / code / "LC_MESSAGES" / "messages.po").open("rb") as source:
        return {str(message.id): str(message.string) for message in read_po(source, locale=code) if message.id}


def test_every_sentence_is_translated_and_no_other() -> None:
    written = {message for _, _, message, _, _ in extract_from_dir(LOCALE.parent, [("letters.py", "python")], {})}
    assert len(written) > 40, "the extraction itself works"
    for code in LANGUAGES:
        messages = catalogue(code)
        assert set(messages) == written, "run the commands in locale/babel.cfg"
        assert all(messages.values())
    same = {source for source, target in catalogue("id").items() if source == target}
    assert same == {"API Key"}


def test_each_topic_has_a_subject_of_its_own() -> None:
    letters = Letters("Asia/Jakarta")
    for language in LANGUAGES:
        subjects = {letters.write(notice(topic, language=language, detail={})).subject for topic in Topic if topic is not Topic.KYC_LOST}
        subjects.add(letters.write(notice(Topic.KEY_REVOKED, language=language, detail={"reason": "leaked"})).subject)
        subjects.add(letters.write(notice(Topic.KEY_EXPIRING, language=language, detail={"cause": "idle"})).subject)
        assert len(subjects) == len(Topic) - 1 + 2


def test_one_line_is_one_line_and_not_endless() -> None:
    assert one_line(" a\r\n b\t\x00c\u202ed ") == "a b c d"
    assert len(one_line("x" * 10_000)) == 300
