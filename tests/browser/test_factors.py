"""Ways to confirm: several of them, with names, removed only with a proof, and codes for the day when the phone is gone."""

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, Dialog, Route, expect

from tests.browser.test_looks import look
from tests.support.pages import Site, Time, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser


async def test_a_second_factor_needs_a_proof_with_the_first(visitor: Visitor):
    await visitor.log_in()
    await visitor.enrol_totp("Ponsel")
    await visitor.plug_in()
    await visitor.page.fill("#passkey-name", "Kunci YubiKey")
    await visitor.page.click("#passkey-form button")
    await expect(visitor.page.locator("#step-up-what")).to_have_text("Menambahkan passkey")
    await visitor.prove_by_code()
    await expect(visitor.page.locator("[data-factor]")).to_have_count(2)
    await expect(visitor.page.locator("[data-factor] strong")).to_have_text(["Ponsel", "Kunci YubiKey"])


async def test_several_passkeys_each_work_and_one_device_holds_only_one(visitor: Visitor):
    await visitor.log_in()
    first = await visitor.plug_in()
    await visitor.enrol_passkey("Satu")
    await visitor.page.fill("#passkey-name", "Lagi")
    await visitor.page.click("#passkey-form button")
    await visitor.prove_by_passkey()
    await expect(visitor.page.locator("#page-error")).to_have_text("Perangkat ini sudah menyimpan passkey untuk akun Anda.")
    await visitor.plug_in(transport="usb")
    await visitor.page.click("#passkey-form button")
    await visitor.prove_by_passkey()
    await expect(visitor.page.locator("[data-factor]")).to_have_count(2)
    for label in ("Dengan yang kedua", "Sekali lagi"):
        if label == "Dengan yang kedua":
            await visitor.unplug(first)
        await visitor.fill_key(label)
        await visitor.proceed()
        await visitor.prove_by_passkey()
        await visitor.new_secret()
        await visitor.leave_secret()


async def test_a_factor_is_removed_with_a_proof_and_the_last_one_stays_while_there_are_keys(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey("Laptop")
    await visitor.fill_key("Bot")
    await visitor.proceed()
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    await visitor.leave_secret()
    await visitor.go("/security")
    await visitor.page.get_by_role("button", name="Hapus Laptop").click()
    await expect(visitor.page.locator("#page-error")).to_contain_text("Ini cara konfirmasi Anda yang terakhir.")
    await visitor.page.click("#totp-form button")
    await visitor.prove_by_passkey()
    await expect(visitor.page.locator("#totp-qr")).to_be_visible()
    visitor.totp_secret = (await visitor.page.locator("#totp-secret").inner_text()).replace(" ", "")
    await visitor.page.fill("#totp-code", visitor.code())
    await visitor.page.click("#totp-confirm button")
    await expect(visitor.page.locator("[data-factor]")).to_have_count(2)
    await visitor.page.get_by_role("button", name="Hapus Laptop").click()
    await expect(visitor.page.locator("#step-up-what")).to_have_text("Menghapus Laptop")
    await visitor.prove_by_code()
    await expect(visitor.page.locator("[data-factor]")).to_have_count(1)


async def test_a_cancelled_proof_changes_nothing(visitor: Visitor):
    await visitor.log_in()
    await visitor.enrol_totp("Ponsel")
    await visitor.page.get_by_role("button", name="Hapus Ponsel").click()
    await visitor.page.click("#cancel-step-up")
    await expect(visitor.page.locator("#step-up-card")).to_be_hidden()
    await visitor.page.reload()
    await expect(visitor.page.locator("[data-factor]")).to_have_count(1)


async def test_a_recovery_code_deletes_a_key_when_the_phone_is_gone_and_works_once(visitor: Visitor):
    await visitor.log_in()
    codes = await visitor.enrol_totp()
    for label in ("Satu", "Dua"):
        await visitor.fill_key(label)
        await visitor.proceed()
        await visitor.prove_by_code()
        await visitor.new_secret()
        await visitor.leave_secret()
    for label in ("Satu", "Dua"):
        await visitor.card(label).get_by_role("link", name="Hapus").click()
        await visitor.page.fill("#label", label)
        await visitor.page.click("#confirm-label .danger")
        await visitor.page.locator("[data-method=recovery_code] summary").click()
        await visitor.page.fill("#recovery", codes[0].lower())
        await visitor.page.click("[data-recovery] button")
        if label == "Satu":
            await visitor.page.wait_for_url(visitor.url + "/keys")
    await expect(visitor.page.locator("#recovery-error")).to_have_text("Kode pemulihan ini sudah dipakai. Gunakan yang lain.")


async def test_recovery_codes_are_renewed_with_a_proof_and_shown_once(visitor: Visitor):
    await visitor.log_in()
    old = await visitor.enrol_totp()
    await visitor.page.click("#renew-codes")
    await visitor.prove_by_code()
    await expect(visitor.page.locator("#recovery-codes li")).to_have_count(10)
    new = await visitor.page.locator("#recovery-codes li").all_inner_texts()
    assert not set(old) & set(new)
    asked: list[str] = []

    async def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.accept()

    visitor.page.on("dialog", leave)
    await visitor.page.reload()
    assert asked == ["beforeunload"], "before they are lost"
    assert new[0] not in await visitor.page.content()


async def test_a_wrong_first_code_is_told_beside_its_field_and_the_enrolment_goes_on(visitor: Visitor):
    await visitor.log_in()
    await visitor.go("/security")
    await visitor.page.click("#totp-form button")
    await expect(visitor.page.locator("#totp-qr")).to_be_visible()
    visitor.totp_secret = (await visitor.page.locator("#totp-secret").inner_text()).replace(" ", "")
    assert await visitor.page.locator("#totp-qr").evaluate("image => image.naturalWidth > 100")
    for typed, told in (("", "Bagian ini harus diisi."), ("12345", "Kode terdiri dari enam angka."), ("000000", "Kodenya salah")):
        await visitor.page.fill("#totp-code", typed)
        await visitor.page.click("#totp-confirm button")
        await expect(visitor.page.locator("#totp-code-error")).to_contain_text(told)
    await visitor.page.fill("#totp-code", visitor.code())
    await visitor.page.click("#totp-confirm button")
    await expect(visitor.page.locator("#recovery-codes li")).to_have_count(10)


async def test_a_name_that_cannot_be_used_is_told_beside_its_field(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.go("/security")
    for form in ("totp", "passkey"):
        await visitor.page.fill(f"#{form}-name", "x\u200b")
        await visitor.page.click(f"#{form}-form button")
        await expect(visitor.page.locator(f"#{form}-name-error")).to_contain_text("Hanya huruf, angka, spasi, dan simbol")
        await expect(visitor.page.locator(f"#{form}-name")).to_be_focused()


async def test_an_answer_moves_no_button_away_that_is_pressed_when_it_comes(visitor: Visitor):
    page, answered = visitor.page, asyncio.Event()
    await visitor.log_in()
    await visitor.enrol_totp("Ponsel")
    await page.get_by_role("button", name="Hapus Ponsel").click()
    await page.fill("#totp", "000000")

    async def later(route: Route) -> None:
        await answered.wait()
        await route.continue_()

    await page.route("**/api/v1/factors/*", later)
    await page.click("[data-totp] button")
    await page.hover("#cancel-step-up")
    await page.mouse.down()
    async with page.expect_response("**/api/v1/factors/*"):
        answered.set()
    await page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done)))")
    await expect(page.locator("#totp-error")).to_be_hidden()
    await page.mouse.up()
    await expect(page.locator("#step-up-card")).to_be_hidden()


