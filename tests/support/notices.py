"""A mail server and a webhook receiver of the test's own, to be broken and mended."""

import asyncio
import base64
import secrets
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, NamedTuple

from aiohttp import web
from aiosmtpd.controller import Controller
from standardwebhooks.webhooks import Webhook

from tests.support.ports import free_port
from tests.support.running import PATIENCE

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


async def until(owner: Any, question: str) -> None:
    """Ask the database until it says yes."""
    async with asyncio.timeout(PATIENCE):
        while not await owner.fetchval(question):  # noqa: ASYNC110  # it has no event for this
            await asyncio.sleep(0.01)


class Mailbox:
    """What a real SMTP server took. ``answer`` is what it says instead of taking a mail, while it is set."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []
        self.answer: str | None = None
        self.came = asyncio.Event()
        self.tries = 0
        self._loop = asyncio.get_running_loop()

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
        answer = self.answer  # once: the test changes it from another thread
        if answer is None:
            self.envelopes.append(envelope)
        self.tries += 1
        self._loop.call_soon_threadsafe(self.came.set)
        return answer or "250 taken"

    @property
    def messages(self) -> list[EmailMessage]:
        return [message_from_bytes(envelope.content, policy=default) for envelope in self.envelopes]

    async def _more(self) -> None:
        self.came.clear()
        await asyncio.wait_for(self.came.wait(), PATIENCE)

    async def until(self, count: int) -> list[EmailMessage]:
        while len(self.envelopes) < count:
            await self._more()
        return self.messages

    async def until_tried(self, count: int) -> None:
        while self.tries < count:
            await self._more()


class SmtpServer(NamedTuple):
    box: Mailbox
    port: int

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"


def smtp(box: Mailbox, port: int = 0) -> Controller:
    """A running server; ``port`` 0 is any."""
    controller = Controller(box, hostname="127.0.0.1", port=port or free_port(), ready_timeout=30)
    controller.start()
    return controller


class Receiver:
    """A webhook receiver that believes what standardwebhooks verifies. ``status`` is what it answers."""

    def __init__(self) -> None:
        self.status = 204
        self.pause: asyncio.Event | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.tries: list[str] = []
        self.came = asyncio.Event()
        self.url = ""
        self._verifier = Webhook(SECRET)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        event = self._verifier.verify(body, dict(request.headers))
        self.tries.append(request.headers["webhook-id"])
        self.came.set()
        if self.pause is not None:
            await self.pause.wait()
        if self.status < 300:
            self.events.append((request.headers["webhook-id"], event))
            self.came.set()
        return web.Response(status=self.status)

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, event in self.events]

    async def _more(self) -> None:
        self.came.clear()
        await asyncio.wait_for(self.came.wait(), PATIENCE)

    async def until(self, count: int) -> list[dict[str, Any]]:
        while len(self.events) < count:
            await self._more()
        return [event for _, event in self.events]

    async def until_tried(self, count: int) -> None:
        while len(self.tries) < count:
            await self._more()

    async def until_told(self, *types: str) -> list[dict[str, Any]]:
        while not set(types) <= set(self.types):
            await self._more()
        return [event for _, event in self.events if event["type"] in types]


async def add_account(connection: Any, account_id: str, *, email: str | None = None, language: str | None = None) -> None:
    await connection.execute("INSERT INTO accounts (id, email, kyc, language) VALUES ($1, $2, 'verified', $3)", account_id, email, language)


def settings_of(receiver: Receiver) -> dict[str, Any]:
    return {"url": receiver.url, "secret": SECRET}
