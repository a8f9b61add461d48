"""The form of a new key: every error beside its field in the chosen language, addresses checked while they are typed, dangers named."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from admin.pages import texts
from admin.pages.i18n import load_languages
from tests.support.pages import Site, Time, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser

ERRORS = {code: texts.field_errors(language.translations.gettext) for code, language in load_languages().items()}
PRIVATE = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----"
WEAK = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----"


@pytest_asyncio.fixture(loop_scope="session", params=["id-ID", "en-GB"])
async def customer(request: pytest.FixtureRequest, browser: Browser, site: Site, time: Time) -> AsyncIterator[Visitor]:
    """In each language, with a factor."""
    async with Visitor.on(browser, site.url, time, locale=request.param) as visitor:
        await visitor.log_in()
        await visitor.plug_in()
        await visitor.enrol_passkey()
        yield visitor
    assert visitor.complaints == []


async def said(visitor: Visitor, code: str) -> str:
    """The sentence of the page's language."""
    return ERRORS[str(await visitor.page.locator("html").get_attribute("lang"))][code]


async def test_every_error_stands_beside_its_field_and_the_first_is_gone_to(customer: Visitor):
    await customer.fill_key("   ", address="192.168.1.10")
    await customer.page.uncheck("input[name=scopes][value=read]")
    await customer.page.click("#add-address")
    await customer.page.fill("#ip-1", "1.2.3")
    await customer.page.click("#add-address")
    await customer.page.fill("#ip-2", "8.8.8.8")
    await customer.page.locator("#advanced summary").click()
    await customer.page.check("input[name=algorithm][value=ed25519]")
    await customer.page.fill("#public_key", PRIVATE)
    await customer.page.click("#key-form .primary")
    for place, code in (
        ("#label-error", "label.required"),
        ("#scopes-error", "scopes.required"),
        ("#ip-0-error", "not_public"),
        ("#ip-1-error", "not_an_address"),
        ("#public_key-error", "private_key"),
    ):
        await expect(customer.page.locator(place)).to_have_text(await said(customer, code))
    await expect(customer.page.locator("#ip-2-error")).to_be_hidden()
    await expect(customer.page.locator("#form-error")).to_be_hidden()
    await expect(customer.page.locator("#label")).to_be_focused()
    for field in ("#label", "#ip-0", "#ip-1", "#public_key"):
        await expect(customer.page.locator(field)).to_have_attribute("aria-invalid", "true")
        described = str(await customer.page.locator(field).get_attribute("aria-describedby")).split()
        assert f"{field[1:]}-error" in described, "read out with the field"


RULES: list[tuple[dict[str, str], str, str]] = [
    ({"#label": "x\u200b"}, "#label-error", "not_printable"),
    ({"#ip-0": ""}, "#ip_allowlist-error", "ip_allowlist.required"),
    ({"#ip-1": "8.8.8.8"}, "#ip-1-error", "duplicate"),
    ({"#ip-0": "", "#ip-1": "fe80::1"}, "#ip-1-error", "not_public"),
    ({"ed25519": ""}, "#public_key-error", "public_key.required"),
    ({"ed25519": "nonsense"}, "#public_key-error", "not_a_public_key"),
    ({"ed25519": WEAK}, "#public_key-error", "weak_key"),
    ({"rsa-sha256": WEAK}, "#public_key-error", "wrong_key_type"),
]


async def test_each_rule_has_its_sentence(customer: Visitor):
    for fields, place, code in RULES:
        await customer.fill_key("Bot", address="8.8.8.8")
        for field, value in fields.items():
            if field == "#ip-1":
                await customer.page.locator("#ip-1").evaluate("input => (input.closest('li').hidden = false)")
            if field.startswith("#"):
                await customer.page.fill(field, value)
            else:
                await customer.page.locator("#advanced").evaluate(
                    "details => (details.open = true)"
                )  # the form may remember the last round
                await customer.page.check(f"input[name=algorithm][value={field}]")
                await customer.page.fill("#public_key", value)
        await customer.page.click("#key-form .primary")
        await expect(customer.page.locator(place)).to_have_text(await said(customer, code))


