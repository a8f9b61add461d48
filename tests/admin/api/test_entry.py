"""In front of every operation: authentication, limits, the form of requests and of refusals."""

import asyncio
import gzip
import json
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from admin.api.entry import rotate_session
from admin.app import CannotStart, serving
from admin.identity.browser import SESSION, SESSION_COOKIE, Browsers
from admin.identity.caller import Caller, Kyc
from admin.identity.sessions import Session, SessionStore
from deploy.local.redis import RedisServer
from gateway.keys import redis_client
from gateway.keys.vault import Vault, new_entry
from gateway.runtime import clock
from tests.support.admin import KEY, Customer, Service, running_service, settings_for
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.stack import Database

PUBLIC = ("account", "keys", "keys/gbk_x", "audit")


def problem(reply, status: int, code: str) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.body["status"] == status
    assert reply.body["code"] == code
    assert reply.body["request_id"] == reply.headers["X-Request-Id"]
    assert {"type", "title", "detail"} <= set(reply.body)
    assert "aiohttp" not in reply.headers["Server"]


@pytest.mark.parametrize("path", PUBLIC)
async def test_without_a_token_nothing_is_told(service: Service, path: str) -> None:
    reply = await service.send("GET", f"{service.public}/api/v1/{path}")
    problem(reply, 401, "unauthenticated")
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="gerbang"'


async def test_a_bad_token_is_told_why(service: Service) -> None:
    reply = await service.customer(exp=1).call("GET", "account")
    problem(reply, 401, "unauthenticated")
    assert 'error="invalid_token"' in reply.headers["WWW-Authenticate"]
    assert "expired" in reply.body["detail"]


async def test_a_token_signed_by_a_rotated_key_is_accepted(issuer: Issuer, database: Database, redis_url: str) -> None:
    oidc = {"issuer": issuer.url, "audience": AUDIENCE, "refetch_after_ms": 1}
    async with running_service(settings_for(issuer, database.admin_dsn, redis_url, oidc=oidc), issuer) as service:
        old = service.customer()
        assert (await old.call("GET", "account")).status == 200
        issuer.rotate()
        assert (await service.customer().call("GET", "account")).status == 200
        problem(await old.call("GET", "account"), 401, "unauthenticated")


async def test_an_unknown_path_is_a_problem(service: Service) -> None:
    problem(await service.send("GET", f"{service.public}/api/v2/keys"), 404, "not_found")
    problem(await service.send("GET", f"{service.internal}/"), 404, "not_found")


async def test_a_wrong_method_is_told_the_right_ones(service: Service) -> None:
    reply = await service.send("PUT", f"{service.public}/api/v1/account")
    problem(reply, 405, "method_not_allowed")
    assert "GET" in reply.headers["Allow"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"label": "\xff"}', b"{}{}", b'{"label": "\\ud800"}', b"[" * 10_000, b'{"a":' * 5_000],
    ids=["empty", "cut", "words", "not UTF-8", "two", "half a surrogate", "deep list", "deep object"],
)
async def test_what_is_not_json_is_malformed(alice: Customer, service: Service, body: bytes) -> None:
    headers = {**alice.headers, "Content-Type": "application/json"}
    problem(await service.send("POST", f"{service.public}/api/v1/keys", data=body, headers=headers), 400, "malformed_request")


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null", b"{}"])
async def test_json_that_is_no_creation_is_invalid(alice: Customer, service: Service, body: bytes) -> None:
    headers = {**alice.headers, "Content-Type": "application/json"}
    problem(await service.send("POST", f"{service.public}/api/v1/keys", data=body, headers=headers), 422, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_of_another_type_is_refused(alice: Customer, service: Service, kind: str) -> None:
    headers = {**alice.headers, "Content-Type": kind}
    reply = await service.send("POST", f"{service.public}/api/v1/keys", data=json.dumps(KEY).encode(), headers=headers)
    problem(reply, 415, "unsupported_media_type")


async def test_a_large_body_is_refused_and_a_compressed_one_is_not_unpacked(alice: Customer, service: Service) -> None:
    body = b'{"label": "' + b"x" * 200_000 + b'"}'
    headers = {**alice.headers, "Content-Type": "application/json"}
    reply = await service.send("POST", f"{service.public}/api/v1/keys", data=body, headers=headers)
    problem(reply, 413, "body_too_large")
    assert reply.body["limit"] == service.settings.limits.max_body_bytes
    packed = {**headers, "Content-Encoding": "gzip"}
    reply = await service.send("POST", f"{service.public}/api/v1/keys", data=gzip.compress(body), headers=packed)
    problem(reply, 415, "unsupported_media_type")
    assert reply.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "before=0", "before=-1", "unknown=1", "limit=1&limit=2", "before=" + "9" * 30]
)
async def test_a_wrong_parameter_is_refused(alice: Customer, query: str) -> None:
    problem(await alice.call("GET", f"audit?{query}"), 422, "invalid_request")


