"""Odd heads and bodies at every route of both ports: each is refused cleanly, and nothing is logged as if something here were broken."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs
from yarl import URL

from admin import service as admin_service
from admin.wiring import build
from tests.admin.pages.test_app import log_in
from tests.support.pages import INTERNAL_TOKEN, Site, running_site
from tests.support.stack import Database

LIMITS = {"per_account": "1000000/minute", "per_ip_failures": "1000000/minute", "request_timeout_ms": 300}
FORM = "application/x-www-form-urlencoded"

HEADS: tuple[tuple[bytes, ...], ...] = (
    (b"Host: localhost:99999",),
    (b"Host: 127.0.0.1:x",),
    (b"Host: 127.0.0.1:23010#",),
    (b"Host: \xff",),
    (b"Host: a", b"Host: b"),
    (b"Host: [::1",),
    (b"Host: a..b:80",),
    (b"Host: xn--\x80",),
    (b"Host: user@localhost",),
    (b"Authorization: Bearer \xff",),
    (b"Authorization: \xff",),
    (b"Authorization: Bearer a.b.c", b"Authorization: Bearer a.b.c"),
    (b"Accept: text/html", b"Accept-Language: \xff;q=nan, id;q=1e999, ;q="),
    (b"Cookie: \xff=\xfe; __Host-gerbang=\xff; gerbang-language=\xff; =; ;;",),
    (b"User-Agent: \xff", b"X-Forwarded-For: \xff, 1.2.3.4"),
    (b"Expect: \xff",),
    (b"Range: bytes=a-b", b"If-None-Match: \xff", b"If-Modified-Since: \xff"),
    (b"Upgrade: websocket", b"Connection: Upgrade"),
    (b"X: " + b"secret" * 2_000,),
    (b"X-CSRF-Token: \xe9",),
)
BODIES: tuple[tuple[tuple[bytes, ...], bytes], ...] = (
    *(
        ((b"Content-Type: application/x-www-form-urlencoded; charset=" + charset,), b"language=en&return_to=/")
        for charset in (b"nope", b"utf-16", b"base64", b"rot13", b"\xff", b"")
    ),
    ((b"Content-Type: application/x-www-form-urlencoded",), b"\xff\xfe=\xff"),
    ((b"Content-Type: application/x-www-form-urlencoded",), b"%ff=%fe&csrf_token=%ff"),
    ((b"Content-Type: application/x-www-form-urlencoded",), b"language=en&language=id"),
    ((b"Content-Type: application/x-www-form-urlencoded",), b"language=%00&return_to=%00"),
    ((b"Content-Type: application/x-www-form-urlencoded",), b"&".join(b"a%d=" % number for number in range(2_000))),
    ((b"Content-Type: multipart/form-data",), b"x"),
    ((b"Content-Type: multipart/form-data; boundary=",), b"x"),
    ((b"Content-Type: multipart/form-data; boundary=b",), b"garbage"),
    ((b"Content-Type: multipart/form-data; boundary=b",), b"--b\r\n\r\nno name\r\n--b--\r\n"),
    (
        (b"Content-Type: multipart/form-data; boundary=b",),
        b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\n--c--\r\n--b--\r\n",
    ),
    (
        (b"Content-Type: multipart/form-data; boundary=b",),
        b'--b\r\nContent-Disposition: form-data; name="language"\r\nContent-Type: text/plain; charset=nope\r\n\r\nx\r\n--b--\r\n',
    ),
    *(
        ((b"Content-Type: application/json", b"Content-Encoding: " + coding), b"garbage")
        for coding in (b"gzip", b"deflate", b"br", b"\xff")
    ),
    ((b"Content-Type: application/x-www-form-urlencoded", b"Content-Encoding: gzip"), b"garbage"),
    *(
        ((b"Content-Type: application/json",), body)
        for body in (
            b"", b"\xff", b"null", b"[]", b"1", b'"\\ud800"', b"[" * 20_000, b"{}", b'{"a": NaN}', b'{"a": 1e999}', b"9" * 5_000,
            b'{"kyc": "revoked", "kyc": "verified"}', b'{"code": "1", "code": "2"}', b'{"reason": "a", "reason": "b"}',
            b'{"reason": "\\u0000"}', b'{"reason": "\\ud800"}', b'{"name": "\\u0000"}',
            b'{"code": "\\ud800"}', b'{"ip_allowlist": ["\\ud800"]}',
            b'{"otpauth_uri": "otpauth://\\ud800"}', b'{"otpauth_uri": "otpauth://\\u0000"}',
            b'{"intent": {"action": "delete_key", "key_id": "\\u0000"}}', b'{"intent": {"action": "delete_key", "key_id": "\\ud800"}}',
            b'{"intent": {"action": "create_key", "label": "\\u0000", "scopes": ["read"], "ip_access": "unrestricted"}}',
            b'{"intent": {"action": "remove_factor", "factor_id": "x"}}',
            b'{"where": {"label": "\\u0000"}, "dry_run": true}', b'{"where": {"since": 1e30}, "dry_run": true}',
            b'{"where": {"since": 99999999999999999999}, "dry_run": true}', b'{"where": {"since": 9999999999999999}, "dry_run": true}',
            b'{"where": {"ip": "fe80::1%x"}, "dry_run": true}', b'{"where": {"email": "\\u0000", "label": "x"}, "dry_run": true}',
            b'{"step_up": {"challenge_id": "x", "totp": "\\u0000"}}', b'{"step_up": {"challenge_id": "x", "passkey": {"id": "\\u0000"}}}',
            b'{"step_up": {"challenge_id": "x", "recovery_code": "\\u0000"}}', b'{"id": "\\u0000", "type": "public-key", "response": {}}',
            b'{"id": "x", "type": "public-key", "response": {"clientDataJSON": 1, "attestationObject": "\\u0000"}}',
        )
    ),
    ((b"Content-Type: \xff",), b"x"),
    ((b"Content-Type: text/plain; charset",), b"x"),
    ((b"Content-Type: application/json", b"Content-Type: application/x-www-form-urlencoded"), b"a=b"),
    ((b"Content-Type: application/json",), b"x" * 70_000),
)  # fmt: skip
BROKEN = (
    b"Transfer-Encoding: chunked\r\n\r\nz\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
    b"Transfer-Encoding: gzip\r\n\r\nx",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    b"Content-Length: 10\r\n\r\nabc",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
)
QUERIES = (
    "label=%00", "email=%00", "account=%00", "key=%00", "code=%00", "event=%00", "actor=%00", "ip=%00", "ip=fe80::1%25x", "ip=1.2.3.4/99",
    "since=9999-12-31T23:59:59-14:00", "until=0001-01-01T00:00:00%2B14:00", "since=99999999999999999999", "unused_since=%00", "cursor=%00",
    "cursor=WyJcdTAwMDAiXQ", "cursor=WyJcdWQ4MDAiXQ", "cursor=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwgIngiXQ", "cursor=" + "W" * 900,
    "cursor=99999999999999999999", "limit=" + "9" * 5_000, "before=%00", "before=" + "9" * 5_000,
    "from=%00&address=%00&scope=%00", "%ff=%fe",
    "a=1&a=2", "return_to=%00", "return_to=//evil.example", "outcome=%00", "code=x&state=" + "a" * 43,
    "state=%00&code=%00", "error=%00&state=x",
    "next=%00", "again=%ff", "&&==&", "%",
)  # fmt: skip
ODD_IDS = ("%00", "%ff", "%F0%9F%98%80", "gbk_" + "0" * 28)
LINES = (
    b"GET /\xff HTTP/1.1", b"GET /keys?\xff=\xfe HTTP/1.1", b"GET http://localhost:99999/keys HTTP/1.1", b"GET http://[::1/keys HTTP/1.1",
    b"GET //keys HTTP/1.1",
    b"GET /%00 HTTP/1.1", b"GET /static/x/%00 HTTP/1.1", b"GET /static/x/..%2f..%2fkeys HTTP/1.1",
    b"GET /keys/%00/delete HTTP/1.1", b"GET /keys/%ff/delete HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT a:443 HTTP/1.1",
    b"CONNECT / HTTP/1.1",
    b"PRI * HTTP/2.0", b"GET /keys HTTP/9.9", b"GET /keys", b"G\xff /keys HTTP/1.1", b"POST /language HTTP/1.0", b"\x16\x03\x01\x02\x00",
    b"GET /" + b"a" * 9_000 + b" HTTP/1.1", b"HEAD /keys HTTP/1.1", b"TRACE /keys HTTP/1.1", b"GET /keys#x HTTP/1.1", b"GET ?a=b HTTP/1.1",
)  # fmt: skip


@dataclass
class World:
    """A running service, its routes by port, and what proves one to be admitted at each."""

    site: Site
    routes: dict[str, list[tuple[str, str]]]
    admitted: dict[str, tuple[bytes, ...]]

    def address(self, port: str) -> tuple[str, int]:
        url = URL(self.site.url if port == "public" else self.site.internal_url)
        return "127.0.0.1", int(url.port or 0)

    async def ask(self, port: str, line: bytes, fields: tuple[bytes, ...] = (), rest: bytes | None = None, body: bytes = b"") -> bytes:
        """The whole answer, ``b""`` when the connection was closed without one."""
        given = fields if any(field.lower().startswith(b"host:") for field in fields) else (b"Host: localhost", *fields)
        framing = b"Content-Length: %d\r\n\r\n%s" % (len(body), body) if rest is None else rest
        return await exchanged(self.address(port), b"\r\n".join((line, *given, b"Connection: close", framing)), end=rest is not None)


async def exchanged(address: tuple[str, int], data: bytes, *, end: bool) -> bytes:
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data)
        if end:
            writer.write_eof()
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def world(database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    built: list[web.Application] = []

    def keeping(*arguments: Any, **named: Any) -> tuple[web.Application, ...]:
        built[:] = build(*arguments, **named)
        return tuple(built)

    monkeypatch.setattr(admin_service, "build", keeping)
    async with running_site(database, redis_url, limits=LIMITS) as site, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        cookie, csrf = await log_in(http, site)
        routes = {}
        for port, application in zip(("public", "internal"), built, strict=True):
            found = [(route.method, str(route.resource.canonical)) for route in application.router.routes() if route.resource is not None]
            routes[port] = sorted(found, key=lambda route: "logout" in route[1])
        admitted = {
            "public": (b"Origin: " + site.url.encode(), b"Cookie: " + cookie.encode(), b"X-CSRF-Token: " + csrf.encode()),
            "internal": (b"Authorization: Bearer " + INTERNAL_TOKEN.encode(),),
        }
        yield World(site, routes, admitted)


@pytest.fixture
def no_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails when anything was logged at error level."""
    with capture_logs() as lines:
        yield
    assert [line for line in lines if line["log_level"] in ("error", "critical", "exception")] == []
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []
    assert not any("secretsecret" in str(line) for line in (*lines, *(record.getMessage() for record in records)))


