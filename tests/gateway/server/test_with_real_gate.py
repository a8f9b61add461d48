"""The data plane with the real gate: what is admitted arrives, and of what is refused not one byte does."""

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from gateway.admission.gate import Gate
from gateway.admission.principal import Principal
from gateway.keys.cache import ABSENT
from gateway.keys.record import Scope
from gateway.keys.secret import Secret
from gateway.runtime import clock
from tests.support.inside import connections
from tests.support.keys import a_record
from tests.support.plane import serving
from tests.support.signed import a_gate
from tests.support.wire import OK, Received, UpstreamSide, recording_upstream

SECRET = b"gbs_not-a-real-secret"
ROUTES = [
    {"match": "GET /v1/markets/summary", "scope": "public", "upstream": "spot"},
    {"match": "GET /v1/wallets", "scope": "read", "upstream": "spot"},
    {"match": "GET /v1/orders/{id}", "scope": "read", "upstream": "spot"},
    {"match": "POST /v1/orders", "scope": "trade", "upstream": "spot", "replay": "off"},
]
RECORD = a_record(secret=Secret(SECRET), scopes=frozenset({Scope.READ}))
TRADER = a_record(key_id="gbk_trader", secret=Secret(SECRET), scopes=frozenset({Scope.TRADE}))


def gate(**sections: Any) -> Gate:
    return a_gate(RECORD, routes=ROUTES, **sections)


def signed(
    method: str, target: str, body: bytes = b"", *, age_s: int = 0, key_id: str = RECORD.key_id, tamper: bytes = b"", more: str = ""
) -> bytes:
    """A request in the mobee dialect. ``tamper`` is what the signature covers instead of the body."""
    timestamp = clock.now_ms() // 1000 - age_s
    message = f"{method}\n{target.partition('?')[0]}\n{timestamp}".encode() + (b"\n" + (tamper or body) if body else b"")
    signature = base64.b64encode(hmac.new(SECRET, message, hashlib.sha256).digest()).decode()
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: gate.example\r\nX-API-Key: {key_id}\r\nX-Request-Timestamp: {timestamp}\r\n"
        f"X-Request-Signature: {signature}\r\n{length}{more}\r\n"
    )
    return head.encode() + body


async def test_a_signed_read_arrives_with_who_it_is_from() -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        client = await served.client()
        for _ in range(2):
            response = await client.ask(signed("GET", "/v1/wallets"))
            assert (response.status, response.body) == (200, b"ok")
            assert response.header("ratelimit-limit") is not None
        received = upstream.requests[1]
        assert received.values(b"x-key-id") == [RECORD.key_id.encode()]
        assert received.values(b"x-account-id") == [RECORD.account_id.encode()]
        assert received.values(b"x-key-scopes") == [b"read"]
        assert not [name for name, _ in received.headers if name in (b"x-api-key", b"x-request-signature", b"x-request-timestamp")]


async def test_a_get_route_answers_head_too() -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        client = await served.client()
        assert (await client.ask(signed("HEAD", "/v1/wallets"))).status == 200
        assert upstream.requests[0].line == b"HEAD /v1/wallets HTTP/1.1"


