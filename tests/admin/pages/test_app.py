"""The pages over plain HTTP: what every answer carries, who is let in, and what a stranger's page cannot make a browser do."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import asyncpg
import pytest
import redis.asyncio
from structlog.testing import capture_logs

from admin.identity.browser import CSRF_FIELD, CSRF_HEADER, LOGIN_COOKIE, MAX_LOGINS, SESSION_COOKIE
from deploy.local.identity_provider import IdentityProvider, OAuthError
from gateway.telemetry.logs import REFUSALS_PER_SECOND
from tests.support.pages import INTERNAL_TOKEN, Site, running_site

PAGES = ("/keys", "/keys/new", "/security", "/activity")


@pytest.fixture
async def site(database, redis_url: str) -> AsyncIterator[Site]:
    async with running_site(database, redis_url) as site:
        yield site


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Without a cookie jar: each test says itself what the browser would send."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield http


async def get(http: aiohttp.ClientSession, site: Site, path: str, **headers: str) -> aiohttp.ClientResponse:
    return await http.get(site.url + path, headers=headers, allow_redirects=False)


async def post(http: aiohttp.ClientSession, site: Site, path: str, data: object = None, **headers: str) -> aiohttp.ClientResponse:
    return await http.post(site.url + path, data=data, headers=headers, allow_redirects=False)


def login_cookie_of(start: aiohttp.ClientResponse) -> str:
    (name,) = (name for name in start.cookies if name.startswith(LOGIN_COOKIE) and start.cookies[name].value)
    return f"{name}={start.cookies[name].value}"


def state_of(start: aiohttp.ClientResponse) -> str:
    return parse_qs(urlsplit(start.headers["Location"]).query)["state"][0]


async def sent_back(http: aiohttp.ClientSession, site: Site, start: aiohttp.ClientResponse, account: str = "verified") -> str:
    """The URL to which the provider redirects a browser that has logged in there."""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(start.headers["Location"]).query).items()}
    answered = await http.post(f"{site.settings.oidc.issuer}/authorize", data={**asked, "account": account}, allow_redirects=False)
    return answered.headers["Location"]


async def log_in(
    http: aiohttp.ClientSession, site: Site, account: str = "verified", return_to: str = "/keys", **headers: str
) -> tuple[str, str]:
    """The session's cookie header and its CSRF token."""
    start = await get(http, site, f"/login/start?return_to={return_to}")
    callback = await sent_back(http, site, start, account)
    back = await http.get(callback, headers={"Cookie": login_cookie_of(start), **headers}, allow_redirects=False)
    assert (back.status, back.headers["Location"]) == (303, return_to)
    cookie = f"{SESSION_COOKIE}={back.cookies[SESSION_COOKIE].value}"
    page = await (await get(http, site, "/keys", Cookie=cookie)).text()
    found = re.search(r'<meta name="csrf-token" content="([^"]+)"', page)
    assert found
    return cookie, found[1]


async def test_two_tabs_log_in_each_with_its_own_cookie_and_a_stale_one_ends_neither(http, site):
    starts = [await get(http, site, "/login/start") for _ in range(2)]
    jar = "; ".join(login_cookie_of(start) for start in starts)
    names = [login_cookie_of(start).partition("=")[0] for start in starts]
    stale = await get(http, site, f"/login/callback?state={'A' * 43}&code=x", Cookie=jar)
    assert stale.headers["Location"] == "/login?outcome=stale"
    assert not set(names) & set(stale.cookies)
    for start, name in zip(starts, names, strict=True):
        back = await http.get(await sent_back(http, site, start), headers={"Cookie": jar}, allow_redirects=False)
        assert (back.status, back.headers["Location"]) == (303, "/keys")
        assert back.cookies[SESSION_COOKIE].value
        assert set(names) & set(back.cookies) == {name}


async def test_logins_under_way_are_bounded_and_the_oldest_are_given_up(http, site):
    jar: list[str] = []
    for _ in range(MAX_LOGINS + 3):
        start = await get(http, site, "/login/start", Cookie="; ".join(jar))
        gone = [name for name in start.cookies if start.cookies[name]["max-age"] == "0"]
        assert gone == [cookie.partition("=")[0] for cookie in jar[: max(len(jar) - MAX_LOGINS + 1, 0)]]
        jar = [*jar[len(gone) :], login_cookie_of(start)]
    assert len(jar) == MAX_LOGINS


