"""How the pages are to look at, to hear and to reach: small and large, light and dark, by keyboard alone, without scripts."""

import re
from pathlib import Path
from typing import Any

import pytest
import redis
from playwright.async_api import Browser, expect

from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter
from gateway.telemetry import Metrics
from tests.support.pages import DESKTOP, PHONE, SMALL, Site, Time, Visitor

SIZES = (SMALL, PHONE, DESKTOP)

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser

PLACES = ("/keys", "/keys/new", "/security", "/activity")


async def furnish(visitor: Visitor, site: Site) -> None:
    """The account gets a passkey, two keys, and a day of requests."""
    await visitor.plug_in()
    await visitor.enrol_passkey("Laptop Budi")
    for label, address, trade in (("Pelacak portofolio", None, False), ("Bot grid, server rumah", "182.253.10.7", True)):
        await visitor.fill_key(label, address=address, trade=trade)
        await visitor.proceed()
        await visitor.prove_by_passkey()
        await visitor.new_secret()
        await visitor.leave_secret()
    await use(visitor, site)


async def use(visitor: Visitor, site: Site) -> None:
    """What the gateway would have counted for each key."""
    key_ids = await visitor.page.locator("[data-key]").evaluate_all("cards => cards.map((card) => card.dataset.key)")
    async with redis.asyncio.Redis.from_url(site.settings.stores.redis.get_secret_value()) as client:
        counts = UsageCounts()
        writer = UsageWriter(counts, client, Metrics())
        for hour in range(23, -1, -1):
            at_ms = visitor.time.now_ms() - hour * 3_600_000
            for key_id in key_ids:
                for _ in range(40 + hour * 37 % 60):
                    counts.admitted(key_id, "182.253.10.7", at_ms)
                for _ in range(12 if hour in (3, 4, 11) else 0):
                    counts.refused(key_id, "ip_not_allowed", "36.70.1.9", at_ms, "GET /v1/markets/{symbol}/bid-ask-price")
            await writer.flush(at_ms, everything=True)


async def look(visitor: Visitor, folder: Path, name: str) -> None:
    """A picture, and what no size of window must show: sideways scrolling, a word cut in two, or anything that axe-core finds."""
    before = visitor.page.viewport_size
    assert before is not None
    state, _, rest = name.partition("-")
    for size in SIZES:
        await visitor.page.set_viewport_size(size)  # type: ignore[arg-type]  # a dict of its shape
        await visitor.page.evaluate("scrollTo(0, 0)")
        if size == before:
            await visitor.page.screenshot(path=folder / f"{state}-{size['width']}-{rest}.png", full_page=True)
        assert await visitor.width() <= size["width"], f"{name} scrolls sideways at {size['width']} px"
        assert await visitor.findings() == [], f"{name} at {size['width']} px"
        assert await visitor.broken_words() == [], f"{name} at {size['width']} px"
    await visitor.page.set_viewport_size(before)


LOOKS: dict[str, dict[str, Any]] = {
    "id": {"locale": "id-ID", "viewport": PHONE},
    "en": {"locale": "en-GB", "viewport": DESKTOP},
    "id-dark": {"locale": "id-ID", "viewport": SMALL, "color_scheme": "dark"},
}


@pytest.mark.parametrize("name", LOOKS)
async def test_every_page_fits_and_has_no_serious_finding(browser: Browser, site: Site, time: Time, screenshots: Path, name: str):
    async with Visitor.on(browser, site.url, time, **LOOKS[name]) as visitor:
        await visitor.go("/login")
        await look(visitor, screenshots, f"login-{name}")
        await visitor.log_in()
        await look(visitor, screenshots, f"empty-{name}")
        await furnish(visitor, site)
        await visitor.go("/keys")
        await look(visitor, screenshots, f"list-{name}")
        await visitor.page.locator(".refused summary").first.click()
        await look(visitor, screenshots, f"refusals-{name}")
        await visitor.go("/no/such/page")
        await look(visitor, screenshots, f"lost-{name}")
        await visitor.go("/security")
        await expect(visitor.page.locator("#sessions li")).to_have_count(1)
        await visitor.page.click("#totp-form button")
        await expect(visitor.page.locator("#step-up-card")).to_be_visible()
        await visitor.page.evaluate("for (const more of document.querySelectorAll('#step-up-card details')) more.open = true")
        await look(visitor, screenshots, f"step-up-{name}")
        await visitor.prove_by_passkey()
        await expect(visitor.page.locator("#totp-qr")).to_be_visible()
        await look(visitor, screenshots, f"factors-{name}")
        await visitor.go("/activity")
        await look(visitor, screenshots, f"activity-{name}")
        await visitor.fill_key("Bot DCA mingguan", address="182.253.10.7", trade=True)
        await visitor.page.locator("#advanced summary").click()
        await look(visitor, screenshots, f"create-{name}")
        await visitor.proceed()
        await look(visitor, screenshots, f"summary-{name}")
        await visitor.prove_by_passkey()
        await visitor.new_secret()
        await look(visitor, screenshots, f"secret-{name}")
        await visitor.leave_secret()
        await visitor.page.get_by_role("link", name=re.compile("^(Hapus|Delete) Bot DCA mingguan")).click()
        await look(visitor, screenshots, f"delete-{name}")
        await visitor.fill_key("", address="10.0.0.1")
        await visitor.page.click("#key-form .primary")
        await expect(visitor.page.locator("#label-error")).to_be_visible()
        await look(visitor, screenshots, f"errors-{name}")
        assert visitor.complaints == []


