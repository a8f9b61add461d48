"""Mail servers and mailboxes as settings name them."""

import pytest

from admin.relay import Relay, mailbox


@pytest.mark.parametrize(
    ("url", "relay", "start_tls"),
    [
        ("smtps://us%40er:p%3Ass@mail.example", ("mail.example", 465, True, "us@er", "p:ss"), False),
        ("smtps://mail.example:2465/", ("mail.example", 2465, True, None, None), False),
        ("smtp://user:pass@mail.example", ("mail.example", 587, False, "user", "pass"), True),
        ("smtp://127.0.0.1:2525", ("127.0.0.1", 2525, False, None, None), False),
        ("smtp://[::1]:25", ("::1", 25, False, None, None), False),
    ],
)
def test_a_relay_is_read(url: str, relay: tuple[object, ...], start_tls: bool) -> None:
    found = Relay.parse(url)
    assert tuple(found) == relay
    assert found.start_tls is start_tls, "what is not on this machine is spoken to in TLS, or not at all"
    assert "p:ss" not in repr(found)


@pytest.mark.parametrize(
    "url",
    ["", "mail.example", "http://mail.example", "smtp://", "smtps://h:0", "smtps://h:x", "smtps://h/p", "smtps://:p@h", "smtps://a..b"],
)
def test_what_is_no_relay_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="smtps://USER:PASSWORD@HOST") as refused:
        Relay.parse(url)
    assert url == "" or url not in str(refused.value).replace("smtps://USER", "").replace("smtp://…", "")


@pytest.mark.parametrize(("text", "name", "address"), [("a@b.example", "", "a@b.example"), ("Ex <a@b.example>", "Ex", "a@b.example")])
def test_a_mailbox_is_read(text: str, name: str, address: str) -> None:
    assert (mailbox(text).display_name, mailbox(text).addr_spec) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@",
        "@b",
        "a@b c",
        "a@b,c@d",
        "a@b\n",
        "X\r\nBcc: c <a@b>",
        '"x" <a@b>',
        "<a@b>",
        ".a@b",
        "a@-b",
        "ü@b",
        "a@b>",
        "x" * 65 + "@b",
    ],
)
def test_what_is_no_single_mailbox_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        mailbox(text)