async def test_the_audit_is_read_page_by_page(alice: Customer) -> None:
    await alice.create()
    first = (await alice.call("GET", "audit?limit=2")).body
    second = (await alice.call("GET", f"audit?limit=2&before={first['next_before']}")).body
    assert [event["event"] for event in first["events"] + second["events"]] == ["key_created", "factor_added", "kyc_changed"]
    assert second["next_before"] is None


async def test_an_account_that_asks_too_much_is_slowed_down(issuer: Issuer, database: Database, redis_url: str) -> None:
    settings = settings_for(issuer, database.admin_dsn, redis_url, limits={"per_account": "5/hour", "per_ip_failures": "3/hour"})
    async with running_service(settings, issuer) as service:
        alice = service.customer()
        replies = [await alice.call("GET", "account") for _ in range(6)]
        assert [reply.status for reply in replies] == [200] * 5 + [429]
        problem(replies[-1], 429, "rate_limited")
        assert 0 < replies[-1].body["retry_after_ms"] <= 720_000
        assert int(replies[-1].headers["Retry-After"]) <= 720
        assert (await service.customer("bob").call("GET", "account")).status == 200
        guesses = [await service.customer("mallory", exp=1).call("GET", "account") for _ in range(4)]
        assert [reply.status for reply in guesses] == [401] * 3 + [429]
        # Guesses from the same address cost a customer with a good token nothing.
        assert (await service.customer("carol").call("GET", "account")).status == 200


async def test_a_body_that_does_not_arrive_is_given_up(issuer: Issuer, database: Database, redis_url: str) -> None:
    settings = settings_for(issuer, database.admin_dsn, redis_url, limits={"request_timeout_ms": 1_000})
    async with running_service(settings, issuer) as service:
        assert (await service.customer().call("GET", "account")).status == 200  # the provider's keys are there: only the body is missing
        host, port = service.public.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        token = service.customer().headers["Authorization"]
        lines = ("POST /api/v1/keys HTTP/1.1", "Host: x", f"Authorization: {token}", "Content-Type: application/json", "Content-Length: 10")
        head = "\r\n".join((*lines, "", "{"))
        writer.write(head.encode())
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await writer.wait_closed()


async def test_a_defect_is_told_without_a_word_about_it(alice: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_args: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("admin.stores.Stores.last_use", broken)
    reply = await alice.call("GET", "keys")
    problem(reply, 500, "internal_error")
    assert "hunter2" not in reply.text


async def test_health_is_told_on_both_ports(service: Service) -> None:
    for url in (service.public, service.internal):
        assert (await service.send("GET", f"{url}/health")).body == {"status": "alive"}
        assert (await service.send("GET", f"{url}/ready")).body == {"status": "ready", "missing": []}


async def test_a_port_in_use_is_told_in_one_line(service: Service, issuer: Issuer, database: Database, redis_url: str) -> None:
    taken = service.public.removeprefix("http://")
    settings = settings_for(issuer, database.admin_dsn, redis_url, listen={"public": taken, "internal": "127.0.0.1:0"})
    with pytest.raises(CannotStart, match=f"listen.public: {taken} cannot be listened on") as caught:
        async with serving(settings):
            pass
    assert "\n" not in str(caught.value)


async def test_an_answer_is_given_also_when_the_session_cannot_be_rotated(own_redis: RedisServer) -> None:
    """The answer may hold a secret that is shown once."""
    own_redis.stop()
    client = redis_client.connect(own_redis.url)
    browsers = Browsers(SessionStore(client, Vault.parse(new_entry("a")), idle_ms=60_000, absolute_ms=60_000), "https://exchange.example")
    request = make_mocked_request("POST", "/", headers={"Cookie": f"{SESSION_COOKIE}={'x' * 43}"})
    caller = Caller(account_id="alice", email=None, kyc=Kyc.VERIFIED, authenticated_ms=0, issued_ms=0, session_id="a")
    request[SESSION] = Session(caller=caller, csrf_token="b", created_ms=0, seen_ms=clock.now_ms())
    response = web.Response()
    await rotate_session(browsers, request, response, SimpleNamespace(proof="given"))
    assert "Set-Cookie" not in response.headers
    await client.aclose()