async def test_an_address_is_checked_when_it_is_left(customer: Visitor):
    await customer.fill_key("Bot", address="10.0.0.1")
    await customer.page.keyboard.press("Tab")
    await expect(customer.page.locator("#ip-0-error")).to_have_text(await said(customer, "not_public"))
    await customer.page.fill("#ip-0", "8.8.8.8")
    await customer.page.keyboard.press("Tab")
    await expect(customer.page.locator("#ip-0-error")).to_be_hidden()


async def test_an_error_that_appears_moves_no_button_away_while_it_is_pressed(customer: Visitor):
    await customer.fill_key("Bot", address="10.0.0.1")
    button = customer.page.locator("#add-address")
    await button.scroll_into_view_if_needed()
    await button.hover()
    async with customer.page.expect_response("**/keys/check-addresses"):
        await customer.page.mouse.down()
    await customer.page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done)))")
    await expect(customer.page.locator("#ip-0-error")).to_be_hidden()
    await customer.page.mouse.up()
    await expect(customer.page.locator("#ip-1")).to_be_focused()
    await expect(customer.page.locator("#ip-0-error")).to_have_text(await said(customer, "not_public"))


async def test_unrestricted_trading_is_warned_of_and_asked_about(customer: Visitor):
    await customer.fill_key("Bot", address=None)
    warning = customer.page.locator("#unrestricted-trading")
    await expect(warning).to_be_hidden()
    await customer.page.check("input[name=scopes][value=trade]")
    await expect(warning).to_be_visible()
    await customer.page.click("#key-form .primary")
    await expect(customer.page.locator("#confirm_unrestricted-error")).to_have_text(await said(customer, "confirm_unrestricted"))
    await expect(customer.page.locator("#confirm_unrestricted")).to_be_focused()
    await customer.page.check("#confirm_unrestricted")
    await customer.proceed()
    await expect(customer.page.locator("#summary-danger")).to_be_visible()
    await customer.prove_by_passkey()
    await customer.new_secret()
    await customer.leave_secret()


async def test_rows_of_addresses_come_and_go(customer: Visitor):
    await customer.fill_key("Bot", address="8.8.8.8")
    rows = customer.page.locator(".address-rows > li:visible")
    await expect(rows).to_have_count(1)
    for index in (1, 2):
        await customer.page.click("#add-address")
        await customer.page.fill(f"#ip-{index}", f"8.8.4.{index}")
    await expect(customer.page.locator("#add-address")).to_be_hidden()
    await rows.nth(0).locator("[data-clear-address]").click()
    await expect(rows).to_have_count(2)
    await expect(customer.page.locator("#ip-0")).to_have_value("8.8.4.1")
    await customer.proceed()
    await expect(customer.page.locator("[data-summary=ip] dd")).to_have_text("8.8.4.1, 8.8.4.2")
    await customer.page.click("#edit")
    await expect(customer.page.locator("#label")).to_have_value("Bot")


async def test_the_present_address_is_entered_or_it_is_said_why_not(browser: Browser, site: Site, time: Time, visitor: Visitor):
    await visitor.log_in()
    await visitor.enrol_totp()
    await visitor.go("/keys/new")
    await visitor.page.click("#use-current")
    await expect(visitor.page.locator("#current-note")).to_have_text(re.compile(r"127\.0\.0\.1, bukan alamat IP publik"))
    await expect(visitor.page.locator("#ip-0")).to_have_value("")


async def test_the_language_is_switched_and_kept_with_the_account(browser: Browser, site: Site, time: Time, visitor: Visitor):
    await visitor.log_in()
    await expect(visitor.page.locator("html")).to_have_attribute("lang", "id")
    await visitor.go("/security")
    await visitor.page.get_by_role("button", name="English").click()
    await visitor.page.wait_for_url(site.url + "/security")
    await expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Security")
    async with Visitor.on(browser, site.url, time, locale="id-ID") as elsewhere:
        await elsewhere.log_in()
        await expect(elsewhere.page.locator("html")).to_have_attribute("lang", "en")
    async with Visitor.on(browser, site.url, time, locale="en-US") as stranger:
        await stranger.go("/login")
        await expect(stranger.page.locator("html")).to_have_attribute("lang", "en")
        await stranger.page.get_by_role("button", name="Bahasa Indonesia").click()
        await expect(stranger.page.locator("html")).to_have_attribute("lang", "id")
        assert stranger.complaints == []
