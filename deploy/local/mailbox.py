"""The mailbox of ``gerbang up``: an SMTP server with a web page, and a webhook receiver.

    /            every mail, latest first          /mails.json     the same for programs
    /mail/N      one mail as HTML                  POST /webhooks  verified by Standard Webhooks; printed, and shown on the page

Everything is kept in memory, the latest thousand of each, and nothing leaves this machine.
"""

import argparse
import asyncio
import html
import json
from collections import deque
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

_KEPT = 1_000
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}


class Mailbox:
    """Received mails and webhooks, latest first.

    :param secret: the webhooks' secret, ``whsec_…``
    """

    def __init__(self, secret: str) -> None:
        self._mails: deque[EmailMessage] = deque(maxlen=_KEPT)
        self._events: deque[tuple[str, Any]] = deque(maxlen=_KEPT)
        """Id and body of each webhook."""
        self._count = 0
        self._verifier = Webhook(secret)

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802  # aiosmtpd calls it so
        """Receive a mail."""
        self._mails.appendleft(message_from_bytes(envelope.original_content, policy=default))
        self._count += 1
        return "250 kept"

    async def index(self, _request: web.Request) -> web.Response:
        mails = "".join(self._summary(index, mail) for index, mail in enumerate(self._mails))
        events = "".join(f"<li><code>{html.escape(json.dumps(event, ensure_ascii=False))}</code></li>" for _, event in self._events)
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            "<title>Mailbox</title><style>body{font:16px/1.5 sans-serif;max-width:60rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}"
            "pre{white-space:pre-wrap}</style></head><body><h1>Mailbox</h1>"
            f"<p>Every mail that the demo sends ends here.</p>{mails or '<p>None yet.</p>'}"
            f"<h2>Webhooks</h2><ul>{events or '<li>None yet.</li>'}</ul></body></html>"
        )
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def mail(self, request: web.Request) -> web.Response:
        """One mail's HTML, under a policy that blocks scripts and external resources."""
        number = int(request.match_info["number"])
        for index, mail in enumerate(self._mails):
            if self._count - index == number:
                return web.Response(text=_part(mail, "html"), content_type="text/html", headers=_HEADERS)
        raise web.HTTPNotFound

    async def listed(self, _request: web.Request) -> web.Response:
        mails = [
            {
                "id": mail["Message-ID"],
                "to": mail["To"],
                "subject": mail["Subject"],
                "text": _part(mail, "plain"),
                "html": _part(mail, "html"),
            }
            for mail in self._mails
        ]
        return web.json_response({"mails": mails, "webhooks": [{"id": id_, "event": event} for id_, event in self._events]})

    async def webhook(self, request: web.Request) -> web.Response:
        try:
            event = self._verifier.verify(await request.read(), dict(request.headers))
        except (WebhookVerificationError, ValueError):
            return web.Response(status=401, text="not signed with our secret\n")
        if request.headers["webhook-id"] not in (known for known, _ in self._events):  # deliveries may be repeated
            self._events.appendleft((request.headers["webhook-id"], event))
            print(json.dumps(event, ensure_ascii=False), flush=True)
        return web.Response(status=204)

    def _summary(self, index: int, mail: EmailMessage) -> str:
        subject, to, date = (html.escape(str(mail[name] or "")) for name in ("Subject", "To", "Date"))
        return (
            f"<h2>{subject}</h2><p>{to} · {date} · <a href='/mail/{self._count - index}'>HTML</a></p>"
            f"<pre>{html.escape(_part(mail, 'plain'))}</pre>"
        )


def application(*, secret: str, smtp_port: int) -> web.Application:
    """The application: web page and mail server."""
    mailbox = Mailbox(secret)

    async def smtp(_app: web.Application) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox, hostname="localhost"), "127.0.0.1", smtp_port)
        yield
        server.close()

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.cleanup_ctx.append(smtp)
    app.add_routes(
        [
            web.get("/", mailbox.index),
            web.get(r"/mail/{number:[0-9]{1,9}}", mailbox.mail),
            web.get("/mails.json", mailbox.listed),
            web.get("/health", health),
            web.post("/webhooks", mailbox.webhook),
        ]
    )
    return app


def _part(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    return str(part.get_content()) if part is not None else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Mail server, mailbox page and webhook receiver of gerbang up")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--smtp", type=int, required=True)
    parser.add_argument("--secret", type=Path, required=True, help="file with the secret of the webhooks")
    wanted = parser.parse_args()
    app = application(secret=wanted.secret.read_text().strip(), smtp_port=wanted.smtp)
    web.run_app(app, host="127.0.0.1", port=wanted.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
