"""Who is refused on the pages, and what they are told: the unverified, the frozen, the thief, the one who mistypes."""

import aiohttp
import pytest
from playwright.async_api import expect

from admin.identity.browser import CSRF_HEADER, SESSION_COOKIE
from tests.support.pages import INTERNAL_TOKEN, Site, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")  # one loop, so that the tests share one browser

PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----"
INTENT = {"label": "x", "scopes": ["read"], "ip_access": "unrestricted", "ip_allowlist": []}


async def back_office(site: Site, method: str, path: str, body: dict | None = None) -> None:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {INTERNAL_TOKEN}"}) as http:
        response = await http.request(method, site.internal_url + path, json=body)
        assert response.status < 300, await response.text()


async def make_key(visitor: Visitor, label: str = "Bot") -> None:
    await visitor.fill_key(label)
    await visitor.proceed()
    await visitor.prove_by_code()
    await visitor.new_secret()
    await visitor.leave_secret()


async def test_an_unverified_account_is_told_why_and_where_to_go(visitor: Visitor):
    await visitor.log_in("unverified")
    notice = visitor.page.locator(".notice", has_text="Verifikasi identitas Anda dulu")
    await expect(notice.get_by_role("link")).to_have_attribute("href", "https://exchange.example/verify")
    await expect(visitor.page.get_by_role("link", name="Buat API")).to_have_count(0)
    await visitor.go("/keys/new")
    await expect(visitor.page.locator("#key-form")).to_have_count(0)
    refused = await visitor.page.evaluate(
        """(intent) => fetch("/api/v1/keys", { method: "POST", body: JSON.stringify(intent), headers: {
             "Content-Type": "application/json",
             "X-CSRF-Token": document.querySelector('meta[name="csrf-token"]').content } }).then((answer) => answer.json())""",
        INTENT,
    )
    assert refused["code"] == "kyc_required"


async def test_freezing_and_a_withdrawn_verification_are_shown_at_once(visitor: Visitor, site: Site):
    await visitor.log_in()
    await visitor.enrol_totp()
    await make_key(visitor)
    await back_office(site, "POST", "/internal/v1/accounts/verified/freeze")
    await visitor.go("/keys")
    await expect(visitor.page.get_by_role("heading", name="Akun Anda dibekukan")).to_be_visible()
    await expect(visitor.card("Bot").locator(".pill")).to_have_text("Ditangguhkan")
    await back_office(site, "POST", "/internal/v1/accounts/verified/thaw")
    await back_office(site, "PUT", "/internal/v1/accounts/verified", {"kyc": "revoked"})
    await visitor.page.reload()
    await expect(visitor.page.get_by_role("heading", name="Identitas Anda perlu diverifikasi ulang")).to_be_visible()
    await expect(visitor.page.get_by_role("link", name="Buat API")).to_have_count(0)


async def test_a_stolen_session_cannot_create_delete_or_change_factors(visitor: Visitor):
    """The thief has the cookie and the page's own token, everything but the factor."""
    await visitor.log_in()
    await visitor.enrol_totp()
    await make_key(visitor)
    cookie = next(item["value"] for item in await visitor.page.context.cookies() if item["name"] == SESSION_COOKIE)
    token = await visitor.page.locator('meta[name="csrf-token"]').get_attribute("content")
    key_id = await visitor.page.locator("[data-key]").get_attribute("data-key")
    await visitor.go("/security")
    factor = await visitor.page.locator("[data-factor]").get_attribute("data-factor")
    headers = {"Cookie": f"{SESSION_COOKIE}={cookie}", "Origin": visitor.url, CSRF_HEADER: str(token)}
    async with aiohttp.ClientSession(headers=headers) as thief:
        for method, path, body in (
            ("POST", "/api/v1/keys", INTENT),
            ("DELETE", f"/api/v1/keys/{key_id}", None),
            ("POST", "/api/v1/factors/totp", None),
            ("POST", "/api/v1/factors/passkeys/options", None),
            ("POST", "/api/v1/recovery-codes", None),
        ):
            response = await thief.request(method, visitor.url + path, json=body)
            assert (response.status, (await response.json())["code"]) == (403, "step_up_required"), path
        response = await thief.delete(f"{visitor.url}/api/v1/factors/{factor}")
        assert (response.status, (await response.json())["code"]) == (409, "last_factor")
        challenge = await (await thief.post(f"{visitor.url}/api/v1/step-up", json={"intent": {"action": "create_key", **INTENT}})).json()
        guess = {**INTENT, "step_up": {"challenge_id": challenge["challenge_id"], "totp": "000000"}}
        response = await thief.post(f"{visitor.url}/api/v1/keys", json=guess)
        assert (await response.json())["code"] == "step_up_failed"
    await visitor.go("/keys")
    await expect(visitor.page.locator("[data-key]")).to_have_count(1)


