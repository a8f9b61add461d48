"""The mailbox of gerbang up: keeps every mail, shows them harmlessly, and believes signed webhooks alone."""

import base64
import json
import secrets
from datetime import UTC, datetime
from email.message import EmailMessage

import aiosmtplib
from aiohttp.test_utils import TestClient, TestServer
from standardwebhooks.webhooks import Webhook

from deploy.local.mailbox import application
from gateway.runtime import clock
from tests.support.ports import free_port

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def a_mail() -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "keys@localhost", "siti@mail.example", "<b>API Key</b> baru"
    mail.set_content("isi <script>")
    mail.add_alternative("<p>isi</p>", subtype="html")
    return mail


def signed(body: str, secret: str = SECRET) -> dict[str, str]:
    now = clock.now_ms() // 1000
    signature = Webhook(secret).sign("evt_1", datetime.fromtimestamp(now, UTC), body)
    return {"webhook-id": "evt_1", "webhook-timestamp": str(now), "webhook-signature": signature}


async def test_every_mail_is_shown_and_none_of_it_runs() -> None:
    port = free_port()
    async with TestClient(TestServer(application(secret=SECRET, smtp_port=port))) as client:
        assert "None yet" in await (await client.get("/")).text()
        await aiosmtplib.send(a_mail(), hostname="127.0.0.1", port=port, start_tls=False)
        page = await client.get("/")
        text = await page.text()
        assert "&lt;b&gt;API Key&lt;/b&gt; baru" in text
        assert "<script" not in text
        assert "script-src" not in page.headers["Content-Security-Policy"]
        assert "<p>isi</p>" in await (await client.get("/mail/1")).text()
        assert (await client.get("/mail/2")).status == 404
        (mail,) = (await (await client.get("/mails.json")).json())["mails"]
        assert (mail["to"], mail["text"].strip()) == ("siti@mail.example", "isi <script>")


async def test_a_signed_webhook_is_printed_once_and_a_forged_one_not(capsys: object) -> None:
    body = json.dumps({"type": "key.created", "data": {}})
    async with TestClient(TestServer(application(secret=SECRET, smtp_port=free_port()))) as client:
        for _ in range(2):
            assert (await client.post("/webhooks", data=body, headers=signed(body))).status == 204
        forged = signed(body, "whsec_" + base64.b64encode(bytes(32)).decode())
        assert (await client.post("/webhooks", data=body, headers=forged)).status == 401
        assert (await client.post("/webhooks", data=body)).status == 401
        assert len((await (await client.get("/mails.json")).json())["webhooks"]) == 1
    assert capsys.readouterr().out.count("key.created") == 1  # type: ignore[attr-defined]
