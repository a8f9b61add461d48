"""What an owner of keys reads and is spared: the words of the exchange's own article, entries that survive, lists that stay short."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Request, Route, expect

from admin.identity.browser import SESSION_COOKIE
from gateway.keys import store
from gateway.keys.ids import new_key_id, new_secret
from gateway.keys.postgres import connect
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.vault import Vault
from tests.browser.test_looks import look
from tests.support.pages import DESKTOP, SMALL, Site, Time, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser

FAMILY = "Bot \U0001f469\u200d\U0001f4bb \u2764\ufe0f\u200d\U0001f525"


async def own_keys(site: Site, count: int, now_ms: int) -> list[str]:
    """So many keys of the demo account, straight into the store: the form has tests of its own."""
    connection = await connect(site.settings.stores.postgres.get_secret_value())
    ids = [new_key_id() for _ in range(count)]
    try:
        for index, key_id in enumerate(ids):
            record = KeyRecord(
                key_id=key_id,
                account_id="verified",
                label=f"Bot {index:02}",
                scopes=frozenset({Scope.READ}),
                algorithm=Algorithm.HMAC_SHA256,
                secret=new_secret(),
                public_key=None,
                ip_allowlist=None,
                created_ms=now_ms + index,
                expires_ms=now_ms + 86_400_000 if index == 0 else None,
                frozen=False,
            )
            await store.insert(connection, record, Vault.parse(site.settings.vault.keys.get_secret_value()))
        await store.revoke(connection, ids[1], reason="Dilaporkan oleh pemilik", now_ms=now_ms)
    finally:
        await connection.close()
    return ids


@pytest.mark.parametrize("locale", ["id-ID", "en-GB"])
async def test_the_article_is_walked_in_its_own_words(browser: Browser, site: Site, time: Time, locale: str):
    async with Visitor.on(browser, site.url, time, locale=locale) as visitor:
        page = visitor.page
        await visitor.log_in()
        create = "Buat API" if locale == "id-ID" else "Create API"
        await expect(page.get_by_role("heading", level=1)).to_have_text("API Management")
        button = page.get_by_role("button", name=create)
        await expect(button).to_have_attribute("aria-disabled", "true")
        await expect(page.locator("#why-not")).to_contain_text("2FA")
        await expect(page.locator(".head .lead")).to_contain_text("tidak dapat menarik dana" if locale == "id-ID" else "can withdraw")
        await visitor.plug_in()
        await page.locator(".notice .button").click()
        await page.fill("#passkey-name", "Laptop")
        await page.click("#passkey-form button")
        await expect(page.locator("#new-codes")).to_be_visible()
        await expect(page.locator("#first-steps, #factors-card, #codes-card, #add-totp").filter(visible=True)).to_have_count(0)
        await page.click("#codes-done")
        await page.wait_for_url("**/keys/new")
        form = page.locator("#key-form")
        for word in ("Read Only", "Spot Trading", "Whitelisted IP", "Unrestricted"):
            await expect(form.locator(".label", has_text=word)).to_be_visible()
        await expect(form).to_contain_text("hanya baca" if locale == "id-ID" else "Only reads", ignore_case=True)
        await expect(page.locator("#ip-command")).to_have_text(f"curl -sS {site.settings.pages.gateway_url}/gateway/v1/ip")
        await page.fill("#label", FAMILY)
        await page.fill("#ip-0", "8.8.8.8")
        await visitor.proceed()
        await expect(page.get_by_role("heading", name="2FA")).to_be_visible()
        await visitor.prove_by_passkey()
        await visitor.new_secret()
        await expect(page.get_by_role("heading", name="API Key", exact=True)).to_be_visible()
        await expect(page.get_by_role("heading", name="Secret Key", exact=True)).to_be_visible()
        await visitor.leave_secret()
        await expect(visitor.card(FAMILY)).to_contain_text("Belum pernah" if locale == "id-ID" else "Never used")
        assert "gerbang" not in (await page.locator("body").inner_text()).lower()
        assert "gerbang" not in (await page.title()).lower()
        assert visitor.complaints == []


async def test_entries_survive_the_way_back_another_language_and_a_login(visitor: Visitor):
    page = visitor.page
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("x" * 70, address="8.8.8.8", trade=True)
    await page.click("#key-form .primary")
    await expect(page.locator("#label-error")).to_be_visible()
    assert len(await page.input_value("#label")) == 70, "never cut silently"
    await page.fill("#label", "Bot grid")
    await expect(page.locator("#label-error")).to_be_hidden()

    async def kept() -> None:
        await expect(page.locator("#label")).to_have_value("Bot grid")
        await expect(page.locator("#ip-0")).to_have_value("8.8.8.8")
        await expect(page.locator("input[name=scopes][value=trade]")).to_be_checked()

    await visitor.go("/activity")
    await page.go_back()
    await kept()
    await page.get_by_role("button", name="English").click()
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    await kept()
    await page.context.clear_cookies(name=SESSION_COOKIE)
    await page.click("#key-form .primary")
    await page.get_by_role("link", name="exchange account").click()
    await page.locator("button[value=verified]").click()
    await page.wait_for_url(visitor.url + "/keys/new")
    await kept()
    assert await page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })") == "{}"


async def test_a_key_whose_answer_was_lost_is_found_in_the_list_and_deleted(visitor: Visitor):
    page = visitor.page
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("Bot", address=None, trade=True)
    await expect(page.locator("#expires_in_days")).to_have_value("90")
    await page.check("#confirm_unrestricted")
    await visitor.proceed()

    lost: list[Request] = []

    async def lose(route: Route) -> None:
        await expect(page.locator("[data-passkey]")).to_have_text("Memproses…")
        lost.append(route.request)
        await route.abort()

    await page.route("**/api/v1/keys", lose)
    await visitor.prove_by_passkey()
    await expect(page.locator("#form-error")).to_contain_text("tidak dapat dihubungi")
    await page.unroute("**/api/v1/keys")
    visitor.complaints.clear()
    await visitor.go("/keys")  # before the service has made it
    await expect(page.locator("#unseen")).to_be_hidden()
    made = await page.request.post(lost[0].url, data=lost[0].post_data, headers=lost[0].headers)
    assert made.status == 201
    await page.reload()
    await expect(page.locator("#unseen")).to_contain_text("“Bot” sudah dibuat")
    await page.locator("[data-unseen-delete]").click()
    await page.fill("#label", "Bot")
    await page.click("#confirm-label .danger")
    await expect(page.locator("[data-step-up] .more", has_text="Ponsel hilang?")).to_be_visible()
    await visitor.prove_by_passkey()
    await page.wait_for_url(visitor.url + "/keys")
    await expect(page.get_by_role("status").last).to_contain_text("sudah dihapus")
    assert await page.evaluate("JSON.stringify({ ...sessionStorage })") == "{}"


WINDOWS = {"id": (SMALL, "id-ID"), "en": (DESKTOP, "en-GB")}


@pytest.mark.parametrize("name", WINDOWS)
async def test_thirty_keys_are_searched_and_turned(browser: Browser, site: Site, time: Time, screenshots: Path, name: str):
    viewport, locale = WINDOWS[name]
    async with Visitor.on(browser, site.url, time, locale=locale, viewport=viewport) as visitor:
        page = visitor.page
        await visitor.log_in()
        await visitor.plug_in()
        await visitor.enrol_passkey()
        ids = await own_keys(site, 29, time.now_ms())
        await visitor.go("/keys")
        cards = page.locator("#keys > li:visible")
        await expect(cards).to_have_count(10)
        await expect(cards.first.locator(".facts")).to_be_hidden()
        await expect(cards.first).to_contain_text(re.compile("Read Only · Unrestricted · (Belum pernah|Never used)"))
        await expect(cards.first.locator(".key-id code")).to_have_text(ids[-1])
        await look(visitor, screenshots, f"many-{name}")
        await page.locator("[data-turn='1']").click()
        await expect(page.locator("#page-of")).to_contain_text("2")
        await page.fill("#search-for", "bot 01")
        await expect(cards).to_have_count(1)
        await expect(cards).to_contain_text("Dilaporkan oleh pemilik")
        await page.fill("#search-for", ids[0])
        await expect(cards.locator(".soon")).to_be_visible()
        await cards.locator("summary").first.click()
        await look(visitor, screenshots, f"found-{name}")
        await cards.get_by_role("link", name=re.compile("Buat ulang|Make Bot")).click()
        await expect(page.locator("#label")).to_have_value("Bot 00")
        await expect(page.locator("#expires_in_days")).to_have_value("1")
        await expect(page.locator("input[name=ip_access][value=unrestricted]")).to_be_checked()
        await visitor.go(f"/security?from={ids[0]}")
        await page.click("#totp-form button")
        await visitor.prove_by_passkey()
        await expect(page.locator("#totp-link")).to_have_attribute("href", re.compile("^otpauth://totp/"))
        await look(visitor, screenshots, f"enrol-{name}")
        assert visitor.complaints == []
