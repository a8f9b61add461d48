"""What few customers ever see looks right as well: each state of the pages that the usual walk does not come to."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from admin.identity.browser import SESSION_COOKIE
from tests.browser.test_looks import LOOKS, look
from tests.browser.test_owner import own_keys
from tests.browser.test_refusals import PUBLIC_KEY, back_office
from tests.support.pages import DENIED, Site, Time, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser

LANGUAGES = ("id", "en")


@pytest.mark.parametrize("name", LANGUAGES)
async def test_who_may_have_no_key_reads_why_on_a_page_that_fits(browser: Browser, site: Site, time: Time, screenshots: Path, name: str):
    async with Visitor.on(browser, site.url, time, **LOOKS[name]) as visitor:
        page = visitor.page
        await visitor.go("/login?outcome=denied")
        await expect(page.locator(".notice")).to_be_visible()
        await look(visitor, screenshots, f"outcome-{name}")
        await visitor.log_in("unverified")
        await look(visitor, screenshots, f"unverified-{name}")
        await visitor.go("/keys/new")
        await look(visitor, screenshots, f"unverified-create-{name}")
        await page.context.clear_cookies(name=SESSION_COOKIE)
        await visitor.log_in()
        await visitor.plug_in()
        await visitor.enrol_passkey()
        await own_keys(site, 2, time.now_ms())
        await back_office(site, "POST", "/internal/v1/accounts/verified/freeze")
        await visitor.go("/keys")
        await expect(page.locator("#frozen")).to_be_visible()
        await page.locator(".account summary").click()
        await look(visitor, screenshots, f"frozen-{name}")
        await back_office(site, "POST", "/internal/v1/accounts/verified/thaw")
        await back_office(site, "PUT", "/internal/v1/accounts/verified", {"kyc": "revoked"})
        await page.reload()
        await expect(page.locator("#kyc")).to_be_visible()
        await look(visitor, screenshots, f"withdrawn-{name}")
        await back_office(site, "PUT", "/internal/v1/accounts/verified", {"kyc": "verified"})
        await own_keys(site, 29, time.now_ms())
        await visitor.go("/keys/new")
        await expect(page.locator("#key-form")).to_have_count(0)
        await look(visitor, screenshots, f"full-create-{name}")
        assert visitor.complaints == []


@pytest.mark.parametrize("name", LANGUAGES)
async def test_every_turn_of_a_form_fits(browser: Browser, site: Site, time: Time, screenshots: Path, name: str):
    async with Visitor.on(browser, site.url, time, **LOOKS[name]) as visitor:
        page = visitor.page
        await visitor.log_in()
        await visitor.go("/security?next=/keys/new")
        await look(visitor, screenshots, f"first-factor-{name}")
        await visitor.plug_in()
        await page.click("#passkey-form button")
        await expect(page.locator("#new-codes")).to_be_visible()
        await page.evaluate(DENIED + ";undefined")
        await page.click("#copy-codes")
        await expect(page.locator("#toast")).not_to_be_empty()
        await look(visitor, screenshots, f"codes-{name}")
        await page.click("#codes-done")
        await page.wait_for_url("**/keys/new")
        await visitor.fill_key("Bot grid, server rumah", address=None, trade=True)
        await page.locator("#advanced summary").click()
        await page.check("input[name=algorithm][value=ed25519]")
        await page.fill("#public_key", "MCowBQYDK2VwAyEA")
        await page.click("#key-form .primary")
        await expect(page.locator("#public_key-error")).to_be_visible()
        await expect(page.locator("#confirm_unrestricted")).to_be_focused()  # the topmost of what is wrong
        await look(visitor, screenshots, f"warned-{name}")
        await page.fill("#public_key", PUBLIC_KEY)
        await page.check("#confirm_unrestricted")
        await visitor.proceed()
        await look(visitor, screenshots, f"own-pair-summary-{name}")
        await visitor.prove_by_passkey()
        await visitor.new_secret()
        await page.evaluate("for (const part of document.querySelectorAll('#try details')) part.open = true")
        await look(visitor, screenshots, f"own-pair-{name}")
        await page.click("#done")
        await page.wait_for_url(visitor.url + "/keys")
        await page.evaluate(
            "document.querySelector('[data-unseen-label]').textContent = 'Bot'; document.querySelector('#unseen').hidden = false"
        )
        await look(visitor, screenshots, f"unseen-{name}")
        await page.get_by_role("link", name=re.compile("^(Hapus|Delete) Bot grid")).click()
        await page.fill("#label", "Bot grid, server rumah")
        await page.click("#confirm-label .danger")
        await expect(page.locator("#confirm-step")).to_be_visible()
        await look(visitor, screenshots, f"delete-step-{name}")
        await page.context.add_init_script("delete window.PublicKeyCredential")
        await visitor.go("/security")
        await expect(page.locator("#passkey-form")).to_be_hidden()
        await look(visitor, screenshots, f"no-passkeys-{name}")
        assert visitor.complaints == []