async def test_a_callback_that_is_sent_again_opens_no_second_session_and_ends_none(http, site):
    """Its cookie may be copied, or arrive twice at once: the provider takes the code once."""
    start = await get(http, site, "/login/start")
    callback, cookie = await sent_back(http, site, start), login_cookie_of(start)
    both = await asyncio.gather(*(http.get(callback, headers={"Cookie": cookie}, allow_redirects=False) for _ in range(2)))
    first, second = sorted(both, key=lambda answer: SESSION_COOKIE not in answer.cookies)
    assert (first.headers["Location"], second.headers["Location"]) == ("/keys", "/login?outcome=failed")
    assert SESSION_COOKIE not in second.cookies
    session = f"{SESSION_COOKIE}={first.cookies[SESSION_COOKIE].value}"
    again = await http.get(callback, headers={"Cookie": f"{cookie}; {session}"}, allow_redirects=False)
    assert (again.headers["Location"], SESSION_COOKIE in again.cookies) == ("/login?outcome=failed", False)
    assert (await get(http, site, "/keys", Cookie=session)).status == 200
    without = await http.get(callback, headers={"Cookie": session}, allow_redirects=False)
    assert without.headers["Location"] == "/login?outcome=stale", "the browser has dropped the cookie"


async def test_a_login_that_is_started_leaves_nothing_in_redis(http, site, redis_url):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        before = await client.dbsize()
        for _ in range(3):
            start = await get(http, site, "/login/start")
            await get(http, site, "/login/callback?state=x&code=x", Cookie=login_cookie_of(start))
        assert await client.dbsize() == before


async def test_no_state_that_a_stranger_invents_is_more_than_stale(http, site):
    for state in ("", "%ED%A0%80", "%00", "%22", "x" * 4000):
        assert (await get(http, site, f"/login/callback?state={state}&code=x")).headers["Location"] == "/login?outcome=stale"


async def test_every_page_is_kept_by_no_cache_and_runs_only_our_own_files(http, site):
    cookie, _ = await log_in(http, site)
    for path in ("/login", *PAGES):
        answer = await get(http, site, path, **({} if path == "/login" else {"Cookie": cookie}))
        assert answer.status == 200, path
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["form-action"] == "'self'"
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Language"] == "id"
        assert "Strict-Transport-Security" not in answer.headers, "not over plain http"
        page = await answer.text()
        assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:", page)
        assert set(re.findall(r'(?:src|href)="(?:https?:)?//([^/"]+)', page)) <= {"exchange.example"}


async def test_who_is_not_logged_in_is_led_to_the_login_and_back(http, site):
    for path in PAGES:
        answer = await get(http, site, path)
        assert answer.status == 303
        expected = "/login" if path == "/keys" else f"/login?return_to={path}"
        assert answer.headers["Location"] == expected
    assert "/login/start?return_to=/security" in await (await get(http, site, "/login?return_to=/security")).text()
    assert "evil" not in await (await get(http, site, "/login?return_to=//evil.example")).text()
    await log_in(http, site, return_to="/security")


async def test_a_session_that_the_back_office_ended_leads_to_the_login_and_its_cookie_is_dropped(http, site):
    cookie, token = await log_in(http, site)
    headers = {"Authorization": f"Bearer {INTERNAL_TOKEN}"}
    url = f"{site.internal_url}/internal/v1/accounts/verified/reset-factors"
    assert (await http.post(url, json={"reason": "lost phone"}, headers=headers)).status == 200
    refused = await get(http, site, "/api/v1/account", Cookie=cookie)
    assert (refused.status, (await refused.json())["code"]) == (401, "unauthenticated")
    answer = await get(http, site, "/security", Cookie=cookie)
    assert (answer.status, answer.headers["Location"]) == (303, "/login?return_to=/security")
    assert answer.cookies[SESSION_COOKIE]["max-age"] == "0"
    for path in PAGES:
        assert (await get(http, site, path, Cookie=cookie)).status == 303
    sent = await post(http, site, "/logout", {CSRF_FIELD: token}, Cookie=cookie, Origin=site.settings.public_url)
    assert (sent.status, sent.headers["Location"]) == (303, "/login")


