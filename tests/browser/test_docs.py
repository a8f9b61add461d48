"""The guide in a browser: seen on a phone and on a desktop, in both languages, and the page that tries the API."""

from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.pages import DESKTOP, PHONE, SMALL, Visitor, running_site

pytestmark = pytest.mark.asyncio(loop_scope="session")
CONFIG = Path(__file__).parents[2] / "config" / "gateway.toml"


@pytest_asyncio.fixture(loop_scope="session")
async def docs(database, redis_url, time):
    async with running_site(database, redis_url, docs={"gateway_config": str(CONFIG)}) as site:
        yield site


@pytest.mark.parametrize("viewport", [SMALL, PHONE, DESKTOP], ids=["320", "390", "1280"])
async def test_the_guide_is_read_by_everybody_without_a_login(browser, docs, time, viewport, tmp_path):
    async with Visitor.on(browser, docs.url, time, viewport=viewport) as visitor:
        for language in ("id", "en"):
            for page in ("", "/api"):
                await visitor.go(f"/docs/{language}{page}")
                await visitor.page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
                await visitor.page.screenshot(path=tmp_path / f"{language}{page.replace('/', '-')}.png")
                assert await visitor.width() <= viewport["width"], f"/docs/{language}{page} scrolls sideways"
                assert await visitor.findings() == []
        assert visitor.complaints == []


async def test_an_operation_is_tried_as_whoever_is_signed_in_or_by_the_token_alone(browser, docs, time):
    async with Visitor.on(browser, docs.url, time, locale="en-GB") as visitor:
        await visitor.go("/docs/en/api")
        await expect(visitor.page.get_by_text("You are signed in.")).to_be_hidden()
        assert "unauthenticated" in await tried(visitor, "/api/v1/account")
        await visitor.log_in()
        await visitor.go("/docs/en/api")
        await expect(visitor.page.get_by_text("You are signed in.")).to_be_visible()
        assert '"kyc": "verified"' in await tried(visitor, "/api/v1/account")
        assert "factor_required" in await tried(visitor, "/api/v1/step-up"), "an unsafe call carries the session's CSRF token"
        await visitor.page.get_by_label("Bearer token").fill("of.nobody.here")
        assert "unauthenticated" in await tried(visitor, "/api/v1/account"), "the session does not stand in for a bad token"
        assert visitor.complaints == []


async def tried(visitor, path):
    """What an operation's form shows when it is sent as it stands."""
    await visitor.page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    form = visitor.page.locator(f"form:has(input[value='{path}'])").first
    await form.locator("pre").evaluate("shown => { shown.textContent = '' }")
    await form.get_by_role("button", name="Send").click()
    await expect(form.locator("pre")).not_to_be_empty()
    return await form.locator("pre").text_content()
