"""The admin service with its pages, and a customer in front of them."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pyotp
from aiohttp import web
from axe_playwright_python.base import AXE_SCRIPT
from joserfc.jwk import RSAKey
from playwright.async_api import Browser, CDPSession, ConsoleMessage, Locator, Page, expect

from admin.app import serving
from admin.config import AdminSettings
from deploy.local.identity_provider import IdentityProvider
from gateway.keys.vault import new_entry
from tests.support.ports import free_port
from tests.support.stack import Database

INTERNAL_TOKEN = "t" * 32
GATEWAY_URL = "http://127.0.0.1:8080"
PHONE = {"width": 390, "height": 844}
SMALL = {"width": 320, "height": 640}
DESKTOP = {"width": 1280, "height": 900}
PATIENCE_MS = 30_000
"""How long a page may take for what must happen, on a busy machine."""
DENIED = "navigator.clipboard.writeText = () => Promise.reject(new DOMException('denied', 'NotAllowedError'))"
"""What a web view without the permission to write to the clipboard does."""

_PROVIDER_KEY = RSAKey.generate_key(2048)
_BROKEN_WORDS = """() => [...document.querySelectorAll(".button, .brand, .tabs a, .pill, .choice .label, h1, h2")].flatMap((element) => {
  const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const broken = [];
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) broken.push(word[0]);
    }
  }
  return broken;
})"""


class Time:
    """A clock that can be put forward."""

    def __init__(self, real: Callable[[], int]) -> None:
        self._real = real
        self._ahead_ms = 0

    def now_ms(self) -> int:
        return self._real() + self._ahead_ms

    def advance(self, seconds: float) -> None:
        self._ahead_ms += int(seconds * 1000)


@dataclass(frozen=True)
class Site:
    """Where it runs."""

    url: str
    internal_url: str
    settings: AdminSettings


@asynccontextmanager
async def running_site(database: Database, redis_url: str, **settings: Any) -> AsyncIterator[Site]:
    """The admin service and the demo identity provider on free ports, until the block ends."""
    provider_port, port = free_port(), free_port()
    issuer = f"http://127.0.0.1:{provider_port}"
    chosen = AdminSettings.model_validate(
        {
            "public_url": f"http://localhost:{port}",
            "listen": {"public": f"127.0.0.1:{port}", "internal": "127.0.0.1:0"},
            "stores": {"postgres": database.admin_dsn, "redis": redis_url},
            "vault": {"keys": new_entry("k1")},
            "oidc": {"issuer": issuer, "audience": "gerbang"},
            "internal": {"token": INTERNAL_TOKEN},
            "kyc": {"help_url": "https://exchange.example/verify"},
            "pages": {"gateway_url": GATEWAY_URL},
            **settings,
        }
    )
    provider_runner = web.AppRunner(IdentityProvider(issuer, _PROVIDER_KEY).application(), access_log=None, shutdown_timeout=1)
    await provider_runner.setup()
    await web.TCPSite(provider_runner, "127.0.0.1", provider_port).start()
    try:
        async with serving(chosen) as bound:
            yield Site(chosen.public_url, f"http://{bound.internal}", chosen)
    finally:
        await provider_runner.cleanup()


@dataclass
class Visitor:
    """One customer: a page, a phone with an authenticator app, and what the browser complained about."""

    page: Page
    url: str
    time: Time
    complaints: list[str] = field(default_factory=list)
    totp_secret: str = ""
    devices: CDPSession | None = None

    @classmethod
    @asynccontextmanager
    async def on(
        cls,
        browser: Browser,
        url: str,
        time: Time,
        *,
        locale: str = "id-ID",
        viewport: dict[str, int] | None = None,
        **options: Any,
    ) -> AsyncIterator["Visitor"]:
        """A fresh browser profile."""
        context = await browser.new_context(locale=locale, viewport=viewport or PHONE, reduced_motion="reduce", **options)
        context.set_default_timeout(PATIENCE_MS)
        visitor = cls(await context.new_page(), url, time)
        visitor.page.on("console", visitor.heard)
        visitor.page.on("pageerror", lambda error: visitor.complaints.append(f"script: {error}"))
        try:
            yield visitor
        finally:
            await context.close()

    def heard(self, message: ConsoleMessage) -> None:
        # Chromium reports every answer of 4xx as an error; a refusal that the page shows is none.
        refusal = re.match(r"Failed to load resource: .* status of (401|403|404|409|422|429|503)", message.text)
        if message.type in ("error", "warning") and not refusal:
            self.complaints.append(f"{message.type}: {message.text}")

    # -- steps --

    async def log_in(self, account: str = "verified", *, start: str = "/keys") -> None:
        """By the identity provider's own page, ending on ``start``."""
        await self.page.goto(self.url + start)
        await self.page.get_by_role("link", name=re.compile("akun bursa|exchange account")).click()
        if account in ("verified", "unverified"):
            await self.page.locator(f"button[value={account}]").click()
        else:
            await self.page.locator("input[name=account]").fill(account)
            await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url(self.url + start)

    async def go(self, path: str) -> None:
        await self.page.goto(self.url + path)

    async def enrol_totp(self, name: str = "Ponsel") -> list[str]:
        """As the first factor. Returns the recovery codes."""
        await self.go("/security")
        await self.page.fill("#totp-name", name)
        await self.page.click("#totp-form button")
        await expect(self.page.locator("#totp-qr")).to_be_visible()
        self.totp_secret = (await self.page.locator("#totp-secret").inner_text()).replace(" ", "")
        await self.page.fill("#totp-code", self.code())
        await self.page.click("#totp-confirm button")
        await expect(self.page.locator("#new-codes")).to_be_visible()
        codes = await self.page.locator("#recovery-codes li").all_inner_texts()
        await self.page.click("#codes-done")
        await expect(self.page.locator("[data-factor]")).to_have_count(1)
        return codes

    def code(self) -> str:
        """What the authenticator app shows; the clock is put forward so that each call has a code of its own."""
        self.time.advance(30)
        return pyotp.TOTP(self.totp_secret).at(self.time.now_ms() // 1000)

    async def plug_in(self, *, transport: str = "internal") -> str:
        """A virtual authenticator (Chromium's WebAuthn domain). Returns its id."""
        if self.devices is None:
            self.devices = await self.page.context.new_cdp_session(self.page)
            await self.devices.send("WebAuthn.enable", {"enableUI": False})
        options = {
            "protocol": "ctap2",
            "transport": transport,
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        added = await self.devices.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        return str(added["authenticatorId"])

    async def unplug(self, device: str) -> None:
        assert self.devices is not None
        await self.devices.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": device})

    async def enrol_passkey(self, name: str = "Laptop") -> None:
        """As the first factor."""
        await self.go("/security")
        await self.page.fill("#passkey-name", name)
        await self.page.click("#passkey-form button")
        await expect(self.page.locator("#new-codes")).to_be_visible()
        await self.page.click("#codes-done")
        await expect(self.page.locator("[data-factor]")).to_have_count(1)

    async def fill_key(self, label: str, *, address: str | None = "8.8.8.8", trade: bool = False) -> None:
        """The form of a new key, up to its button."""
        await self.go("/keys/new")
        await self.page.fill("#label", label)
        if trade:
            await self.page.check("input[name=scopes][value=trade]")
        if address is None:
            await self.page.check("input[name=ip_access][value=unrestricted]")
        else:
            await self.page.fill("#ip-0", address)

    async def proceed(self) -> None:
        """From the form to the summary."""
        await self.page.click("#key-form .primary")
        await expect(self.page.locator("[data-stage=confirm]")).to_be_visible()

    async def prove_by_code(self) -> None:
        await self.page.fill("#totp", self.code())
        await self.page.click("[data-totp] button")

    async def prove_by_passkey(self) -> None:
        await self.page.click("[data-passkey]")

    async def new_secret(self) -> tuple[str, str]:
        """Key id and secret as they are shown."""
        await expect(self.page.locator("[data-stage=secret]")).to_be_visible()
        return await self.page.locator("#new-id").inner_text(), await self.page.locator("#new-secret").inner_text()

    async def leave_secret(self) -> None:
        await self.page.check("#saved")
        await self.page.click("#done")
        await self.page.wait_for_url(self.url + "/keys")

    # -- looks --

    def card(self, label: str) -> Locator:
        return self.page.locator(".card", has=self.page.get_by_role("heading", name=label, exact=True))

    async def findings(self) -> list[str]:
        """What axe-core holds against the page, the serious and the critical."""
        # The policy forbids scripts that are not ours; the debugger's own way in is not bound by it.
        if await self.page.evaluate("window.axe === undefined"):
            await self.page.evaluate(AXE_SCRIPT + "\n;undefined")
        results = await self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{violation['id']}: {violation['help']}: {[node['target'] for node in violation['nodes']]}"
            for violation in results["violations"]
            if violation["impact"] in ("serious", "critical")
        ]

    async def broken_words(self) -> list[str]:
        """Words of buttons, tabs and badges that do not fit on one line."""
        return list(await self.page.evaluate(_BROKEN_WORDS))

    async def width(self) -> int:
        """How wide the page is, whatever the window."""
        return int(await self.page.evaluate("document.documentElement.scrollWidth"))