async def test_signing_out_everywhere_ends_every_login_and_says_so_in_the_activity(http, site):
    mine, token = await log_in(http, site)
    stolen, _ = await log_in(http, site)
    assert 'action="/logout/everywhere"' in await (await get(http, site, "/security", Cookie=mine)).text()
    forged = await post(http, site, "/logout/everywhere", {CSRF_FIELD: "x"}, Cookie=mine, Origin=site.settings.public_url)
    assert forged.status == 403
    assert (await get(http, site, "/security", Cookie=stolen)).status == 200
    done = await post(http, site, "/logout/everywhere", {CSRF_FIELD: token}, Cookie=mine, Origin=site.settings.public_url)
    assert done.status == 200
    for cookie in (mine, stolen):
        assert (await get(http, site, "/security", Cookie=cookie)).status == 303
    url = f"{site.internal_url}/internal/v1/audit?account=verified"
    events = (await (await http.get(url, headers={"Authorization": f"Bearer {INTERNAL_TOKEN}"})).json())["events"]
    assert "logins_ended" in {event["event"] for event in events}


async def test_ending_all_others_keeps_the_session_that_asks_under_a_new_cookie(http, site):
    mine, token = await log_in(http, site, **{"User-Agent": "Mozilla/5.0 (Linux; Android 14) Chrome/130.0 Mobile Safari/537.36"})
    other, _ = await log_in(http, site)
    page = await (await get(http, site, "/security", Cookie=mine)).text()
    assert page.count("Sesi ini") == 1
    assert [text in page for text in ("Chrome · Android", "127.0.0.1", "Browser tidak dikenal")] == [True] * 3
    forged = await post(http, site, "/logout/others", {CSRF_FIELD: "x"}, Cookie=mine, Origin=site.settings.public_url)
    assert forged.status == 403
    done = await post(http, site, "/logout/others", {CSRF_FIELD: token}, Cookie=mine, Origin=site.settings.public_url)
    assert (done.status, done.headers["Location"]) == (303, "/security#others-ended")
    kept = f"{SESSION_COOKIE}={done.cookies[SESSION_COOKIE].value}"
    for cookie, status in ((mine, 303), (other, 303), (kept, 200)):
        assert (await get(http, site, "/security", Cookie=cookie)).status == status
    assert "Browser tidak dikenal" not in await (await get(http, site, "/security", Cookie=kept)).text()
    assert "Semua sesi masuk lainnya diakhiri" in await (await get(http, site, "/activity", Cookie=kept)).text()


async def test_pages_and_refusals_lead_to_the_guide_when_there_is_one(http, site, database, redis_url):
    assert "/docs" not in await (await get(http, site, "/login")).text()
    refused = await (await get(http, site, "/api/v1/account")).json()
    assert refused["type"] == "urn:gerbang:problem:unauthenticated"
    config = Path(__file__).parents[3] / "config" / "gateway.toml"
    async with running_site(database, redis_url, docs={"gateway_config": str(config)}) as told:
        assert 'href="/docs"' in await (await get(http, told, "/login")).text()
        guide = await (await get(http, told, "/docs")).text()
        for url in (f"{told.url}/api/v1/account", f"{told.internal_url}/internal/v1/accounts"):
            kind = (await (await http.get(url)).json())["type"]
            assert kind == f"{told.settings.public_url}/docs#unauthenticated"
            assert f'id="{kind.partition("#")[2]}"' in guide


async def test_a_login_from_a_network_new_to_the_account_is_told_once(database, redis_url, http):
    owner = await asyncpg.connect(database.owner_dsn)
    told = "SELECT account_id, detail::jsonb ->> 'client_ip' AS address FROM notices WHERE topic = 'login.new_address' ORDER BY seq"
    behind_a_proxy = {"client_ip": {"trusted_proxies": ["127.0.0.1/32"]}}
    async with running_site(database, redis_url, **behind_a_proxy) as site:
        for account, address, expected in (
            ("siti", "8.8.8.8", []),  # the first login is no news
            ("siti", "8.8.8.8", []),
            ("siti", "2606:4700::1", ["2606:4700::1"]),
            ("siti", "2606:4700::2", ["2606:4700::1"]),  # the same customer's network
            ("siti", "8.8.4.4", ["2606:4700::1", "8.8.4.4"]),
            ("budi", "8.8.8.8", ["2606:4700::1", "8.8.4.4"]),
            ("siti", "8.8.4.4", ["2606:4700::1", "8.8.4.4"]),
        ):
            await log_in(http, site, account, **{"X-Forwarded-For": address})
            assert [(row["account_id"], row["address"]) for row in await owner.fetch(told)] == [("siti", each) for each in expected]
    await owner.close()


