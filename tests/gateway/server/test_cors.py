"""Pages of another origin: preflights answered by the gate, refusals and limits readable, a service's own answers too."""

import pytest

from gateway.errors import RateLimited
from tests.support.plane import ScriptedGate, serving
from tests.support.wire import OK, answering, recording_upstream

HOST = b"Host: gate.example\r\n"
PAGE = HOST + b"Origin: https://app.example\r\n"
ALLOWED = {"gateway": {"cors": ["https://app.example"]}}


async def test_a_preflight_is_answered_before_any_route_and_keeps_the_connection() -> None:
    async with serving(**ALLOWED) as served:
        client = await served.client()
        asking = b"Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: x-api-key\r\n\r\n"
        for path in (b"/trade", b"/nowhere"):
            given = await client.ask(b"OPTIONS " + path + b" HTTP/1.1\r\n" + PAGE + asking)
            assert given.status == 204
            assert given.header("access-control-allow-origin") == "https://app.example"
            assert given.header("access-control-allow-headers") == "x-api-key"
        assert served.gate.routed == []


async def test_a_page_reads_a_refusal_and_when_to_come_back() -> None:
    gate = ScriptedGate(refuse=RateLimited("wait", headers=((b"Retry-After", b"3"),)))
    async with serving(gate=gate, **ALLOWED) as served:
        given = await (await served.client()).ask(b"GET /read HTTP/1.1\r\n" + PAGE + b"\r\n")
        assert given.status == 429
        assert given.header("access-control-allow-origin") == "https://app.example"
        exposed = (given.header("access-control-expose-headers") or "").split(", ")
        assert {"Retry-After", "RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= {*exposed}
        assert given.header("retry-after") == "3"


@pytest.mark.parametrize("fields", [b"X_Account_Id: a\r\n", b"X: " + b"a" * 20_000 + b"\r\n", b"Content-Length: x\r\n", b"Host: b\r\n"])
async def test_a_page_reads_why_a_head_is_refused_too(fields: bytes) -> None:
    async with serving(**ALLOWED) as served:
        given = await (await served.client()).ask(b"GET /read HTTP/1.1\r\n" + PAGE + fields + b"\r\n")
        assert given.status in (400, 431)
        assert given.header("access-control-allow-origin") == "https://app.example"


async def test_a_page_reads_a_services_answer_by_the_gates_fields_alone() -> None:
    own = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\nok"
    async with recording_upstream(answering(own)) as upstream, serving(upstream, **ALLOWED) as served:
        client = await served.client()
        for fields, allowed in ((PAGE, "https://app.example"), (HOST, None)):
            given = await client.ask(b"GET /read HTTP/1.1\r\n" + fields + b"\r\n")
            assert given.header("access-control-allow-origin") == allowed
            assert given.header("access-control-allow-credentials") is None
            assert given.header("vary") == "Origin"


async def test_without_the_setting_nothing_is_said_or_taken_away() -> None:
    own = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok"
    async with recording_upstream(answering(own)) as upstream, serving(upstream) as served:
        client = await served.client()
        given = await client.ask(b"GET /read HTTP/1.1\r\n" + PAGE + b"\r\n")
        assert given.header("access-control-allow-origin") == "*"
        assert given.header("vary") is None


@pytest.mark.parametrize(
    "behind", [b"", b"\r\nOrigin: https://other.example\r\n", b"GET / HTTP/1.1\r\nOrigin: https://app.example\r\n\r\n"]
)
async def test_a_page_reads_why_its_head_was_refused_whatever_follows_it(behind: bytes) -> None:
    async with recording_upstream(answering(OK)) as upstream, serving(upstream, **ALLOWED) as served:
        for fields, allowed in ((PAGE, "https://app.example"), (HOST, None)):
            client = await served.client()
            given = await client.ask(b"POST /read HTTP/1.1\r\n" + fields + b"Host: b\r\n\r\n" + behind)
            assert (given.status, given.header("access-control-allow-origin")) == (400, allowed)
