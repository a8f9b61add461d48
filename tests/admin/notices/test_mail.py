"""Mails: text and HTML in the account's language, nothing that anybody typed becomes a header, and a password goes over TLS alone."""

import os
import ssl
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from hypothesis import given
from hypothesis import strategies as st

from admin.config import Mail
from admin.notices.delivery import ChannelDown, Undeliverable
from admin.notices.mail import MailChannel
from admin.outbox import Pending, Topic
from tests.support.certificates import self_signed
from tests.support.notices import Mailbox
from tests.support.ports import free_port

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd knows STARTTLS alone, or none

KEY_ID = "gbk_0123456789abcdefghijklmnopqr"
CHANNEL = MailChannel(
    Mail.model_validate({"smtp": "smtp://127.0.0.1:25", "from": "Exchange <keys@exchange.example>"}),
    site_name="Exchange",
    public_url="https://keys.exchange.example/",
    notify=("Security <security@exchange.example>", "audit@exchange.example"),
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


def test_a_bulk_act_is_told_to_other_people_of_the_exchange_and_not_to_an_owner() -> None:
    detail = {
        "count": 12,
        "where": {"scope": "trade", "unrestricted": True},
        "reason": "leaked",
        "operator": "alice",
        "client_ip": "10.0.0.7",
    }
    message = sent(notice(Topic.KEYS_REVOKED, account_id="", key_id=None, email=None, language="id", detail=detail))
    assert message["To"] == "security@exchange.example, audit@exchange.example"
    assert message["Subject"] == "12 API keys were revoked at once by alice"
    for part in parts(message):
        for told in ("alice", "scope=trade unrestricted=True", "leaked", "10.0.0.7", "24 Nov 2025"):
            assert told in part
        assert "https://" not in part
    one = sent(notice(Topic.KEYS_REVOKED, account_id="", key_id=None, email=None, detail=detail | {"count": 1}))
    assert one["Subject"] == "1 API key was revoked at once by alice"
    nobody = MailChannel(Mail.model_validate({"smtp": "smtp://127.0.0.1", "from": "a@b.example"}), site_name="x", public_url="https://x")
    with pytest.raises(Undeliverable):
        nobody.message(notice(Topic.KEYS_REVOKED, email="alice@mail.example"))


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
    message = sent(
        notice(topic, detail={member: EVIL, "scopes": [EVIL], "ip_allowlist": [EVIL], "where": {"label": EVIL}, "operator": EVIL})
    )
    assert "Bcc" not in message
    assert ("alice@mail.example" in message["To"]) == (topic is not Topic.KEYS_REVOKED)
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


HOST = "127.0.0.2"
"""None of the names of this machine that may be spoken to in the clear."""
USER, PASSWORD = "keys@exchange.example", "p@ss:w%rd/"


class Guard:
    """Lets one user in, and remembers what anybody sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bytes]] = []
        self.password = PASSWORD

    def __call__(self, _server: object, _session: object, _envelope: object, _mechanism: str, given: Any) -> AuthResult:
        self.seen.append((given.login, given.password))
        return AuthResult(success=self.seen[-1] == (USER.encode(), self.password.encode()), handled=False)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The server's, which this process trusts."""
    chain, key = self_signed(tmp_path, HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    return context


@pytest.fixture
async def box() -> Mailbox:
    return Mailbox()


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
def serve(box: Mailbox, guard: Guard) -> Iterator[Any]:
    """Starts a mail server that takes mail after a login alone; returns its port."""
    running: list[Controller] = []

    def start(**options: Any) -> int:
        settings = {"authenticator": guard, "auth_required": True, "auth_require_tls": False, **options}
        running.append(Controller(box, hostname=HOST, port=free_port(), ready_timeout=30, **settings))
        running[-1].start()
        return int(running[-1].port)

    yield start
    for controller in running:
        controller.stop(no_assert=True)


async def deliver(scheme: str, port: int) -> None:
    url = f"{scheme}://keys%40exchange.example:p%40ss%3Aw%25rd%2F@{HOST}:{port}"
    settings = Mail.model_validate({"smtp": url, "from": "Exchange <keys@exchange.example>"})
    async with MailChannel(settings, site_name="Exchange", public_url="https://keys.exchange.example").open() as send:
        await send(notice(), 0)


OPTION = {"smtps": "ssl_context", "smtp": "tls_context"}
"""How the server speaks TLS: from the first byte, or after STARTTLS."""


@pytest.mark.parametrize("scheme", OPTION)
async def test_a_mail_goes_over_tls_after_a_login(serve: Any, box: Mailbox, guard: Guard, certificate: ssl.SSLContext, scheme: str) -> None:
    await deliver(scheme, serve(**{OPTION[scheme]: certificate}))
    assert [mail["To"] for mail in box.messages] == ["alice@mail.example"]
    assert guard.seen == [(USER.encode(), PASSWORD.encode())]


@pytest.mark.parametrize("scheme", OPTION)
async def test_a_server_whose_certificate_is_not_trusted_gets_neither_password_nor_mail(
    serve: Any, box: Mailbox, guard: Guard, certificate: ssl.SSLContext, scheme: str
) -> None:
    os.environ.pop("SSL_CERT_FILE")  # which the fixture puts back
    with pytest.raises(ChannelDown):
        await deliver(scheme, serve(**{OPTION[scheme]: certificate}))
    assert (guard.seen, box.envelopes) == ([], [])


async def test_a_server_that_offers_no_tls_gets_neither_password_nor_mail(serve: Any, box: Mailbox, guard: Guard) -> None:
    with pytest.raises(ChannelDown):
        await deliver("smtp", serve())
    assert (guard.seen, box.envelopes) == ([], [])


async def test_a_password_that_the_server_refuses_leaves_the_mail_for_later(
    serve: Any, box: Mailbox, certificate: ssl.SSLContext, guard: Guard
) -> None:
    guard.password = "another"
    with pytest.raises(ChannelDown, match="535"):
        await deliver("smtps", serve(ssl_context=certificate))
    assert box.envelopes == []
