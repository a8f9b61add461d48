"""The shipped configurations of proxies that ask for decisions, each run by the real proxy before a real gateway."""

import re
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import product

import aiohttp
import pytest
import yaml

from deploy.signing import sign
from gateway.admission.dialects import CREDENTIAL_FIELDS
from gateway.runtime import clock
from tests.support.decisions import DEPLOY, IDENTITY, PROXIES, proxy, signed, signing_key
from tests.support.running import running
from tests.support.wire import OK, RawClient, answering

FORGED = dict.fromkeys(
    (*IDENTITY, "X-Gateway-Assertion", "X-Client-IP", "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded"),
    "someone-else",
)
OTHER_REQUEST = (
    {"X-Forwarded-Method": "POST"},
    {"X-Forwarded-Uri": "/orders"},
    {"X-Original-URI": "/orders"},
    {"X-HTTP-Method-Override": "POST"},
)
UNSIGNED = b"price=someone-else"
BODY = b'{"price":"1"}'
SEES_CONTENT = ("caddy", "envoy", "traefik")
"""Through which a signed order passes: what nginx forwards has none."""
TELLS_LIMITS = ("nginx", "caddy", "envoy")
"""Which set RateLimit fields on an answer of the service."""


@pytest.mark.parametrize("name", PROXIES)
async def test_the_service_gets_what_the_gate_has_seen_and_the_client_what_the_gate_answers(name, write, key, upstream, tmp_path):
    upstream.script = answering(OK.replace(b"\r\n", b"\r\nServer: exchange\r\n", 1))
    async with running(write()) as gateway, proxy(name, gateway, upstream, tmp_path) as url, checking_session() as session:
        await check_identity(session, url, key, upstream, tells_limits=name in TELLS_LIMITS)
        await check_content(url, key, upstream)
        await check_trade(session, url, key, upstream, passes=name in SEES_CONTENT)
        assert b"someone-else" not in upstream.raw
        await check_sizes(session, url, key, upstream)
        await check_refusals(session, url, key)
        await check_cancel(session, url, key, upstream)
        await check_what_the_gate_answers_itself(session, url, key, upstream)
        await check_limited(session, url)


@asynccontextmanager
async def checking_session():
    """A session that fails if a field came twice in an answer: none of those that are expected is a list (RFC 9110 §5.3)."""
    repeated = []

    async def look(_session, _context, ended):
        names = [name.lower() for name, _ in ended.response.headers.items()]
        repeated.extend(name for name in set(names) if names.count(name) > 1)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_end.append(look)
    async with aiohttp.ClientSession(trace_configs=[tracing]) as session:
        yield session
    assert repeated == []


async def check_identity(session, url, key, upstream, *, tells_limits):
    """It is the gate's word, and no credentials go on."""
    async with session.get(f"{url}/gateway/v1/ip", headers=FORGED | {"X-Forwarded-For": "8.8.8.8"}) as answer:
        address = (await answer.json())["client_ip"]  # Envoy names the machine's own for a client on the loopback
        assert address != "8.8.8.8"
    async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets") | FORGED) as answer:
        assert answer.status == 200
        assert ("RateLimit-Remaining" in answer.headers) is tells_limits
    (seen,) = upstream.requests
    told = {"x-account-id": key.account_id, "x-key-id": key.key_id, "x-key-scopes": "read,trade", "x-client-ip": address}
    assert {field: seen.values(field.encode()) for field in told} == {field: [value.encode()] for field, value in told.items()}
    assert [value.count(b".") for value in seen.values(b"x-gateway-assertion")] == [2]
    assert seen.values(b"x-forwarded-for") == [address.encode()]
    assert not {field for field, _ in seen.headers} & (CREDENTIAL_FIELDS | {b"x-forwarded-method", b"x-forwarded-uri"})
    async with session.get(f"{url}/public", headers=FORGED) as answer:  # nobody's identity is nobody's
        assert answer.status == 200
    assert [value for field in IDENTITY for value in upstream.requests[1].values(field.lower().encode()) if value] == []
    # The proxy's own connection is no business of the client's: it cannot take out what the gate says.
    async with session.get(
        f"{url}/wallets", headers=signed(key, "GET", "/wallets") | {"Connection": "X-Account-Id, X-Client-IP"}
    ) as answer:
        assert answer.status == 200
    assert [upstream.requests[2].values(field.encode()) for field in told] == [[value.encode()] for value in told.values()]
    # Neither another spelling nor another method or path than the one that was decided on.
    for more in (*OTHER_REQUEST, {"X_Account_Id": "someone-else"}):
        before = len(upstream.requests)
        async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets") | more) as answer:
            assert answer.status in (200, 400)
        for request in upstream.requests[before:]:
            assert request.line == b"GET /wallets HTTP/1.1"
            assert not [field for field, _ in request.headers if field in {name.lower().encode() for name in more}]


async def check_content(url, key, upstream):
    """Of content that no signature covers, no byte reaches the service, whatever the method and the framing."""
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(UNSIGNED), UNSIGNED)
    framings = {b"X-Without: content": b"", b"Content-Length: %d" % len(UNSIGNED): UNSIGNED, b"Transfer-Encoding: chunked": chunked}
    calls = (("GET", "/wallets"), ("HEAD", "/wallets"), ("POST", "/orders"), ("DELETE", "/orders/1"))
    now = 0
    for dialect, (method, target), (framing, content) in product(("mobee", "binance", "rfc9421"), calls, framings.items()):
        before, case = len(upstream.requests), (dialect, method, framing)
        now = max(clock.now_ms(), now + 1)  # no two signatures are alike
        outgoing = sign(dialect, signing_key(key), method, target, b"", now_ms=now, nonce=str(now))
        status = await status_of(url, method, outgoing, framing, content)
        assert status in ((200, 400, 401) if content else (200,)), case
        arrived = upstream.requests[before:]
        assert len(arrived) == (status == 200), case
        assert [request.body for request in arrived] == [b""] * len(arrived), case