async def test_a_login_that_did_not_work_says_so_and_sets_no_session(http, site):
    start = await get(http, site, "/login/start")
    cookie = login_cookie_of(start)
    state = state_of(start)
    for query, outcome in (
        (f"?state={'A' * 43}&code=x", "stale"),
        (f"?state={state}&error=access_denied", "denied"),
        (f"?state={state}&code=x", "failed"),
    ):
        answer = await get(http, site, f"/login/callback{query}", Cookie=cookie)
        assert answer.headers["Location"] == f"/login?outcome={outcome}"
        assert SESSION_COOKIE not in answer.cookies
        dropped = [name for name in answer.cookies if name.startswith(LOGIN_COOKIE)]
        assert [answer.cookies[name]["max-age"] for name in dropped] == ["0"]
        assert (dropped[0] in cookie) == (f"state={state}" in query), "the cookie of this state, and of no other"
    assert 'role="alert"' in await (await get(http, site, "/login?outcome=denied")).text()
    assert 'role="alert"' not in await (await get(http, site, "/login?outcome=%3Cscript%3E")).text()


async def test_a_refusal_that_is_a_page_is_logged_and_counted_by_its_code_as_one_of_the_api_is(http, site, monkeypatch):
    def refuse(*_: object) -> None:
        raise OAuthError("invalid_client", "the secret has expired")

    monkeypatch.setattr(IdentityProvider, "_redeem", refuse)
    start = await get(http, site, "/login/start")
    callback = await sent_back(http, site, start)
    with capture_logs() as logs:
        back = await http.get(callback, headers={"Cookie": login_cookie_of(start)}, allow_redirects=False)
        lost = await get(http, site, "/nowhere", Accept="text/html")
    assert [(page.status, page.content_type) for page in (back, lost)] == [(503, "text/html"), (404, "text/html")]
    told = {line["path"]: (line["outcome"], line["reason"]) for line in logs if line["event"] == "request"}
    assert told["/login/callback"][0] == "identity_provider_unavailable"
    assert "'invalid_client': check oidc.audience, oidc.client_secret" in told["/login/callback"][1]
    assert told["/nowhere"][0] == "not_found"
    metrics = await (await http.get(f"{site.internal_url}/metrics")).text()
    for outcome in ("identity_provider_unavailable", "not_found"):
        assert f'gerbang_admin_requests_total{{outcome="{outcome}",port="public"}} 1' in metrics


@pytest.mark.parametrize("path", ["/logout", "/language", "/keys/check-addresses", "/security/qr"])
async def test_no_other_site_can_send_a_form_or_a_script_call(http, site, path):
    cookie, token = await log_in(http, site)
    form = {CSRF_FIELD: token, "language": "en"}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
        {"Referer": f"{site.url}/keys"},
    ):
        answer = await post(http, site, path, form, Cookie=cookie, **headers)
        assert answer.status == 403, headers
        assert answer.content_type == "text/html"
    for wrong in ({**form, CSRF_FIELD: ""}, {**form, CSRF_FIELD: "x" * 43}, {"language": "en"}):
        assert (await post(http, site, path, wrong, Cookie=cookie, Origin=site.url)).status == 403
    assert (await get(http, site, "/keys", Cookie=cookie)).status == 200, "still logged in"


async def test_the_api_takes_a_session_only_from_our_own_pages(http, site):
    cookie, token = await log_in(http, site)
    for headers, status in (
        ({"Origin": site.url, CSRF_HEADER: token}, 201),
        ({"Origin": "https://evil.example", CSRF_HEADER: token}, 403),
        ({"Origin": site.url}, 403),
        ({CSRF_HEADER: token}, 403),
    ):
        answer = await http.post(f"{site.url}/api/v1/factors/totp", headers={"Cookie": cookie, **headers})
        assert answer.status == status, headers
        if status == 403:
            assert (await answer.json())["code"] == "cross_site_request"
    assert (await get(http, site, "/api/v1/account", Cookie=cookie)).status == 200, "reading needs no token"


async def test_addresses_are_checked_by_the_rules_of_the_service(http, site):
    cookie, token = await log_in(http, site)
    headers = {"Cookie": cookie, "Origin": site.url, CSRF_HEADER: token}

    async def check(body: object) -> tuple[int, object]:
        answer = await http.post(f"{site.url}/keys/check-addresses", json=body, headers=headers)
        return answer.status, await answer.json()

    status, answer = await check({"ip_allowlist": ["8.8.8.8", "10.0.0.1", "x"]})
    assert (status, [(error["field"], error["code"]) for error in answer["errors"]]) == (
        200,
        [("ip_allowlist[1]", "not_public"), ("ip_allowlist[2]", "not_an_address")],
    )
    for body in ([], {}, {"ip_allowlist": "8.8.8.8"}, {"ip_allowlist": [1]}, {"ip_allowlist": ["x"] * 4}):
        status, answer = await check(body)
        assert (status, answer["code"]) == (422, "invalid_request"), body