@pytest.mark.parametrize("locale", ["id-ID", "en-GB"])
async def test_how_long_a_lock_lasts_is_said_at_the_step_and_who_lost_the_phone_is_helped(
    browser: Browser, site: Site, time: Time, screenshots: Path, locale: str
):
    async with Visitor.on(browser, site.url, time, locale=locale) as visitor:
        page, indonesian = visitor.page, locale == "id-ID"
        await visitor.log_in()
        await visitor.enrol_totp()
        await visitor.fill_key("Bot")
        await visitor.proceed()
        lost = page.locator("[data-step-up] details", has_text="Ponsel hilang?" if indonesian else "Lost your phone?").last
        await lost.locator("summary").click()
        await expect(lost).to_contain_text("kode pemulihan" if indonesian else "recovery code")
        await look(visitor, screenshots, f"lost-phone-{locale}")
        for _ in range(5):
            await page.fill("#totp", "000000")
            await page.click("[data-totp] button")
            await expect(page.locator("#totp-error")).to_be_visible()
        await page.fill("#totp", "000000")
        await page.click("[data-totp] button")
        told = page.locator("#form-error")
        await expect(told).to_have_text(re.compile(r"(30|29|2\d) detik" if indonesian else r"(30|29|2\d) seconds"))
        await look(visitor, screenshots, f"locked-{locale}")
        assert visitor.complaints == []


@pytest.mark.parametrize("locale", ["id-ID", "en-GB"])
async def test_every_sign_in_is_listed_and_the_others_are_ended(browser: Browser, site: Site, time: Time, screenshots: Path, locale: str):
    async with Visitor.on(browser, site.url, time, locale=locale) as visitor, Visitor.on(browser, site.url, time) as other:
        await other.log_in()
        time.advance(2)
        await visitor.log_in(start="/security")
        listed = visitor.page.locator("#sessions li")
        await expect(listed).to_have_count(2)
        await expect(listed.first).to_contain_text("Sesi ini" if locale == "id-ID" else "This sign-in")
        await expect(listed.first).to_contain_text("Chrome · Linux")
        await look(visitor, screenshots, f"sessions-{locale}")
        time.advance(2)
        await visitor.page.get_by_role("button", name="Akhiri semua yang lain" if locale == "id-ID" else "End all others").click()
        await expect(listed).to_have_count(1)
        await expect(visitor.page.get_by_role("status").last).not_to_be_empty()
        await other.page.reload()
        await other.page.wait_for_url("**/login")
        assert visitor.complaints == other.complaints == []