async def test_built_in_routes_are_answered_by_the_gate() -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        client = await served.client()
        time = await client.ask(b"GET /gateway/v1/time HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        address = await client.ask(b"GET /gateway/v1/ip HTTP/1.1\r\nHost: gate.example\r\n\r\n")
        assert abs(json.loads(time.body)["server_time_ms"] - clock.now_ms()) < 60_000
        assert json.loads(address.body)["client_ip"] == "127.0.0.1"
        assert (await client.ask(signed("GET", "/gateway/v1/key"))).status == 200
        assert upstream.sides == []


PUBLIC = b"GET %b HTTP/1.1\r\nHost: gate.example\r\n\r\n"

REFUSED = {
    "no credentials": (lambda: PUBLIC % b"/v1/wallets", 401, "missing_credentials"),
    "a changed path": (lambda: signed("GET", "/v1/wallets").replace(b"/v1/wallets", b"/v1/orders/1"), 401, "invalid_credentials"),
    "an unknown key": (lambda: signed("GET", "/v1/wallets", key_id=TRADER.key_id), 401, "invalid_credentials"),
    "a changed body": (lambda: signed("POST", "/v1/orders", b"{}", tamper=b"[]"), 401, "invalid_credentials"),
    "an old timestamp": (lambda: signed("GET", "/v1/wallets", age_s=7), 401, "timestamp_out_of_window"),
    "a timestamp ahead": (lambda: signed("GET", "/v1/wallets", age_s=-3), 401, "timestamp_out_of_window"),
    "a scope not granted": (lambda: signed("POST", "/v1/orders", b"{}"), 403, "scope_not_granted"),
    "a repeated credential": (lambda: signed("GET", "/v1/wallets", more="X-API-Key: x\r\n"), 400, "ambiguous_credentials"),
    "an unsigned query": (lambda: signed("POST", "/v1/orders?price=1", b"{}"), 400, "unsigned_query"),
    "an unlisted route": (lambda: PUBLIC % b"/v1/nowhere", 404, "no_route"),
    "an unlisted method": (lambda: (PUBLIC % b"/v1/wallets").replace(b"GET", b"DELETE"), 405, "method_not_allowed"),
    "an empty segment": (lambda: PUBLIC % b"/v1//markets/summary", 400, "ambiguous_path"),
    "an encoded slash": (lambda: PUBLIC % b"/v1%2fmarkets/summary", 400, "ambiguous_path"),
    "a dot segment": (lambda: PUBLIC % b"/v1/x/../markets/summary", 400, "ambiguous_path"),
    "an encoded dot segment": (lambda: PUBLIC % b"/v1/x/%2e%2e/markets/summary", 400, "ambiguous_path"),
    "a semicolon": (lambda: PUBLIC % b"/v1/markets/summary;x", 400, "ambiguous_path"),
    "a backslash": (lambda: PUBLIC % b"/v1\\markets/summary", 400, "ambiguous_path"),
    "a fragment": (lambda: PUBLIC % b"/v1/markets/summary#x", 400, "ambiguous_path"),
}


@pytest.mark.parametrize(("request_of", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused_is_explained_and_goes_no_further(request_of: Any, status: int, code: str) -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        client = await served.client()
        response = await client.ask(request_of())
        assert response.status == status
        problem = json.loads(response.body)
        assert problem["code"] == code
        assert problem["request_id"]
        assert response.header("content-type") == "application/problem+json"
        assert upstream.sides == []
        assert served.metrics.refused == {code: 1}
        assert (await client.ask(PUBLIC % b"/v1/markets/summary")).status == 200, "the connection goes on"


async def test_a_request_that_cannot_be_framed_has_an_id_too() -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        client = await served.client()
        response = await client.ask(b"GET /v1/wallets HTTP/1.1\r\n\r\n")
        problem = json.loads(response.body)
        assert (response.status, problem["code"]) == (400, "malformed_request")
        assert problem["request_id"]
        assert upstream.sides == []


async def test_a_forwarded_address_is_believed_from_a_trusted_proxy_alone() -> None:
    forwarded = b"GET /gateway/v1/ip HTTP/1.1\r\nHost: gate.example\r\nX-Forwarded-For: 8.8.8.8\r\n\r\n"
    async with serving(gate=gate()) as served:
        assert json.loads((await (await served.client()).ask(forwarded)).body)["client_ip"] == "127.0.0.1"
    trusting = {"trusted_proxies": ("127.0.0.1/32",)}
    async with recording_upstream() as upstream, serving(upstream, gate=gate(client_ip=trusting), client_ip=trusting) as served:
        client = await served.client()
        assert json.loads((await client.ask(forwarded)).body)["client_ip"] == "8.8.8.8"
        await client.ask(forwarded.replace(b"/gateway/v1/ip", b"/v1/markets/summary"))
        assert upstream.requests[0].values(b"x-forwarded-for") == [b"8.8.8.8"]
        assert upstream.requests[0].values(b"x-client-ip") == [b"8.8.8.8"]
        told = forwarded.replace(b"/gateway/v1/ip", b"/v1/markets/summary")
        for lines, proto in ((b"X-Forwarded-Proto: https\r\n\r\n", b"https"), (b"\r\n", b"http")):
            await client.ask(told[:-2] + lines)
            assert upstream.requests[-1].values(b"x-forwarded-proto") == [proto]
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        await (await served.client()).ask(told[:-2] + b"X-Forwarded-Proto: https\r\n\r\n")
        assert upstream.requests[0].values(b"x-forwarded-proto") == [b"http"]


@pytest.mark.parametrize("cut", [0, 30])
@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("GET /api/v3/account?timestamp=1 HTTP/1.1", "Host: a\r\nHost: b"),
        ("POST /api/v3/order HTTP/1.1", "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"),
        ("GET /api/v3/account HTTP/1.1", "Host: a\r\nbroken"),
        ("GET /api/v3/account HTTP/3.1", "Host: a"),
        ("GET /api/v3/account HTTP/1.1", "Host: a\r\nX: " + 20_000 * "x"),
    ],
)
async def test_what_cannot_be_framed_is_refused_in_the_form_of_its_path(line: str, lines: str, cut: int) -> None:
    async with recording_upstream() as upstream, serving(upstream, gate=gate()) as served:
        for path, number in (("/api/v3", True), ("/v1", False)):
            client = await served.client()
            request = f"{line.replace('/api/v3', path)}\r\n{lines}\r\n\r\n".encode()
            if cut:
                client.send(request[:cut])
                await served.until(lambda: any(not each.idle for each in connections(served)))
                request = request[cut:]
            response = await client.ask(request)
            assert response.status in (400, 431)
            assert isinstance(json.loads(response.body)["code"], int) is number
            assert await client.rest() == b""


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(("method", "target"), [("GET", "/v1/wallets"), ("POST", "/v1/orders")])
async def test_what_waits_for_a_connection_is_sent_only_if_its_key_stands_by_then(method: str, target: str, ended: bool) -> None:
    """Many of them: who does not want the connection leaves it to the next."""
    answers = asyncio.Event()

    async def script(side: UpstreamSide, received: Received) -> None:
        if b"summary" in received.line:
            await answers.wait()
        side.send(OK)

    both = a_record(secret=Secret(SECRET), scopes=frozenset(Scope))
    gate = a_gate(both, routes=ROUTES)
    async with recording_upstream(script) as upstream, serving(upstream, gate=gate, spot={"max_connections": 8}) as served:
        (server,) = served.upstreams.pools["spot"].servers
        busy = [await served.client() for _ in range(8)]
        for client in busy:
            client.send(PUBLIC % b"/v1/markets/summary")
        await served.until(lambda: len(upstream.requests) == 8)
        waiting = [await served.client() for _ in range(5)]
        for number, client in enumerate(waiting[:4]):
            client.send(signed(method, target, b"{}" if method == "POST" else b"", key_id=both.key_id, age_s=number))
        await served.until(lambda: server.active == 12)
        waiting[4].send(PUBLIC % b"/v1/markets/summary")
        await served.until(lambda: server.active == 13)
        found = ABSENT if ended else Principal.of(both)
        gate.services.lookup.peek = lambda *_: found
        answers.set()
        told = [await client.response() for client in (*busy, *waiting)]
        assert [each.status for each in told] == [*([200] * 8), *([401 if ended else 200] * 4), 200]
        assert [b"while the request was waiting" in each.body for each in told[8:12]] == [ended] * 4
        assert len(upstream.requests) == (9 if ended else 13)
        assert len(upstream.sides) == 8
        assert server.active == 0


async def test_a_defect_while_what_waited_is_sent_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        await answers.wait()
        side.send(OK)

    record = a_record(secret=Secret(SECRET), scopes=frozenset(Scope))
    gate = a_gate(record, routes=ROUTES)
    async with recording_upstream(script) as upstream, serving(upstream, gate=gate, spot={"max_connections": 1}) as served:
        pool = served.upstreams.pools["spot"]
        (server,) = pool.servers
        busy, waiting = await served.client(), await served.client()
        busy.send(PUBLIC % b"/v1/markets/summary")
        await upstream.got(1)
        waiting.send(signed("GET", "/v1/wallets", b"", key_id=record.key_id))
        await served.until(lambda: server.active == 2)

        def defect(_tried: object) -> None:
            raise RuntimeError

        monkeypatch.setattr(pool, "choose", defect)
        found = Principal.of(record)
        monkeypatch.setattr(gate.services.lookup, "peek", lambda *_: found)
        answers.set()
        assert (await busy.response()).status == 200
        assert (await waiting.response()).status == 500
