"""The pages and the gate together, in one real ``gerbang up``: what a page hands out works, and what it deletes is dead."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from gateway.runtime import clock
from tests.support.bot import Bot
from tests.support.pages import Time, Visitor
from tests.support.ports import free_row
from tests.support.system import GERBANG, System

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser

ORDER = {"symbol": "BTC-IDR", "side": "buy", "type": "limit", "price": "900000000", "quantity": "0.001"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    running = System(tmp_path_factory.mktemp("gate") / "data", free_row())
    await asyncio.to_thread(running.start)
    yield running
    await asyncio.to_thread(running.end)


@pytest_asyncio.fixture(loop_scope="session")
async def customer(browser: Browser, system: System) -> AsyncIterator[Visitor]:
    """Opens the address of the ``ready:`` line; ends up at the name that passkeys need."""
    async with Visitor.on(browser, system.admin_url.replace("127.0.0.1", "localhost"), Time(clock.now_ms)) as visitor:
        await visitor.page.goto(system.admin_url)
        await visitor.page.wait_for_url(visitor.url + "/login")
        yield visitor
    assert visitor.complaints == []


async def create(customer: Visitor, label: str, *, address: str | None) -> dict[str, str]:
    await customer.fill_key(label, address=address, trade=True)
    if address is None:
        await customer.page.check("#confirm_unrestricted")
    await customer.proceed()
    await customer.prove_by_passkey()
    key_id, secret = await customer.new_secret()
    return {"key_id": key_id, "secret": secret}


async def test_a_key_made_on_the_page_trades_through_the_gate_until_it_is_deleted_there(customer: Visitor, system: System, tmp_path: Path):
    await customer.log_in("budi")
    await customer.plug_in()
    await customer.enrol_passkey()
    key = await create(customer, "Bot", address=None)
    async with customer.page.expect_download() as download:
        await customer.page.click("#download")
    downloaded = await download.value
    file = tmp_path / downloaded.suggested_filename
    await downloaded.save_as(file)
    for place, *program in (
        ("example", "bash", "-c"),
        ("example-python", sys.executable, "-c"),
        ("example-node", "node", "--input-type=module", "-e"),
    ):
        example = str(await customer.page.locator(f"#{place}").text_content())
        assert key["secret"] not in example
        shown = await asyncio.to_thread(subprocess.run, [*program, example], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert json.loads(shown.stdout)["label"] == "Bot", "each example of the page runs as it stands"
    call = [GERBANG, "call", "GET", f"{system.gateway_url}/v1/wallets", "--key", str(file)]
    await asyncio.to_thread(subprocess.run, call, check=True, capture_output=True)
    await customer.leave_secret()
    with Bot(system.gateway_url, key) as bot:
        assert bot.call("GET", "/v1/wallets").status == 200
        assert bot.call("POST", "/v1/orders", ORDER).status in (200, 201)
        await customer.card("Bot").get_by_role("link", name="Hapus").click()
        await customer.page.fill("#label", "Bot")
        await customer.page.click("#confirm-label .danger")
        await customer.prove_by_passkey()
        await customer.page.wait_for_url(customer.url + "/keys")
        await expect(customer.card("Bot")).to_have_count(0)
        bot.becomes("invalid_credentials")  # on the connection that was open all the time


async def test_what_the_gate_allows_and_refuses_is_seen_on_the_page(customer: Visitor, system: System):
    await customer.log_in("siti")
    await customer.plug_in()
    await customer.enrol_passkey()
    listed = await create(customer, "Dari rumah", address="8.8.8.8")
    await customer.leave_secret()
    free = await create(customer, "Bebas", address=None)
    await customer.leave_secret()
    with Bot(system.gateway_url, listed) as bot:
        assert bot.call("GET", "/v1/wallets").code == "ip_not_allowed"
    with Bot(system.gateway_url, free) as bot:
        assert bot.call("GET", "/v1/wallets").status == 200

    async def reloaded() -> None:  # the gate writes its counts every few seconds
        await customer.go("/keys")
        await expect(customer.card("Dari rumah").locator("details.refused")).to_have_count(1, timeout=500)
        await expect(customer.card("Bebas").locator("figure")).to_have_count(1, timeout=500)

    await eventually(reloaded)
    await customer.card("Dari rumah").locator(".refused summary").click()
    refusal = customer.card("Dari rumah").locator(".refusals li")
    await expect(refusal).to_contain_text("127.0.0.1")
    await expect(refusal).to_contain_text("Alamat IP tidak ada di daftar kunci ini")
    await expect(refusal).to_contain_text("alamat IP inilah yang perlu didaftarkan")
    await expect(customer.card("Bebas").locator(".facts")).to_contain_text("dari 127.0.0.1")
    await expect(customer.card("Bebas").locator("figure")).to_contain_text("1 diizinkan")


async def test_no_secret_of_a_page_is_in_any_log(customer: Visitor, system: System):
    await customer.log_in("dewi")
    await customer.plug_in()
    await customer.enrol_passkey()
    key = await create(customer, "Rahasia", address=None)
    await customer.leave_secret()
    logs = logged(system)
    assert "key_created" in logs
    assert key["secret"] not in logs


def logged(system: System) -> str:
    """Everything that every process has written."""
    files = [path.read_text(errors="replace") for path in Path(system.folder).rglob("*.log*")]
    return "\n".join([*files, *system.output])


async def eventually(check, *, seconds: float = 60) -> None:
    """Until it holds, or the time is over and it says why not."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await check()
            except AssertionError:
                await asyncio.sleep(0.5)