CHANGES: list[dict[str, object]] = [
    {"label": "y"},
    {"scopes": ["read", "trade"]},
    {"scopes": ["trade"]},
    {"ip_access": "unrestricted", "ip_allowlist": []},
    {"ip_allowlist": ["8.8.4.4"]},
    {"ip_allowlist": ["8.8.8.8", "8.8.4.4"]},
    {"expires_in_days": 30},
    {"expires_in_days": None},
    {"algorithm": "ed25519", "public_key": PUBLIC_KEY},
]


async def test_a_proof_is_for_exactly_what_was_shown(visitor: Visitor):
    """A script on the page, say, changes one parameter after the customer looked at the passkey's prompt."""
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    shown = {
        "label": "x",
        "scopes": ["read"],
        "ip_access": "whitelisted",
        "ip_allowlist": ["8.8.8.8"],
        "algorithm": "hmac-sha256",
        "public_key": None,
        "expires_in_days": 7,
    }
    script = str(await visitor.page.locator("script[src*=page]").get_attribute("src"))
    for change in CHANGES:
        await visitor.go("/keys")
        answers = await visitor.page.evaluate(
            """async ([base, shown, changed]) => {
                 const { call } = await import(`${base}api.js`);
                 const { assert } = await import(`${base}passkeys.js`);
                 const send = (body) => call("POST", "/api/v1/keys", body).then(() => "created", (error) => error.problem);
                 const challenge = await call("POST", "/api/v1/step-up", { intent: { action: "create_key", ...shown } });
                 const step_up = { challenge_id: challenge.challenge_id, passkey: await assert(challenge.passkey) };
                 return [await send({ ...changed, step_up }), await send({ ...shown, step_up })];
               }""",
            [script.replace("page.js", ""), shown, shown | change],
        )
        assert (answers[0]["code"], answers[0]["reason"]) == ("step_up_failed", "other_intent"), change
        assert answers[1] == "created", "the refused try spent nothing"


async def test_of_two_parallel_redemptions_of_one_proof_exactly_one_wins(visitor: Visitor):
    await visitor.log_in()
    await visitor.plug_in()
    await visitor.enrol_passkey()
    asset = await visitor.page.locator("script[src*=page]").get_attribute("src")
    outcomes = await visitor.page.evaluate(
        """async ([base, intent]) => {
             const { call } = await import(`${base}api.js`);
             const { assert } = await import(`${base}passkeys.js`);
             const challenge = await call("POST", "/api/v1/step-up", { intent: { action: "create_key", ...intent } });
             const step_up = { challenge_id: challenge.challenge_id, passkey: await assert(challenge.passkey) };
             const cookieless = () => call("POST", "/api/v1/keys", { ...intent, step_up }).then(() => "created", (e) => e.problem.code);
             return Promise.all([cookieless(), cookieless(), cookieless(), cookieless()]);
           }""",
        [str(asset).replace("page.js", ""), INTENT],
    )
    # The winner's rotation may end the session before a loser is looked at.
    assert sorted(set(outcomes) - {"unauthenticated"}) in (["created"], ["created", "step_up_failed"])
    assert outcomes.count("created") == 1


