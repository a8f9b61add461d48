"""Doctor knocks at what the admin service calls."""

import asyncio

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from admin.config import Mail
from deploy.doctor.peers import mail_server, reachable
from tests.support.notices import Mailbox, smtp
from tests.support.ports import free_port


@pytest.mark.parametrize("about", ["webhooks.url", "upstreams.spot.key_events"])
async def test_a_receiver_that_listens_is_right_and_one_that_does_not_is_wrong(about):
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = await reachable(about, f"http://127.0.0.1:{port}/hook")
        assert (found.level, found.about, found.text) == ("ok", about, f"127.0.0.1:{port} answers")
        unspoken = await reachable(about, f"https://127.0.0.1:{port}/hook")
        assert unspoken.level == "wrong", "it does not speak TLS"
    away = await reachable(about, f"http://127.0.0.1:{free_port()}/hook")
    assert (away.level, "cannot be reached" in away.text) == ("wrong", True)


def mail(url: str) -> Mail:
    return Mail.model_validate({"smtp": url, "from": "keys@exchange.example"})


async def test_a_mail_server_is_tried_as_notices_come_to_it_and_gets_no_mail():
    box = Mailbox()
    controller = smtp(box)
    where = f"127.0.0.1:{controller.port}"
    try:
        assert (await mail_server(mail(f"smtp://{where}")))[:3] == ("ok", "mail.smtp", f"{where} answers")
        for url in (f"smtps://{where}", f"smtp://keys:topsecret@{where}"):
            found = await mail_server(mail(url))
            assert (found.level, "does not accept mail" in found.text, "topsecret" in str(found)) == ("wrong", True, False), found
    finally:
        controller.stop(no_assert=True)
    assert (await mail_server(mail(f"smtp://{where}"))).level == "wrong"
    assert box.tries == 0


async def test_a_login_that_the_mail_server_accepts_is_told():
    accepting = {"auth_require_tls": False, "authenticator": lambda *_: AuthResult(success=True)}
    controller = Controller(Mailbox(), hostname="127.0.0.1", port=free_port(), ready_timeout=30, **accepting)
    controller.start()
    where = f"127.0.0.1:{controller.port}"
    try:
        assert (await mail_server(mail(f"smtp://keys:secret@{where}"))).text == f"{where} answers and accepts the login"
    finally:
        controller.stop(no_assert=True)
