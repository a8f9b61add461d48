"""A browser's requests: cookies that only it and we can use, and unsafe calls from our own pages alone."""

from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from admin.audit import Provenance
from admin.errors import CrossSite
from admin.identity.browser import CSRF_HEADER, SESSION_COOKIE, Browsers, origin_of, set_login_cookie
from admin.identity.caller import Caller, Kyc
from admin.identity.sessions import SessionStore
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock

ORIGIN = "https://keys.exchange.example"
CALLER = Caller(account_id="budi", email=None, kyc=Kyc.VERIFIED, authenticated_ms=1, issued_ms=1)


@pytest.fixture
async def browsers(redis_url: str) -> AsyncIterator[Browsers]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        store = SessionStore(client, Vault.parse(new_entry("k1")), idle_ms=600_000, absolute_ms=3_600_000)
        yield Browsers(store, ORIGIN + "/")


@pytest.fixture
async def client(browsers: Browsers) -> AsyncIterator[TestClient]:
    async def log_in(request: web.Request) -> web.Response:
        response = web.Response()
        await browsers.open(request, response, CALLER, Provenance(clock.now_ms(), None))
        set_login_cookie(request, response, "a state", "x")
        return response

    async def who(request: web.Request) -> web.Response:
        try:
            caller = await browsers.authenticate(request, clock.now_ms())
        except CrossSite:
            return web.Response(status=403)
        return web.Response(text=caller.account_id if caller else "nobody")

    def after(work: Callable) -> Callable:
        async def handle(request: web.Request) -> web.Response:
            response = web.Response()
            await browsers.session(request, clock.now_ms())
            await work(request, response)
            return response

        return handle

    application = web.Application()
    application.router.add_get("/log-in", log_in)
    application.router.add_route("*", "/who", who)
    application.router.add_get("/rotate", after(browsers.rotate))
    application.router.add_get("/close", after(browsers.close))
    async with TestClient(TestServer(application)) as client:
        yield client


async def cookie_of(client: TestClient, path: str = "/log-in", cookie: str | None = None) -> str:
    response = await client.get(path, headers={"Cookie": f"{SESSION_COOKIE}={cookie}"} if cookie else {})
    return response.cookies[SESSION_COOKIE].value


async def who(client: TestClient, cookie: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    response = await client.request(method, "/who", headers={"Cookie": f"{SESSION_COOKIE}={cookie}", **headers})
    return response.status, await response.text()


async def csrf_of(browsers: Browsers, cookie: str) -> str:
    session = await browsers.store.find(cookie, clock.now_ms())
    assert session is not None
    return session.csrf_token


async def test_cookies_are_bound_to_this_host_and_hidden_from_scripts_and_other_sites(client):
    response = await client.get("/log-in")
    lines = response.headers.getall("Set-Cookie")
    assert len(lines) == 2
    for line in lines:
        parts = {part.strip().lower() for part in line.split(";")}
        assert line.startswith("__Host-")
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= parts
        assert not any(part.startswith("domain") for part in parts)


async def test_a_session_names_its_caller(client):
    cookie = await cookie_of(client)
    assert await who(client, cookie) == (200, "budi")
    assert await who(client, "A" * 43) == (200, "nobody")


async def test_a_rotated_cookie_replaces_the_old_one(client):
    old = await cookie_of(client)
    new = await cookie_of(client, "/rotate", old)
    assert new != old
    assert await who(client, old) == (200, "nobody")
    assert await who(client, new) == (200, "budi")


async def test_a_login_ends_the_session_before_it_so_that_nobody_can_plant_one(client):
    planted = await cookie_of(client)
    await cookie_of(client, "/log-in", planted)
    assert await who(client, planted) == (200, "nobody")


async def test_closing_ends_it_on_both_sides(client):
    cookie = await cookie_of(client)
    response = await client.get("/close", headers={"Cookie": f"{SESSION_COOKIE}={cookie}"})
    assert response.cookies[SESSION_COOKIE]["max-age"] == "0"
    assert await who(client, cookie) == (200, "nobody")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_an_unsafe_call_needs_our_origin_and_the_token_of_this_session(client, browsers, method):
    cookie, other = await cookie_of(client), await cookie_of(client)
    token, others = await csrf_of(browsers, cookie), await csrf_of(browsers, other)
    assert await who(client, cookie, method, Origin=ORIGIN, **{CSRF_HEADER: token}) == (200, "budi")
    for headers in (
        {},
        {"Origin": ORIGIN},
        {CSRF_HEADER: token},
        {"Origin": ORIGIN, CSRF_HEADER: others},
        {"Origin": ORIGIN, CSRF_HEADER: ""},
        {"Origin": ORIGIN, CSRF_HEADER: token[:-1]},
        {"Origin": "null", CSRF_HEADER: token},
        {"Origin": "https://evil.example", CSRF_HEADER: token},
        {"Origin": ORIGIN + ".evil.example", CSRF_HEADER: token},
        {"Origin": ORIGIN.replace("https", "http"), CSRF_HEADER: token},
        {"Referer": ORIGIN + "/keys", CSRF_HEADER: token},
    ):
        assert (await who(client, cookie, method, **headers))[0] == 403, headers


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://keys.exchange.example/", "https://keys.exchange.example"),
        ("https://KEYS.exchange.example:443/x", "https://keys.exchange.example"),
        ("http://localhost:8090", "http://localhost:8090"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:8090", "http://[::1]:8090"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url, origin):
    assert origin_of(url) == origin