async def status_of(url, method, outgoing, framing, content):
    fields = b"".join(f"{field}: {value}\r\n".encode() for field, value in outgoing.headers.items())
    client = await RawClient.connect("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        head = b"%b %b HTTP/1.1\r\nHost: api.example\r\n%b%b\r\n\r\n" % (method.encode(), outgoing.target.encode(), fields, framing)
        return (await client.ask(head + content)).status
    finally:
        await client.close()


async def check_trade(session, url, key, upstream, *, passes):
    """An order whose content is signed, once; where content does not go on, what signs it is refused."""
    before = len(upstream.requests)
    headers = signed(key, "POST", "/orders", BODY) | {"X-Account-Id": "someone-else"}
    outcomes = []
    for _ in range(2):
        async with session.post(f"{url}/orders", data=BODY, headers=headers) as answer:
            outcomes.append((answer.status, answer.status != 200 and (await answer.json(content_type=None))["code"]))
    assert outcomes == ([(200, False), (409, "replayed_request")] if passes else [(401, "invalid_credentials")] * 2)
    assert [request.body for request in upstream.requests[before:]] == [BODY] * passes


async def check_cancel(session, url, key, upstream):
    """One that the service has read reaches it once, on a connection that was used before, too."""

    async def script(side, request):
        if request.line.startswith(b"DELETE "):
            side.writer.transport.abort()
        else:
            side.send(OK)

    upstream.script = script
    async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets")) as answer:
        assert answer.status == 200
    async with session.delete(f"{url}/orders/7", headers=signed(key, "DELETE", "/orders/7")) as answer:
        assert answer.status in (502, 503)
    upstream.script = answering(OK)
    async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets")) as answer:
        assert answer.status == 200
    assert [request.line for request in upstream.requests].count(b"DELETE /orders/7 HTTP/1.1") == 1


async def check_sizes(session, url, key, upstream):
    """A head of nearly 16 KiB passes; a larger one, and too much content, reach nobody."""
    async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets") | {"X-Note": "a" * 15_000}) as answer:
        assert answer.status == 200
    before = len(upstream.requests)
    async with session.get(f"{url}/wallets", headers=signed(key, "GET", "/wallets") | {"X-Note": "a" * 16_500}) as answer:
        assert answer.status in (400, 431)
    large = b"a" * ((1 << 20) + 1)
    async with session.post(f"{url}/orders", data=BytesIO(large), headers=signed(key, "POST", "/orders", large)) as answer:
        assert answer.status == 413
    assert len(upstream.requests) == before


async def check_refusals(session, url, key):
    """Each reaches the client as the gate wrote it: status, type, body and fields."""
    async with session.get(f"{url}/wallets") as answer:
        assert (answer.status, answer.content_type) == (401, "application/problem+json")
        problem = await answer.json(content_type=None)
        assert (problem["code"], problem["status"], problem["dialects"][0]) == ("missing_credentials", 401, "mobee")
    async with session.get(f"{url}/nowhere", headers=signed(key, "GET", "/nowhere")) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (404, "no_route")
    async with session.put(f"{url}/wallets", headers=signed(key, "PUT", "/wallets")) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    async with session.get(f"{url}/wallets", headers={"X-MBX-APIKEY": key.key_id}) as answer:
        assert (answer.status, answer.content_type) == (401, "application/json")
        assert (await answer.json())["gerbang"]["code"] == "missing_credentials"


async def check_what_the_gate_answers_itself(session, url, key, upstream):
    async with session.get(f"{url}/gateway/v1/key", headers=signed(key, "GET", "/gateway/v1/key")) as answer:
        assert (answer.status, (await answer.json())["key_id"]) == (200, key.key_id)
    upstream.script = answering(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    client = await RawClient.connect("127.0.0.1", int(url.rpartition(":")[2]))
    client.send(
        b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert (await client.head())[0] == 101
    await client.close()
    assert upstream.requests[-1].line.startswith(b"GET /stream ")


async def check_limited(session, url):
    """A limit's refusal says when to come again."""
    wrong = {"X-API-Key": "gbk_" + "0" * 28, "X-Request-Timestamp": str(clock.now_ms()), "X-Request-Signature": "A" * 43 + "="}
    for _ in range(61):  # limits.per_ip_failures, and one more
        async with session.get(f"{url}/wallets", headers=wrong) as answer:
            status, code = answer.status, (await answer.json(content_type=None))["code"]
        if status == 429:
            break
    assert (status, code) == (429, "rate_limited")
    assert int(answer.headers["Retry-After"]) > 0


def test_every_field_of_credentials_is_taken_out_by_each_proxy():
    shipped = {name: (DEPLOY / name / file).read_text().lower() for name, (file, _) in PROXIES.items()}
    assert [(name, field) for name, text in shipped.items() for field in CREDENTIAL_FIELDS if field.decode() not in text] == []


def test_every_file_states_what_becomes_of_the_content():
    shipped = {name: (DEPLOY / name / file).read_text() for name, (file, _) in PROXIES.items()}
    stated = {name: re.findall(r"/decision/[\w-]+\?content=(\w+)", text) for name, text in shipped.items()}
    assert stated == {"nginx": ["dropped"], "caddy": ["dropped"], "envoy": ["sent"], "traefik": ["sent"]}
    traefik = yaml.safe_load(shipped["traefik"])["http"]["middlewares"]["gerbang-decision"]["forwardAuth"]
    assert (traefik["forwardBody"], traefik["preserveRequestMethod"], traefik["trustForwardHeader"]) == (True, True, False)