def faults(answer: bytes, *about: object) -> list[object]:
    """What is wrong with an answer: the server's fault, its software named, or a refusal in another form than ours."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head[9:12]) if head else 0
    strange = status >= 400 and body and not re.search(rb"(?im)^content-type: (application/problem\+json|text/html)", head)
    return [(*about, answer[:300])] if status >= 500 or b"aiohttp" in head or strange else []


def concrete(path: str, instead: str) -> str:
    return re.sub(r"\{[^}]+\}", instead, path)


@pytest.mark.parametrize("port", ["public", "internal"])
@pytest.mark.usefixtures("no_errors")
async def test_odd_heads_are_refused_at_every_route(world: World, port: str) -> None:
    found = []
    for method, path in world.routes[port]:
        line = f"{method} {concrete(path, 'x')} HTTP/1.1".encode()
        for fields in HEADS:
            found += faults(await world.ask(port, line, fields), line, fields)
            found += faults(await world.ask(port, line, (*world.admitted[port], *fields)), line, fields, "admitted")
    for line in LINES:
        found += faults(await world.ask(port, line), line)
    assert found == []


@pytest.mark.parametrize("port", ["public", "internal"])
@pytest.mark.usefixtures("no_errors")
async def test_odd_queries_and_ids_are_refused_at_every_route(world: World, port: str) -> None:
    found = []
    for method, path in world.routes[port]:
        targets = [f"{concrete(path, 'x')}?{query}" for query in (QUERIES if method == "GET" else QUERIES[:1])]
        targets += [concrete(path, odd) for odd in ODD_IDS if "{" in path]
        for target in targets:
            line = f"{method} {target} HTTP/1.1".encode()
            found += faults(await world.ask(port, line, world.admitted[port]), line)
    assert found == []


@pytest.mark.parametrize("port", ["public", "internal"])
@pytest.mark.usefixtures("no_errors")
async def test_odd_bodies_are_refused_at_every_route(world: World, port: str) -> None:
    found, form = [], b"Content-Type: " + FORM.encode()
    for method, path in world.routes[port]:
        if method in ("GET", "HEAD"):
            continue
        line = f"{method} {concrete(path, 'x')} HTTP/1.1".encode()
        by_header = world.admitted[port]
        by_form = by_header[:2]  # the token of a page would be in the form
        for who in (by_form, by_header):
            for fields, body in BODIES:
                found += faults(await world.ask(port, line, (*who, *fields), body=body), line, who, fields, body[:80])
            for rest in BROKEN:
                found += faults(await world.ask(port, line, (*who, form), rest), line, who, rest)
    assert found == []


@pytest.mark.usefixtures("no_errors")
async def test_a_body_that_does_not_come_is_not_waited_for(world: World) -> None:
    origin, cookie, csrf = world.admitted["public"]
    for path, fields in (
        ("/language", (origin, b"Content-Type: " + FORM.encode())),
        ("/logout", (origin, cookie, b"Content-Type: " + FORM.encode())),
        ("/security/qr", (origin, cookie, csrf, b"Content-Type: application/json")),
        ("/keys/check-addresses", (origin, cookie, csrf, b"Content-Type: application/json")),
        ("/api/v1/step-up", (origin, cookie, csrf, b"Content-Type: application/json")),
    ):
        head = (f"POST {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close", b"Content-Length: 1000", *fields)
        reader, writer = await asyncio.open_connection(*world.address("public"))
        writer.write(b"\r\n".join((*head, b"", b"{")))
        async with asyncio.timeout(60):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408"), path
        writer.close()


@pytest.mark.usefixtures("no_errors")
async def test_a_form_is_urlencoded_utf_8_and_short(world: World) -> None:
    urlencoded = b"Content-Type: " + FORM.encode()
    for fields, body, status in (
        ((b"Content-Type: multipart/form-data; boundary=b",), b"--b--\r\n", 415),
        ((urlencoded + b"; charset=utf-16",), b"language=en", 415),
        ((urlencoded, b"Content-Encoding: br"), b"language=en", 415),
        ((urlencoded,), b"language=" + b"x" * 70_000, 413),
        ((urlencoded,), b"language=\xff", 400),
        ((urlencoded,), b"language=en&language=id", 400),
        ((urlencoded + b"; charset=UTF-8",), b"language=en", 303),
    ):
        answer = await world.ask("public", b"POST /language HTTP/1.1", (world.admitted["public"][0], *fields), body=body)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]


async def test_a_member_named_twice_is_refused(world: World) -> None:
    json = (*world.admitted["internal"], b"Content-Type: application/json")
    for body in (b'{"kyc": "revoked", "kyc": "verified"}', b'{"kyc": "revoked", "k\\u0079c": "verified"}'):
        answer = await world.ask("internal", b"PUT /internal/v1/accounts/x HTTP/1.1", json, body=body)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert b"repeats a member name" in answer