async def test_a_qr_code_is_made_of_an_enrolments_address_alone(http, site):
    cookie, token = await log_in(http, site)
    headers = {"Cookie": cookie, "Origin": site.url, CSRF_HEADER: token}
    uri = {"otpauth_uri": "otpauth://totp/Gerbang:budi?secret=ABC&issuer=Gerbang"}
    answer = await http.post(f"{site.url}/security/qr", json=uri, headers=headers)
    assert (answer.status, answer.content_type, answer.headers["Cache-Control"]) == (200, "image/svg+xml", "no-store")
    assert (await answer.read()).startswith(b"<?xml")
    for wrong in ({"otpauth_uri": "https://evil.example"}, {"otpauth_uri": "otpauth://" + "x" * 700}, {}, []):
        assert (await http.post(f"{site.url}/security/qr", json=wrong, headers=headers)).status == 422
    malformed = await http.post(f"{site.url}/security/qr", data=b"{", headers={**headers, "Content-Type": "application/json"})
    assert malformed.status == 400


async def test_files_are_served_for_ever_under_their_content_and_nothing_else_is(http, site):
    page = await (await get(http, site, "/login")).text()
    sheet, *_ = re.findall(r'href="(/static/[^"]+\.css)"', page)
    answer = await get(http, site, sheet)
    assert (answer.status, answer.content_type) == (200, "text/css")
    assert "immutable" in answer.headers["Cache-Control"]
    old = await get(http, site, sheet.replace(sheet.split("/")[2], "0" * 16))
    assert (old.status, old.headers["Cache-Control"]) == (200, "no-store")
    version = sheet.split("/")[2]
    for path in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "js/../../app.py", "templates/base.html", "", "//etc/passwd"):
        assert (await get(http, site, f"/static/{version}/{path}")).status == 404, path


async def test_on_one_machine_an_address_leads_to_the_name(http, site):
    answer = await http.get(site.url.replace("localhost", "127.0.0.1") + "/login?return_to=/security", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, f"{site.url}/login?return_to=/security")
    assert (await get(http, site, "/login", Host="proxy.internal")).status == 200, "behind a proxy hosts are its business"


async def test_a_key_of_somebody_else_is_no_key(http, site):
    cookie, _ = await log_in(http, site)
    answer = await get(http, site, "/keys/gbk_0123456789abcdefghijklmnopqr/delete", Cookie=cookie)
    assert (answer.status, answer.content_type) == (404, "text/html")


NOWHERE = {"/nowhere": 404, "/keys/gbk_0123456789abcdefghijklmnopqr/delete": 404, "/logout": 405, "/scripts-needed": 405}


@pytest.mark.parametrize("path", NOWHERE)
async def test_an_address_that_leads_nowhere_is_answered_by_a_page_that_says_so(http, site, path):
    cookie, _ = await log_in(http, site)
    for language, told in (("en", "There is nothing at this address."), ("id", "Tidak ada apa-apa di alamat ini.")):
        answer = await get(http, site, path, Cookie=cookie, Accept="text/html", **{"Accept-Language": language})
        page = await answer.text()
        allowed = "POST" if NOWHERE[path] == 405 else None
        assert (answer.status, answer.content_type, answer.headers.get("Allow")) == (NOWHERE[path], "text/html", allowed)
        assert f'<p class="lead">{told}' in page
    script = await get(http, site, path, Cookie=cookie, Accept="*/*")
    assert script.content_type == ("text/html" if "/keys/" in path else "application/problem+json")


async def test_signing_out_goes_on_to_the_provider(http, site):
    cookie, token = await log_in(http, site)
    answer = await post(http, site, "/logout", {CSRF_FIELD: token}, Cookie=cookie, Origin=site.url)
    assert answer.headers["Refresh"].startswith(f"0; url={site.settings.oidc.issuer}/logout?")
    page = await answer.text()
    assert "Sesi Anda di sini telah berakhir" in page
    assert token not in page
    assert (await get(http, site, "/keys", Cookie=cookie)).status == 303


