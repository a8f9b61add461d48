"""Mails: text and HTML in the account's language, and nothing that anybody typed becomes a header."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.config import Mail
from admin.notices.delivery import Undeliverable
from admin.notices.mail import MailChannel
from admin.outbox import Pending, Topic

KEY_ID = "gbk_0123456789abcdefghijklmnopqr"
CHANNEL = MailChannel(
    Mail.model_validate({"smtp": "smtp://127.0.0.1:25", "from": "Exchange <keys@exchange.example>"}),
    site_name="Exchange",
    public_url="https://keys.exchange.example/",
)


def notice(topic: Topic = Topic.KEY_CREATED, **changes: Any) -> Pending:
    values: dict[str, Any] = {
        "seq": 1, "id": "evt_1", "account_id": "alice", "topic": topic, "at_ms": 1_764_000_000_000, "key_id": KEY_ID,
        "detail": {
            "label": "My bot", "scopes": ["read", "trade"], "ip_allowlist": ["8.8.8.8"], "expires_in_days": 30, "client_ip": "8.8.4.4"
        },
        "email": "alice@mail.example", "language": "en", "attempts": 0, "first_tried_ms": None,
    }  # fmt: skip
    return Pending(**{**values, **changes})


def sent(item: Pending) -> EmailMessage:
    """As a reader's program gets it."""
    return message_from_bytes(CHANNEL.message(item).as_bytes(), policy=default)


def parts(message: EmailMessage) -> tuple[str, str]:
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    return text.get_content(), html.get_content()


def test_a_mail_has_what_readers_and_servers_need() -> None:
    message = sent(notice())
    assert message["To"] == "alice@mail.example"
    assert message["From"] == "Exchange <keys@exchange.example>"
    assert message["Subject"] == "A new API key was created"
    assert message["Message-ID"] == "<evt_1@exchange.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Content-Language"] == "en"
    assert message["Date"].datetime.timestamp() == 1_764_000_000
    assert message.get_content_type() == "multipart/alternative"
    for part in parts(message):
        for told in (
            "My bot",
            "gbk_0123…opqr",
            "Read Only, Spot Trading",
            "Whitelisted IP: 8.8.8.8",
            "8.8.4.4",
            "24 Nov 2025",
            "24 Dec 2025",
        ):
            assert told in part
        assert "https://keys.exchange.example/keys" in part


def test_it_speaks_the_accounts_language_and_indonesian_by_default() -> None:
    for language in ("id", None, "xx"):
        message = sent(notice(language=language))
        assert message["Subject"] == "API Key baru telah dibuat"
        assert message["Content-Language"] == "id"
        assert "WIB" in parts(message)[0]


@pytest.mark.parametrize("language", ["id", "en"])
@pytest.mark.parametrize("topic", list(Topic))
def test_no_mail_shows_a_whole_key_id(topic: Topic, language: str) -> None:
    message = sent(notice(topic, language=language))
    whole = message.as_string() + "".join(parts(message))
    assert KEY_ID not in whole
    assert message["Subject"]


@pytest.mark.parametrize("email", [None, "", "alice", "a@b, c@d", "a@b.example\r\nBcc: c@d.example", "a b@c.example", "a@b.example\n"])
def test_what_is_no_single_address_gets_no_mail(email: str | None) -> None:
    with pytest.raises(Undeliverable):
        CHANNEL.message(notice(email=email))


EVIL = "x\r\nBcc: thief@mail.example\r\n\r\n<script>alert(1)</script>&\u202e\x00\u2028"


@pytest.mark.parametrize("member", ["label", "reason", "name", "found_at", "client_ip"])
@pytest.mark.parametrize("topic", list(Topic))
def test_nothing_typed_becomes_a_header_or_markup(topic: Topic, member: str) -> None:
    message = sent(notice(topic, detail={member: EVIL, "scopes": [EVIL], "ip_allowlist": [EVIL]}))
    assert "Bcc" not in message
    assert message["To"] == "alice@mail.example"
    text, html = parts(message)
    assert "<script" not in html
    assert "\nBcc:" not in text
    assert "\x00" not in text + html


@given(st.text(), st.sampled_from(Topic), st.sampled_from(["id", "en"]))
def test_any_label_makes_a_mail_that_reads_back(label: str, topic: Topic, language: str) -> None:
    message = sent(notice(topic, language=language, detail={"label": label}))
    assert set(message.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Language", "MIME-Version", "Content-Type"
    }  # fmt: skip
    assert len(parts(message)[0].splitlines()) < 25
