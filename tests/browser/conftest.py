"""The pages in Debian's Chromium: a browser, the admin service with real stores, and the demo identity provider.

Without a browser these tests are skipped and say so; under CI they fail instead.
"""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from gateway.runtime import clock
from tests.support.lacking import lacking
from tests.support.pages import PATIENCE_MS, Site, Time, Visitor, running_site

_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_HOW = "no Chromium on this machine: the pages are NOT tested. Install it with: apt-get install chromium"


expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300))


def chromium() -> str:
    """Where the system's browser is."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        lacking(_HOW)
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = chromium()
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        yield running
        await running.close()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The clock of the service, to be put forward: a code of an authenticator app works once in its half minute."""
    time = Time(clock.now_ms)
    monkeypatch.setattr(clock, "now_ms", time.now_ms)
    return time


@pytest_asyncio.fixture(loop_scope="session")
async def site(database, redis_url: str, time: Time) -> AsyncIterator[Site]:
    async with running_site(database, redis_url) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(browser: Browser, site: Site, time: Time) -> AsyncIterator[Visitor]:
    """A customer on a phone, in Indonesian; whatever the browser complained about fails the test."""
    async with Visitor.on(browser, site.url, time) as visitor:
        yield visitor
    assert visitor.complaints == []


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: beside these tests when GERBANG_SCREENSHOTS=keep, else away."""
    if os.environ.get("GERBANG_SCREENSHOTS") == "keep":
        folder = Path(__file__).parent / "screenshots"
        folder.mkdir(exist_ok=True)
        return folder
    return tmp_path_factory.mktemp("screenshots")