async def test_without_redis_a_page_says_so_in_words(database, own_redis, http):
    async with running_site(database, own_redis.url) as site:
        cookie, _ = await log_in(http, site)
        own_redis.stop()
        answer = await get(http, site, "/keys", Cookie=cookie)
        assert (answer.status, answer.content_type) == (503, "text/html")
        assert "Layanan sedang tidak tersedia" in await answer.text()
        start = await get(http, site, "/login/start")
        back = await http.get(await sent_back(http, site, start), headers={"Cookie": login_cookie_of(start)}, allow_redirects=False)
        assert (back.status, back.content_type, SESSION_COOKIE in back.cookies) == (503, "text/html", False)


async def test_a_person_who_mistypes_gets_a_page_and_a_program_a_problem(http, site):
    page = await get(http, site, "/kesy", Accept="text/html,*/*")
    assert (page.status, page.content_type) == (404, "text/html")
    problem = await get(http, site, "/api/v1/kesy", Accept="*/*")
    assert (problem.status, (await problem.json())["code"]) == (404, "not_found")


async def test_codes_that_are_sent_for_logins_are_bounded_by_address_and_pages_by_account(database, redis_url, http, monkeypatch):
    asked: list[str] = []

    def refuse(_: IdentityProvider, form: Mapping[str, str], *__: object) -> None:
        asked.append(form["code"])
        raise OAuthError("invalid_grant", "the code is unknown")

    limits = {"per_ip_failures": "5/hour", "per_account": "6/hour"}
    async with running_site(database, redis_url, limits=limits) as site:
        cookie, _ = await log_in(http, site)
        monkeypatch.setattr(IdentityProvider, "_redeem", refuse)
        start = await get(http, site, "/login/start")
        callback = f"/login/callback?{urlencode({'state': state_of(start), 'code': 'invented'})}"
        for _ in range(10):
            other_site = await get(http, site, callback)
            assert other_site.headers["Location"] == "/login?outcome=stale", "without the cookie it uses up nothing"
        answers = [await get(http, site, callback, Cookie=login_cookie_of(start)) for _ in range(5)]
        assert [answer.status for answer in answers] == [303, 303, 303, 303, 429]
        assert asked == ["invented"] * 4
        assert not answers[-1].cookies, "the browser may send it again"
        statuses = [(await get(http, site, "/activity", Cookie=cookie)).status for _ in range(6)]
        assert statuses == [200, 200, 200, 200, 200, 429]
        refused = await get(http, site, "/activity", Cookie=cookie)
        assert int(refused.headers["Retry-After"]) > 0
        assert "Terlalu banyak percobaan" in await refused.text()


async def test_codes_from_a_site_with_many_networks_are_bounded_too(database, redis_url, http):
    """Each is a call to the identity provider."""
    settings = {"limits": {"per_ip_failures": "1/hour"}, "client_ip": {"trusted_proxies": ["127.0.0.0/8"]}}
    async with running_site(database, redis_url, **settings) as site:
        start = await get(http, site, "/login/start")
        callback, cookie = f"/login/callback?{urlencode({'state': state_of(start), 'code': 'invented'})}", login_cookie_of(start)

        async def send(address):
            return (await get(http, site, callback, Cookie=cookie, **{"X-Forwarded-For": address})).status

        assert [await send(f"2606:4700:0:{number:x}::1") for number in range(12)] == [303] * 10 + [429] * 2
        assert [await send("2606:4700:1::1"), await send("8.8.8.8"), await send("8.8.8.8")] == [303, 303, 429]


async def test_a_form_without_scripts_sends_nothing_in_the_address_and_changes_nothing(http, site):
    cookie, _ = await log_in(http, site)
    page = await (await get(http, site, "/security", Cookie=cookie)).text()
    forms = re.findall(r"<form[^>]*>", page)
    assert len(forms) > 3
    assert all('method="post"' in form for form in forms)
    answer = await post(http, site, "/scripts-needed", {"label": "x"}, Cookie=cookie, Origin=site.url)
    assert (answer.status, answer.content_type) == (400, "text/html")
    assert "JavaScript diperlukan" in await answer.text()


async def test_failed_logins_of_anyone_do_not_fill_the_log(http, site):
    with capture_logs() as logs:
        for _ in range(3 * REFUSALS_PER_SECOND):
            assert (await get(http, site, "/login/callback?state=none&error=access_denied")).status == 303
    assert 0 < [line["event"] for line in logs].count("login_failed") < 3 * REFUSALS_PER_SECOND
