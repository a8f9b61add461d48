"""The life of a key in a real browser: created with each factor, its secret seen once, deleted."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Locator, expect

from admin.identity.browser import SESSION_COOKIE
from tests.support.pages import DENIED, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser


async def test_log_in_enrol_an_app_and_create_a_key_with_a_code(visitor: Visitor):
    await visitor.log_in()
    await expect(visitor.page.get_by_role("heading", name="API Management")).to_be_visible()
    await expect(visitor.page.get_by_role("heading", name="Satu langkah sebelum kunci pertama Anda")).to_be_visible()
    codes = await visitor.enrol_totp()
    assert len(set(codes)) == 10
    await visitor.fill_key("Bot grid", address="8.8.8.8", trade=True)
    await visitor.proceed()
    await expect(visitor.page.locator("[data-summary=label] dd")).to_have_text("Bot grid")
    await expect(visitor.page.locator("[data-summary=scopes] dd")).to_have_text("Read Only, Spot Trading")
    await expect(visitor.page.locator("[data-summary=ip] dd")).to_have_text("8.8.8.8")
    await expect(visitor.page.locator("[data-method=recovery_code]")).to_be_hidden()
    await visitor.prove_by_code()
    key_id, secret = await visitor.new_secret()
    assert (key_id[:4], secret[:4]) == ("gbk_", "gbs_")
    await expect(visitor.page.get_by_role("heading", level=1)).to_be_focused()
    await visitor.leave_secret()
    card = visitor.card("Bot grid")
    await expect(card.locator(".pill")).to_have_text("Aktif")
    await expect(card.locator(".key-id code")).to_have_text(key_id)


async def test_a_passkey_creates_and_deletes_a_key(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey("Laptop Budi")
    await expect(visitor.page.locator("[data-factor]")).to_contain_text("Laptop Budi")
    await visitor.fill_key("Pelacak")
    await visitor.proceed()
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    await visitor.leave_secret()
    await visitor.card("Pelacak").get_by_role("link", name="Hapus").click()
    await visitor.page.fill("#label", "Pelacak")
    await visitor.page.click("#confirm-label .danger")
    await visitor.prove_by_passkey()
    await visitor.page.wait_for_url(visitor.url + "/keys")
    await expect(visitor.page.get_by_role("heading", name="Belum ada kunci")).to_be_visible()
    await visitor.go("/activity")
    await expect(visitor.page.locator(".list li")).to_contain_text(["Kunci dihapus", "Kunci dibuat", "Cara konfirmasi ditambahkan"])


async def test_a_key_is_not_deleted_under_another_name(visitor: Visitor):
    await visitor.log_in()
    await visitor.enrol_totp()
    await visitor.fill_key("Bot")
    await visitor.proceed()
    await visitor.prove_by_code()
    await visitor.new_secret()
    await visitor.leave_secret()
    await visitor.card("Bot").get_by_role("link", name="Hapus").click()
    await visitor.page.fill("#label", "Bod")
    await visitor.page.click("#confirm-label .danger")
    await expect(visitor.page.locator("#label-error")).to_have_text("Ini bukan label kunci tersebut.")
    await expect(visitor.page.locator("#confirm-step")).to_be_hidden()


async def test_a_label_is_typed_again_as_it_looks_on_whatever_keyboard(visitor: Visitor):
    page = visitor.page
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("Budi's  bot\u00a0- \u2764\ufe0f")
    await visitor.proceed()
    await expect(page.locator("[data-summary=label] dd")).to_have_text("Budi's bot - \u2764\ufe0f")
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    await visitor.leave_secret()
    assert await page.locator(".card h2").text_content() == "Budi's bot - \u2764\ufe0f"
    await page.locator(".card-foot .danger").click()
    await page.fill("#label", " Budi\u2019s bot \u2013 \u2764")  # as a telephone's keyboard writes it
    await page.click("#confirm-label .danger")
    await visitor.prove_by_passkey()
    await page.wait_for_url(visitor.url + "/keys")
    await expect(page.get_by_role("heading", name="Belum ada kunci")).to_be_visible()


@pytest.mark.parametrize(
    ("label", "file"),
    [
        ("\U0001f600 bot", "bot-key.json"),
        ("\u0645\u0641\u062a\u0627\u062d", "api-key.json"),
        ("--version", "version-key.json"),
        ("Bot 1", "Bot-1-key.json"),
    ],
)
async def test_no_label_makes_the_key_file_an_option_of_the_example_that_reads_it(visitor: Visitor, label: str, file: str):
    page = visitor.page
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key(label)
    await visitor.proceed()
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Unduh sebagai berkas").click()
    assert (await download.value).suggested_filename == file
    await expect(page.locator("#try pre code").first).to_contain_text(f"'{file}'")
    await visitor.leave_secret()


async def test_a_secret_survives_neither_reload_nor_the_back_button(visitor: Visitor):
    visitor.page.on("dialog", lambda dialog: dialog.accept())
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    for leave in ("reload", "away and back", "done and back"):
        await visitor.fill_key(leave)
        await visitor.proceed()
        await visitor.prove_by_passkey()
        _, secret = await visitor.new_secret()
        if leave == "reload":
            await visitor.page.reload()
        elif leave == "away and back":
            await visitor.go("/activity")
            await visitor.page.go_back()
        else:
            await visitor.leave_secret()
            await visitor.page.go_back()
        await visitor.page.wait_for_load_state()
        assert secret not in await visitor.page.content(), leave
        await expect(visitor.page.locator("[data-stage=secret]:visible")).to_have_count(0)
        assert secret not in json.dumps(await visitor.page.context.storage_state())
        assert await visitor.page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })") == "{}"


async def test_leaving_an_unsaved_secret_is_asked_about(visitor: Visitor):
    asked: list[str] = []
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("Bot")
    await visitor.proceed()
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    await expect(visitor.page.locator("#done")).to_be_disabled()

    async def leave(dialog) -> None:
        asked.append(dialog.type)
        await dialog.accept()

    visitor.page.on("dialog", leave)
    await visitor.page.reload()
    assert asked == ["beforeunload"]


async def test_the_secret_can_be_downloaded_as_the_key_file_of_the_command_line(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("Bot / 1")
    await visitor.proceed()
    await visitor.prove_by_passkey()
    key_id, secret = await visitor.new_secret()
    async with visitor.page.expect_download() as download:
        await visitor.page.click("#download")
    file = await download.value
    assert file.suggested_filename == "Bot-1-key.json"
    assert json.loads(await asyncio.to_thread(Path(await file.path()).read_text)) == {
        "key_id": key_id,
        "secret": secret,
        "scopes": ["read"],
        "dialect": "mobee",
    }
    assert secret not in str(await visitor.page.locator("#try").text_content()), "a command line is read by others"
    assert "Bot-1-key.json" in await visitor.page.locator("#example").inner_text()
    await visitor.leave_secret()


@pytest.mark.parametrize("clipboard", ["absent", "denied"])
async def test_without_a_clipboard_the_whole_text_is_selected_and_can_be_read(visitor: Visitor, clipboard: str):
    page = visitor.page
    without = {"absent": "delete Navigator.prototype.clipboard", "denied": DENIED}[clipboard]  # absent: as in a page over plain http
    await page.context.add_init_script(without)

    async def copied(button: Locator, whole: str) -> None:
        await button.click()
        await expect(page.locator("#toast")).to_contain_text("teks sudah dipilih, silakan salin sendiri")
        assert await page.evaluate("getSelection().toString().trim()") == whole
        cut = "(() => { const at = getSelection().anchorNode; const shown = at.nodeType === 1 ? at : at.parentElement;"
        assert await page.evaluate(f"{cut} return shown.scrollWidth > shown.clientWidth }})()") is False
        await page.evaluate("document.getElementById('toast').textContent = ''")

    await visitor.log_in()
    await visitor.plug_in()
    await visitor.go("/security")
    await page.click("#passkey-form button")
    await expect(page.locator("#new-codes")).to_be_visible()
    codes = await page.locator("#recovery-codes li").all_inner_texts()
    await copied(page.locator("#copy-codes"), "\n".join(codes))
    await page.click("#codes-done")
    await expect(page.locator("[data-factor]")).to_have_count(1)
    await visitor.fill_key("Bot")
    await copied(page.locator("[data-copy-from=ip-command]"), "curl -sS http://127.0.0.1:8080/gateway/v1/ip")
    await visitor.proceed()
    await visitor.prove_by_passkey()
    key_id, secret = await visitor.new_secret()
    assert (len(key_id), len(secret)) == (32, 53)
    await copied(page.locator("[data-copy-from=new-id]"), key_id)
    await copied(page.locator("[data-copy-from=new-secret]"), secret)
    await visitor.leave_secret()
    await copied(visitor.card("Bot").locator("[data-copy]"), key_id)


async def test_a_key_of_ones_own_pair_shows_no_secret_but_an_example(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("Ed")
    await visitor.page.locator("#advanced summary").click()
    await visitor.page.check("input[name=algorithm][value=ed25519]")
    await visitor.page.fill(
        "#public_key",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n",
    )
    await visitor.proceed()
    await expect(visitor.page.locator("[data-summary=public_key] dd")).to_contain_text("MCowBQYDK2VwAyEA")
    await visitor.prove_by_passkey()
    key_id, _ = await visitor.new_secret()
    await expect(visitor.page.locator("#new-secret")).to_be_hidden()
    example = await visitor.page.locator("#example").inner_text()
    assert key_id in example
    assert "pkeyutl" in example
    await visitor.page.click("#done")
    await visitor.page.wait_for_url(visitor.url + "/keys")


async def test_a_proof_changes_the_session_cookie_and_the_old_one_is_worth_nothing(visitor: Visitor):
    async def cookie() -> str:
        return next(item["value"] for item in await visitor.page.context.cookies() if item["name"] == SESSION_COOKIE)

    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    before = await cookie()
    await visitor.fill_key("Bot")
    await visitor.proceed()
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    assert await cookie() != before
    async with aiohttp.ClientSession() as thief:
        response = await thief.get(f"{visitor.url}/api/v1/keys", headers={"Cookie": f"{SESSION_COOKIE}={before}"})
        assert response.status == 401
        response = await thief.get(f"{visitor.url}/api/v1/keys", headers={"Cookie": f"{SESSION_COOKIE}={await cookie()}"})
        assert response.status == 200
    await visitor.leave_secret()


async def test_a_hostile_label_is_only_text(visitor: Visitor):
    label = """<img src=x onerror="alert(1)"> '&amp; {{ 7*7 }} %(x)s ${1}"""
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey(label)
    await expect(visitor.page.locator("[data-factor] strong")).to_have_text(label)
    await visitor.fill_key(label)
    await visitor.proceed()
    await expect(visitor.page.locator("[data-summary=label] dd")).to_have_text(label)
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    await visitor.leave_secret()
    await expect(visitor.page.locator(".card h2")).to_have_text(label)
    await visitor.page.locator(".card-foot .danger").click()
    await visitor.page.fill("#label", label)
    await visitor.page.click("#confirm-label .danger")
    await visitor.prove_by_passkey()
    await visitor.page.wait_for_url(visitor.url + "/keys")
    await visitor.go("/activity")
    await expect(visitor.page.locator(".list li").first).to_contain_text(label)


async def test_a_web_view_without_passkeys_says_so_and_leaves_the_other_ways(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.page.context.add_init_script("delete window.PublicKeyCredential")
    await visitor.fill_key("Bot")
    await visitor.proceed()
    await expect(visitor.page.locator("[data-passkey]")).to_be_hidden()
    await expect(visitor.page.locator("[data-step-up-error]")).to_contain_text("Peramban ini tidak mendukung passkey")
    await visitor.go("/security")
    await expect(visitor.page.locator("#add-passkey")).to_contain_text("Peramban ini tidak mendukung passkey")
    await expect(visitor.page.locator("#totp-form")).to_be_visible()