async def test_a_key_is_created_by_keyboard_alone(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.go("/keys")
    page = visitor.page

    async def tab_to(selector: str) -> None:
        """As often as it takes; what has the focus is always seen."""
        for _ in range(40):
            await page.keyboard.press("Tab")
            outlined = await page.evaluate(
                "(() => { const style = (e) => getComputedStyle(e).outlineStyle; const at = document.activeElement;"
                " return [at, at.closest('.choice')].filter(Boolean).some((e) => style(e) !== 'none') })()"
            )
            assert outlined, await page.evaluate("document.activeElement.outerHTML")
            if await page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(selector)

    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("Enter")
    await tab_to("a[href='/keys/new']")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/keys/new")
    await tab_to("#label")
    await page.keyboard.type("Papan tik")
    await tab_to("input[name=scopes][value=trade]")
    await page.keyboard.press("Space")
    await tab_to("input[name=ip_access]:checked")
    await page.keyboard.press("ArrowDown")
    await tab_to("#confirm_unrestricted")
    await page.keyboard.press("Space")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-stage=confirm] h1")).to_be_focused()
    await tab_to("[data-passkey]")
    await page.keyboard.press("Enter")
    await expect(page.locator("[data-stage=secret] h1")).to_be_focused()
    await tab_to("#saved")
    await page.keyboard.press("Space")
    await tab_to("#done")
    await page.keyboard.press("Enter")
    await expect(visitor.card("Papan tik")).to_be_visible()


async def test_without_scripts_the_list_is_read_and_the_rest_is_explained(browser: Browser, site: Site, time: Time, visitor: Visitor):
    await visitor.log_in()
    await furnish(visitor, site)
    state = await visitor.page.context.storage_state()
    async with Visitor.on(browser, site.url, time, java_script_enabled=False, storage_state=state) as plain:
        await plain.go("/keys")
        card = plain.card("Bot grid, server rumah")
        await expect(card.locator(".facts")).to_contain_text("WIB")
        await expect(card.locator("figure")).to_contain_text("diizinkan")
        await plain.go("/keys/new")
        # The debugger's way of turning scripts off leaves <noscript> unrendered; that it is there is what can be seen.
        assert "memerlukan JavaScript" in str(await plain.page.locator("noscript").text_content())


async def test_a_screen_reader_hears_what_the_chart_shows_and_where_it_is(visitor: Visitor, site: Site):
    await visitor.log_in()
    await furnish(visitor, site)
    await visitor.go("/keys")
    chart = visitor.card("Pelacak portofolio").get_by_role("img")
    await expect(chart).to_have_attribute("aria-label", "Permintaan dalam 24 jam terakhir: 1.632 diizinkan, 36 ditolak.")
    await expect(visitor.page.get_by_role("navigation", name="Utama").get_by_role("link", name="API Key")).to_have_attribute(
        "aria-current", "page"
    )
    await visitor.page.get_by_role("button", name="Salin API Key Pelacak portofolio").click()
    await expect(visitor.page.get_by_role("status")).not_to_be_empty()


async def test_nothing_is_loaded_from_elsewhere_and_nothing_inline_runs(visitor: Visitor, site: Site):
    hosts: set[str] = set()
    visitor.page.on("request", lambda request: hosts.add(request.url.split("/")[2] if request.url.startswith("http") else ""))
    await visitor.log_in()
    await furnish(visitor, site)
    for place in PLACES:
        await visitor.go(place)
    provider = site.settings.oidc.issuer.split("/")[2]
    assert hosts - {"", provider} == {visitor.url.split("/")[2]}
    assert await visitor.page.evaluate("document.querySelectorAll('[style], style, script:not([src]):not([type$=json])').length") == 0
    visitor.complaints.clear()
    for injection in ("document.createElement('script').src = 'data:,window.ran=1'", "document.body.innerHTML = '<p onclick=x()>'"):
        refused = await visitor.page.evaluate(f"(() => {{ try {{ {injection} }} catch (error) {{ return error.name }} }})()")
        assert refused == "TypeError"
    assert len(visitor.complaints) == 2, "and the browser says so"
    visitor.complaints.clear()