async def test_a_wrong_and_a_used_code_are_told_apart_beside_the_field(visitor: Visitor):
    await visitor.log_in()
    await visitor.enrol_totp()
    await visitor.fill_key("Bot")
    await visitor.proceed()
    error = visitor.page.locator("#totp-error")
    await visitor.page.fill("#totp", "000000")
    await visitor.page.click("[data-totp] button")
    await expect(error).to_have_text("Kodenya salah. Masukkan kode yang sedang ditampilkan aplikasi, dan periksa jam ponsel Anda.")
    await expect(visitor.page.locator("#totp")).to_be_focused()
    await visitor.page.click("[data-totp] button")
    await expect(error).to_have_text("Bagian ini harus diisi.")
    code = visitor.code()
    for half in (code[:5], f"{code}0", "abcdef") * 2:  # more than may be wrong
        await visitor.page.fill("#totp", half)
        await visitor.page.click("[data-totp] button")
        await expect(error).to_have_text("Kode terdiri dari enam angka.")
        await expect(visitor.page.locator("#totp")).to_have_value(half)
    await visitor.page.fill("#totp", code)
    await visitor.page.click("[data-totp] button")
    await visitor.new_secret()
    await visitor.leave_secret()
    await visitor.fill_key("Bot 2")
    await visitor.proceed()
    await visitor.page.fill("#totp", code)
    await visitor.page.click("[data-totp] button")
    await expect(error).to_have_text("Kode ini sudah dipakai. Tunggu kode berikutnya.")


async def test_a_cancelled_passkey_prompt_leaves_everything_to_be_tried_again(visitor: Visitor):
    await visitor.log_in()
    device = await visitor.plug_in()
    await visitor.enrol_passkey()
    await visitor.fill_key("Bot")
    await visitor.proceed()
    assert visitor.devices is not None
    await visitor.devices.send("WebAuthn.setUserVerified", {"authenticatorId": device, "isUserVerified": False})
    await visitor.prove_by_passkey()
    alert = visitor.page.locator("[data-step-up-error]")
    await expect(alert).to_contain_text("Belum ada yang dikonfirmasi")
    await expect(alert).to_be_focused()
    await visitor.devices.send("WebAuthn.setUserVerified", {"authenticatorId": device, "isUserVerified": True})
    await visitor.prove_by_passkey()
    await visitor.new_secret()
    await visitor.leave_secret()


async def test_a_confirmation_that_took_too_long_is_renewed_without_a_word(visitor: Visitor):
    """The customer reads the summary for three minutes: the browser's clock goes on, and the challenge is replaced."""
    await visitor.log_in()
    await visitor.enrol_totp()
    await visitor.page.clock.install()
    await visitor.fill_key("Bot")
    await visitor.proceed()
    visitor.time.advance(180)
    await visitor.page.clock.fast_forward(180_000)
    await visitor.prove_by_code()
    await visitor.new_secret()
    await visitor.leave_secret()


async def test_a_session_that_ended_leads_to_the_login_and_back(visitor: Visitor):
    await visitor.log_in()
    await visitor.go("/security")
    visitor.time.advance(3_600)
    await visitor.page.click("#totp-form button")
    await visitor.page.wait_for_url("**/login?return_to=**")
    await visitor.page.get_by_role("link", name="Masuk dengan akun bursa Anda").click()
    await visitor.page.locator("button[value=verified]").click()
    await visitor.page.wait_for_url(visitor.url + "/security")


async def test_the_first_factor_needs_a_fresh_login(visitor: Visitor):
    await visitor.log_in()
    await visitor.go("/security")
    visitor.time.advance(660)
    await visitor.page.click("#totp-form button")
    await expect(visitor.page.locator("#page-error")).to_contain_text("Sudah terlalu lama sejak Anda masuk.")
    await expect(visitor.page.locator("#page-error")).to_be_focused()
    await visitor.page.get_by_role("link", name="Masuk lagi").click()
    await visitor.page.locator("button[value=verified]").click()
    await visitor.page.wait_for_url(visitor.url + "/security")
    await visitor.enrol_totp()


async def test_signing_out_ends_the_session_here(visitor: Visitor):
    await visitor.log_in()
    cookie = next(item["value"] for item in await visitor.page.context.cookies() if item["name"] == SESSION_COOKIE)
    await visitor.page.locator(".account summary").click()
    await visitor.page.get_by_role("button", name="Keluar").click()
    await visitor.page.wait_for_url(visitor.url + "/login")
    async with aiohttp.ClientSession(headers={"Cookie": f"{SESSION_COOKIE}={cookie}"}) as thief:
        assert (await thief.get(f"{visitor.url}/api/v1/account")).status == 401
