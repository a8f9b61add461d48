"""One request and its answer: flow (issue: order, back-pressure, interim answers, content), and hygiene of what passes."""

import asyncio
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from gateway.admission.brief import BriefAnswer, BriefRefusal
from gateway.errors import Refusal, ReplayedRequest, ScopeNotGranted
from gateway.http1.message import Answer, Request
from gateway.telemetry import AccessLog
from gateway.websocket.frames import BINARY, frame
from tests.support.inside import connections
from tests.support.plane import ScriptedGate, serving
from tests.support.session import switching
from tests.support.wire import OK, TIMEOUT, Received, UpstreamSide, answering, recording_upstream

HOST = b"Host: gate.example\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n"
HANDSHAKE = (
    b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13",
)  # fmt: skip


def get(path: bytes = b"/read", *lines: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    return method + b" " + path + b" HTTP/" + version + b"\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(path: bytes, body: bytes, *lines: bytes) -> bytes:
    return get(path, b"Content-Length: %d" % len(body), *lines, method=b"POST") + body


async def test_a_request_is_forwarded_and_its_response_relayed() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(get(b"/read/a%20b?x=1&y=%zz", b"Accept: */*"))
        assert (response.status, response.body) == (200, b"ok")
        received = upstream.requests[0]
        assert received.line == b"GET /read/a%20b?x=1&y=%zz HTTP/1.1"
        assert received.values(b"accept") == [b"*/*"]


async def test_the_gate_sees_exactly_what_was_received() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(post(b"/trade/x?a=b?c", b"\x00body", b"X-API-Key:  k ", b"X-Twice: 1", b"x-twice: 2"))
        request = served.gate.admitted[0]
        assert (request.method, request.target, request.path, request.query) == (b"POST", b"/trade/x?a=b?c", b"/trade/x", b"a=b?c")
        assert request.body == b"\x00body"
        assert request.headers == [
            (b"host", b"gate.example"), (b"content-length", b"5"), (b"x-api-key", b"k"), (b"x-twice", b"1"), (b"x-twice", b"2"),
        ]  # fmt: skip
        assert (request.peer, request.secure) == ("127.0.0.1", False)
        assert served.gate.routed[0].body == b""


CHUNKED = (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(("path", "coding", "content"), [
    (b"/read", b"Content-Length: 5", b"hello"), (b"/read", *CHUNKED), (b"/public", *CHUNKED),
    (b"/public", b"Content-Length: 70000", bytes(70_000)),
])  # fmt: skip
@pytest.mark.parametrize(("method", "kept"), [(b"GET", False), (b"HEAD", False), (b"POST", True), (b"DELETE", True)])
async def test_no_request_follows_content_that_a_service_may_leave_unread(
    path: bytes, coding: bytes, content: bytes, method: bytes, kept: bool
) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(get(path, coding, method=method) + content)
        await client.ask(get(b"/read"))
        assert upstream.requests[0].values(b"connection") == ([] if kept else [b"close"])
        assert len(upstream.sides) == (1 if kept else 2)


async def test_no_query_and_an_empty_query_are_told_apart() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(get(b"/read"))
        await client.ask(get(b"/read?"))
        assert [request.query for request in served.gate.admitted] == [None, b""]
        assert upstream.requests[1].line == b"GET /read? HTTP/1.1"


async def test_the_access_log_tells_the_times_of_the_stages() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        served.reload(access=AccessLog(1.0))
        client = await served.client()
        with capture_logs() as logged:
            await client.ask(get(b"/read"))
    (line,) = logged
    assert line["admission_ms"] >= 0
    assert line["upstream_ms"] > 0
    assert line["total_ms"] >= 0


async def test_what_the_gate_says_replaces_what_the_client_claims() -> None:
    forged = [
        b"X-Account-Id: evil", b"x-key-id: evil", b"X-KEY-SCOPES: evil", b"X-Client-IP: evil", b"X-Request-Id: evil",
        b"X-Forwarded-For: evil", b"X-Forwarded-Proto: evil", b"X-Forwarded-Host: evil", b"X-Gateway-Assertion: evil",
        b"Forwarded: for=evil", b"X-Real-IP: evil", b"X-Account-Id: evil again", b"X-Edge-Peer: evil",
        b"X_Edge_Peer: evil", b"x_edge-peer: evil", b"X.Edge.Peer: evil",
    ]  # fmt: skip
    async with recording_upstream() as upstream, serving(upstream, client_ip={"header": "X-Edge-Peer"}) as served:
        client = await served.client()
        await client.ask(get(b"/read", *forged))
        received = upstream.requests[0]
        assert b"evil" not in received.raw
        assert {name: received.values(name) for name in (b"x-account-id", b"x-key-id", b"x-key-scopes", b"x-client-ip")} == {
            b"x-account-id": [b"account-1"],
            b"x-key-id": [b"gbk_test"],
            b"x-key-scopes": [b"read,trade"],
            b"x-client-ip": [b"127.0.0.1"],
        }
        assert received.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert received.values(b"x-forwarded-proto") == [b"http"]
        assert received.values(b"x-forwarded-host") == [b"gate.example"]
        assert received.values(b"x-gateway-assertion") == [b"proof.gbk_test.spot"]
        assert received.values(b"x-request-id") == [served.gate.admitted[0].request_id.encode()]
        assert received.values(b"host") == [upstream.url.removeprefix("http://").encode()]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_the_gate_says_that_a_request_came_through_it(version: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(get(b"/read", b"Via: 1.1 cdn", version=version))
        assert upstream.requests[0].values(b"via") == [b"1.1 cdn", version + b" gerbang"]


async def test_an_options_request_takes_only_so_many_hops() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for hops, sent in ((b"2", [b"1"]), (b"1", [b"0"])):
            await client.ask(get(b"/read", b"Max-Forwards: " + hops, method=b"OPTIONS"))
            assert upstream.requests[-1].values(b"max-forwards") == sent
        response = await client.ask(get(b"/read", b"Max-Forwards: 0", method=b"OPTIONS"))
        assert (response.status, response.body, response.header("content-length")) == (200, b"", "0")
        assert response.header("allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert (await client.ask(get(b"/read", b"Max-Forwards: x", method=b"OPTIONS"))).status == 400
        assert len(upstream.requests) == 2
        assert (await client.ask(get(b"/read", b"Max-Forwards: 0"))).status == 200  # it says nothing of other methods
        assert upstream.requests[-1].values(b"max-forwards") == [b"0"]


async def test_the_last_hop_is_told_nothing_that_the_gate_would_refuse() -> None:
    gate = ScriptedGate(refuse=ScopeNotGranted("no"))
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        assert (await client.ask(get(b"/read", b"Max-Forwards: 0", method=b"OPTIONS"))).status == 403
        assert (await client.ask(get(b"/nowhere", b"Max-Forwards: 0", method=b"OPTIONS"))).status == 404


@pytest.mark.parametrize("target", [b"*", b"http://gate.example"])
async def test_options_of_the_whole_server_is_answered_by_the_gate(target: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for request in (get(target, method=b"OPTIONS"), get(target, b"Content-Length: 2", method=b"OPTIONS") + b"{}"):
            response = await client.ask(request)
            assert (response.status, response.body, response.header("content-length")) == (200, b"", "0")
            assert response.header("allow") is not None
        assert (await client.ask(GET)).status == 200
        assert len(served.gate.routed) == len(upstream.requests) == 1


@pytest.mark.parametrize(
    "named",
    [
        b"X-Account-Id",
        b"x-gateway-assertion",
        b"x-forwarded-for, X-Client-IP",
        b"Host",
        b"content-length",
        b"x-request-id",
        b"close, x-key-id",
    ],
)
async def test_connection_cannot_name_away_what_the_gate_sets(named: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(post(b"/trade", b"abc", b"Connection: " + named))
        received = upstream.requests[0]
        for name in (b"x-account-id", b"x-key-id", b"x-gateway-assertion", b"x-forwarded-for", b"x-client-ip", b"host", b"x-request-id"):
            assert len(received.values(name)) == 1, name
        assert received.body == b"abc"


async def test_credentials_and_hop_by_hop_fields_stay_behind() -> None:
    removed = [
        b"X-API-Key: k", b"X-Request-Signature: s", b"X-Request-Timestamp: 1", b"Keep-Alive: timeout=5", b"Proxy-Connection: x",
        b"Proxy-Authorization: x", b"TE: trailers", b"Trailer: x", b"Upgrade: h2c", b"HTTP2-Settings: x", b"X-Hop: x",
    ]  # fmt: skip
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(get(b"/read", *removed, b"Connection: keep-alive, X-Hop", b"Authorization: Bearer x", b"Cookie: a=b"))
        received = upstream.requests[0]
        for line in removed:
            assert received.values(line.split(b":")[0].lower()) == [], line
        assert received.values(b"connection") == []
        assert received.values(b"authorization") == [b"Bearer x"]
        assert received.values(b"cookie") == [b"a=b"]


async def test_a_public_request_carries_an_assertion_but_no_identity() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(get(b"/public", b"X-Account-Id: evil", b"X-API-Key: k"))
        received = upstream.requests[0]
        assert received.values(b"x-account-id") == received.values(b"x-api-key") == []
        assert received.values(b"x-gateway-assertion") == [b"proof.nobody.spot"]
        assert response.header("ratelimit-limit") is None


async def test_the_upstreams_hop_by_hop_fields_stay_behind_and_the_gates_limits_are_the_only_ones() -> None:
    script = answering(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: x\r\nKeep-Alive: timeout=9\r\nRateLimit-Limit: 9\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n\r\nok"
    )
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(GET)
        assert response.header("ratelimit-limit") == "10"
        assert [value for name, value in response.headers if name == "set-cookie"] == ["a=1", "b=2"]
        assert response.header("date") == "Tue, 01 Jan 2030 00:00:00 GMT"
        assert {"x-hop", "keep-alive", "connection"}.isdisjoint(dict(response.headers))


async def test_every_answer_has_a_date() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for request in (GET, get(b"/time"), get(b"/nowhere"), b"broken\r\n\r\n"):
            assert (await client.ask(request)).header("date") is not None


# -- the connection


async def test_many_requests_share_a_connection_on_both_sides() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(5):
            assert (await client.ask(GET)).body == b"ok"
        assert len(upstream.sides) == 1
        assert len(upstream.requests) == 5


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def echo(side: UpstreamSide, request: Received) -> None:
        path = request.line.split(b" ")[1]
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(path) + path)

    async with recording_upstream(echo) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(
            get(b"/read/1")
            + post(b"/trade/2", b"body")
            + get(b"/nowhere")
            + get(b"/time")
            + get(b"/read/5")
            + get(b"/nowhere")
            + get(b"/read/7")
        )
        answers = [await client.response() for _ in range(7)]
        assert [answer.body for answer in answers] == [
            b"/read/1", b"/trade/2", b"no_route", b'{"time_ms":1}', b"/read/5", b"no_route", b"/read/7",
        ]  # fmt: skip
        assert upstream.requests[1].body == b"body"


async def test_thousands_of_pipelined_refusals_do_not_exhaust_the_stack() -> None:
    async with serving() as served:
        client = await served.client()
        client.send(get(b"/nowhere") * 3_000)
        for _ in range(3_000):
            assert (await client.response()).status == 404


async def test_a_client_that_pipelines_and_does_not_read_is_not_served_on() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.pause_reading()
        for _ in range(500):
            client.send(GET)
        await upstream.got(1)
        previous = -1
        while len(upstream.requests) != previous:  # until nothing moves any more
            previous = len(upstream.requests)
            await asyncio.sleep(0.1)
        assert 0 < previous < 400
        client.resume_reading()
        for _ in range(500):
            assert len((await client.response()).body) == 100_000


async def test_connection_close_closes_after_the_answer() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(get(b"/read", b"Connection: close") + GET)
        response = await client.response()
        assert response.header("connection") == "close"
        assert await client.rest() == b""
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(("lines", "connection"), [((), "close"), ((b"Connection: keep-alive",), "keep-alive")])
async def test_http_1_0_clients_keep_the_connection_only_when_they_ask(lines: tuple[bytes, ...], connection: str) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(get(b"/read", *lines, version=b"1.0"))
        assert (response.status, response.body, response.header("connection")) == (200, b"ok", connection)
        assert upstream.requests[0].line.endswith(b"HTTP/1.1")


async def test_an_http_1_0_client_gets_no_chunks() -> None:
    chunked = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    async with recording_upstream(chunked) as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(get(b"/read", b"Connection: keep-alive", version=b"1.0"))
        assert response.body == b"abcde"
        assert (response.header("transfer-encoding"), response.header("connection")) == (None, "close")


async def test_the_request_may_come_in_pieces() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for byte in post(b"/trade", b"hello", b"X-A: some value"):
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.response()).status == 200
        assert upstream.requests[0].body == b"hello"
        assert upstream.requests[0].values(b"x-a") == [b"some value"]


# -- content of requests


async def test_expect_100_continue_is_answered_before_the_content_is_sent() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(get(b"/trade", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST"))
        assert (await client.head())[0] == 100
        client.send(b"abc")
        assert (await client.response()).status == 200
        assert upstream.requests[0].body == b"abc"
        assert upstream.requests[0].values(b"expect") == []


async def test_a_refused_expectation_is_told_at_once_and_the_content_never_read() -> None:
    async with serving() as served:
        client = await served.client()
        response = await client.ask(get(b"/nowhere", b"Expect: 100-continue", b"Content-Length: 3", method=b"POST"))
        assert (response.status, response.header("connection")) == (404, "close")
        assert await client.rest() == b""


async def test_a_refused_request_with_small_content_keeps_the_connection() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(get(b"/nowhere", b"Content-Length: 6", method=b"POST") + b"GET")
        assert (await client.response()).status == 404
        client.send(b" /x" + GET)
        assert (await client.response()).body == b"ok"
        assert len(upstream.requests) == 1


async def test_chunked_content_is_buffered_for_the_signature_and_sent_with_its_length() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(get(b"/trade", b"Transfer-Encoding: chunked", method=b"POST") + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        assert served.gate.admitted[0].body == b"abc"
        assert upstream.requests[0].values(b"content-length") == [b"3"]
        assert upstream.requests[0].values(b"transfer-encoding") == []


async def test_nothing_goes_upstream_before_the_whole_content_was_admitted() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(get(b"/trade", b"Content-Length: 3", method=b"POST") + b"ab")
        await served.until(lambda: bool(served.gate.routed))
        assert served.gate.admitted == []
        assert upstream.sides == []
        assert (await client.ask(b"c")).status == 200


async def test_a_post_without_content_says_so() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(get(b"/trade", method=b"POST"))
        await client.ask(get(b"/read"))
        assert [received.values(b"content-length") for received in upstream.requests] == [[b"0"], []]


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_content_of_a_public_route_is_streamed(coding: str) -> None:
    size = 200_000
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        if coding == "length":
            client.send(get(b"/public", b"Content-Length: %d" % size, method=b"POST"))
            client.send(b"x" * 1_000)
        else:
            client.send(get(b"/public", b"Transfer-Encoding: chunked", method=b"POST") + b"3e8\r\n" + b"x" * 1_000 + b"\r\n")
        await served.until(lambda: bool(upstream.sides))
        assert upstream.requests == []  # the head has arrived while the content has not
        left = size - 1_000
        client.send(b"x" * left if coding == "length" else b"%x\r\n" % left + b"x" * left + b"\r\n0\r\n\r\n")
        assert (await client.response()).status == 200
        assert upstream.requests[0].body == b"x" * size
        assert served.gate.admitted[0].body == b""
        assert (await client.ask(GET)).status == 200
        assert len(upstream.sides) == 1


async def test_an_upstream_that_takes_streamed_content_slowly_slows_the_client() -> None:
    size = 64 << 20
    async with recording_upstream() as upstream, serving(upstream, limits={"max_body_bytes": size}) as served:
        client = await served.client()
        client.send(get(b"/public", b"Content-Length: %d" % size, method=b"POST"))
        await served.until(lambda: bool(upstream.sides))
        upstream.sides[0].pause_reading()
        client.writer.transport.set_write_buffer_limits(high=1)
        sent = 0
        piece = b"x" * (1 << 20)
        try:
            async with asyncio.timeout(0.5):
                while sent < size:
                    client.send(piece)
                    sent += len(piece)
                    await client.writer.drain()
        except TimeoutError:
            pass
        assert sent < size, "the gate took everything"
        upstream.sides[0].resume_reading()
        await client.writer.drain()
        while sent < size:
            client.send(piece)
            sent += len(piece)
            await client.writer.drain()
        assert (await client.response()).status == 200
        assert len(upstream.requests[0].body) == size


async def test_a_response_before_the_content_has_ended_ends_both_connections() -> None:
    closed = asyncio.Event()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()
        closed.set()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    async with server, serving(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as served:
        client = await served.client()
        response = await client.ask(get(b"/public", b"Content-Length: 100000", method=b"POST") + b"x")
        assert (response.status, response.header("connection")) == (413, "close")
        assert await client.rest() == b""
        await asyncio.wait_for(closed.wait(), 30)


# -- responses


HEAD_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


async def test_a_head_request_gets_the_length_but_no_content_and_both_connections_go_on() -> None:
    async def script(side: UpstreamSide, request: Received) -> None:
        side.send(HEAD_ANSWER if request.line.startswith(b"HEAD") else OK)

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(get(b"/read", method=b"HEAD"))
        assert (response.status, response.header("content-length")) == (200, "1000")
        assert (await client.ask(GET)).body == b"ok"
        assert (await client.ask(get(b"/time", method=b"HEAD"))).header("content-length") == "13"
        assert (await client.ask(GET)).body == b"ok"
        assert len(upstream.sides) == 1


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: x\r\n\r\n"]
)
async def test_204_and_304_have_no_content(head: bytes) -> None:
    async with recording_upstream(answering(head)) as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):
            response = await client.ask(GET)
            assert response.status in (204, 304)
            assert response.header("transfer-encoding") is None
        assert response.header("content-length") == ("1000" if response.status == 304 else None)
        assert len(upstream.sides) == 1


async def test_interim_answers_are_passed_on_but_100_is_not() -> None:
    script = answering(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET)
        assert (await client.head())[0] == 103
        assert (await client.response()).body == b"ok"
        assert (await client.ask(get(b"/read", b"Connection: keep-alive", version=b"1.0"))).status == 200


async def test_chunks_are_relayed_as_they_come_and_trailers_dropped() -> None:
    more = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n")
        await more.wait()
        side.send(b"2;ext=1\r\nde\r\n0\r\nX-T: v\r\n\r\n")

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET)
        status, headers = await client.head()
        assert (status, dict(headers)["transfer-encoding"]) == (200, "chunked")
        assert await client.reader.readexactly(8) == b"3\r\nabc\r\n"
        more.set()
        assert await client.reader.readexactly(12) == b"2\r\nde\r\n0\r\n\r\n"
        assert (await client.ask(get(b"/time"))).status == 200


@pytest.mark.parametrize(("version", "head", "pieces", "end"), [
    (b"1.1", b"Content-Length: 4\r\n", [(b"ab", b"ab"), (b"cd", b"cd")], b""),
    (b"1.1", b"Transfer-Encoding: chunked\r\n", [(b"1\r\na\r\n", b"1\r\na\r\n"), (b"1\r\nc", b"1\r\nc\r\n"), (b"\r\n", b"")], b"0\r\n\r\n"),
    (b"1.0", b"Transfer-Encoding: chunked\r\n", [(b"2\r\nab\r\n", b"ab"), (b"1\r\n", b""), (b"c\r\n", b"c")], b"0\r\n\r\n"),
    (b"1.1", b"", [(b"ab", b"2\r\nab\r\n"), (b"c", b"1\r\nc\r\n")], b"closed"),
])  # fmt: skip
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_head_whose_content_follows_later_and_every_piece_of_it_are_relayed_at_once(
    version: bytes, head: bytes, pieces: list[tuple[bytes, bytes]], end: bytes, interim: bytes
) -> None:
    """As of a stream of events, whose first one may come in an hour. Nothing but the end is taken for the end."""
    read: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(side: UpstreamSide, _request: Received) -> None:
        while (piece := await read.get()) != b"closed":
            side.send(piece)
            if piece == b"0\r\n\r\n":
                return
        side.close()

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(get(b"/read", version=version))
        for _ in range(2):  # the second time its head is known
            read.put_nowait(interim + b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
            assert (await client.head())[0] == 200
            for sent, relayed in pieces:
                read.put_nowait(sent)
                async with asyncio.timeout(TIMEOUT):
                    assert await client.reader.readexactly(len(relayed)) == relayed
                if not relayed:
                    await asyncio.sleep(0.02)
                assert not client.reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001  # nothing else has come
            if end:
                read.put_nowait(end)
            if version == b"1.0":
                assert await client.rest() == b""
                client = await served.client()
            elif end:
                assert await client.reader.readexactly(5) == b"0\r\n\r\n"
            client.send(get(b"/read", version=version))


async def test_content_that_ends_with_the_connection_is_relayed_in_chunks() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\n\r\nabcdef", close=True)
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):
            response = await client.ask(GET)
            assert (response.body, response.header("transfer-encoding")) == (b"abcdef", "chunked")
        assert len(upstream.sides) == 2


async def test_an_upstream_that_speaks_http_1_0_is_understood() -> None:
    script = answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", close=True)
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).body == b"ok"
        assert (await client.ask(GET)).body == b"ok"


async def test_a_slow_reader_of_a_huge_response_costs_bounded_memory() -> None:
    size = 1 << 30
    piece = b"x" * (1 << 20)
    sent = 0

    async def script(side: UpstreamSide, _request: Received) -> None:
        nonlocal sent
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            side.send(piece)
            await side.writer.drain()
            sent += len(piece)

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.pause_reading()
        client.send(GET)
        await served.until(lambda: sent > 0)
        previous = -1
        while sent != previous:  # until nothing moves any more
            previous = sent
            await asyncio.sleep(0.1)
        assert 0 < sent < 32 << 20
        client.resume_reading()
        await client.head()
        for _ in range(64):
            await client.reader.readexactly(1 << 20)
        await client.close()
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)


@pytest.mark.parametrize("path", [b"/read", b"/ws"])
async def test_a_client_that_stopped_reading_before_its_request_costs_bounded_memory_too(path: bytes) -> None:
    size = 1 << 28
    piece = b"x" * (1 << 20)
    before = b"x" * (16 << 20)
    """What it was answered earlier."""
    sent = 0

    async def script(side: UpstreamSide, request: Received) -> None:
        nonlocal sent
        side.send(switching(request) if path == b"/ws" else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            side.send(frame(BINARY, piece) if path == b"/ws" else piece)
            await side.writer.drain()
            sent += len(piece)

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        await served.until(lambda: bool(connections(served)))
        (connection,) = connections(served)
        client.pause_reading()
        connection.write(before)
        client.send(get(path, *(HANDSHAKE if path == b"/ws" else ())))
        await upstream.got(1)
        previous = -1
        while sent != previous:  # until nothing moves any more
            previous = sent
            await asyncio.sleep(0.1)
        assert sent < 32 << 20
        client.resume_reading()
        await client.reader.readexactly(len(before))
        await client.head()
        for _ in range(64):
            await client.reader.readexactly(1 << 20)
        await client.close()


# -- gone, and what is decided later


async def test_a_client_that_goes_away_cancels_the_upstream_exchange() -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    async with recording_upstream(never) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET)
        await upstream.got(1)
        await client.close()
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)
        await served.until(lambda: served.metrics.connections == 0)
        assert served.metrics.aborted == 1
        assert served.upstreams.pools["spot"].servers[0].active == 0


async def test_a_key_that_is_not_in_memory_is_looked_up_and_then_admitted() -> None:
    gate = ScriptedGate(unknown_keys=1)
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        client.send(GET)
        await served.until(lambda: gate.unknown_keys == 0)
        assert upstream.sides == []
        gate.looked_up.set()
        assert (await client.response()).status == 200


async def test_a_key_that_is_never_held_is_given_up() -> None:
    gate = ScriptedGate(unknown_keys=100)
    gate.looked_up.set()
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (503, b"key_store_unavailable")


async def test_a_trade_goes_on_only_when_the_replay_guard_says_so() -> None:
    claim = asyncio.get_running_loop().create_future()
    gate = ScriptedGate(claim_result=claim)
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        client.send(post(b"/trade", b"x"))
        await served.until(lambda: bool(gate.admitted))
        assert upstream.sides == []
        claim.set_result(None)
        assert (await client.response()).status == 200


async def test_a_replayed_request_never_reaches_the_upstream() -> None:
    claim = asyncio.get_running_loop().create_future()
    gate = ScriptedGate(claim_result=claim)
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        claim.set_exception(ReplayedRequest("seen before"))
        response = await client.ask(post(b"/trade", b"x"))
        assert (response.status, response.body) == (409, b"replayed_request")
        assert response.header("ratelimit-limit") == "10"  # it was signed, and charged
        assert upstream.sides == []


async def test_a_client_that_goes_away_during_a_look_up_leaves_nothing_behind() -> None:
    gate = ScriptedGate(unknown_keys=1)
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        client.send(GET)
        await served.until(lambda: gate.unknown_keys == 0)
        await client.close()
        await served.until(lambda: served.metrics.connections == 0)
        gate.looked_up.set()
        await asyncio.sleep(0)
        other = await served.client()
        assert (await other.ask(get(b"/time"))).status == 200
        assert upstream.sides == []


async def test_a_refusal_is_counted_and_the_connection_kept() -> None:
    gate = ScriptedGate(refuse=ScopeNotGranted("no"))
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client = await served.client()
        for _ in range(2):
            assert (await client.ask(GET)).status == 403
        assert served.metrics.refused["scope_not_granted"] == 2
        assert served.metrics.admitted == {}
        assert upstream.sides == []


async def test_a_refusal_without_explanation_is_counted_and_not_logged() -> None:
    class Flooded(ScriptedGate):
        def render(self, refusal: Refusal, *given: Any, **options: Any) -> Answer:
            refusal.brief = self.brief
            return super().render(refusal, *given, **options)

        brief = False

    gate = Flooded(refuse=ScopeNotGranted("no"))
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        served.reload(access=AccessLog(1.0))
        client = await served.client()
        with capture_logs() as logged:
            for gate.brief in (False, True):
                assert (await client.ask(GET)).status == 403
        assert len(logged) == 1
        assert served.metrics.refused == {"scope_not_granted": 2}
        assert served.metrics.refusals_brief == 1


async def test_a_refusal_that_is_a_value_is_answered_as_one_that_is_raised() -> None:
    class Attacked(ScriptedGate):
        def decide(self, request: Request, _route: object) -> Any:
            return BriefRefusal("gbk_test", request.peer, 1_001.0, b"")

        def brief(self, refused: BriefRefusal, _request: Request) -> BriefAnswer:
            return BriefAnswer(refused.kind, None, "")

    async with recording_upstream() as upstream, serving(upstream, gate=Attacked()) as served:
        served.reload(access=AccessLog(1.0))
        client = await served.client()
        with capture_logs() as logged:
            for number in range(2):  # one rendered before, one by the generic way: HTTP/1.0 has a line more
                response = await client.ask(get(version=b"1.0" if number else b"1.1"))
                assert (response.status, response.header("retry-after")) == (429, "2")
        assert b'"retry_after_ms":1001' in (await (await served.client()).ask(GET)).body
        assert logged == []
        assert served.metrics.refused == {"rate_limited": 3}
        assert served.metrics.resource_refused == {"per_ip_failures": 3}
        assert served.metrics.refusals_brief == 3
        assert upstream.sides == []


async def test_a_defect_between_two_requests_ends_the_clients_connection_alone() -> None:
    def broken(_refusal: Refusal) -> NoReturn:
        raise RuntimeError("no answer can be rendered")

    gate = ScriptedGate(told=broken)
    async with recording_upstream() as upstream, serving(upstream, gate=gate) as served:
        client, other = await served.client(), await served.client()
        with capture_logs() as logs:
            client.send(GET + get(b"/nowhere") + GET)  # the second is read when the first has its answer, in a call of its upstream's
            await served.until(lambda: served.metrics.connections == 1)
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["connection_failed"]
        assert len(upstream.requests) == 1
        assert (await other.ask(GET)).status == 200
        assert len(upstream.sides) == 1  # whose connection was not hurt


async def test_a_defect_of_the_gate_answers_500_and_goes_no_further() -> None:
    class Broken(ScriptedGate):
        def admit(self, request: object, route: object) -> NoReturn:
            raise ZeroDivisionError

    async with recording_upstream() as upstream, serving(upstream, gate=Broken()) as served:
        client = await served.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (500, b"internal_error")
        assert upstream.sides == []


async def test_admitted_requests_and_latency_are_counted() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(GET)
        assert served.metrics.admitted == {"GET /read": 1}
        assert served.metrics.upstream_responses == {("spot", "2xx"): 1}
        assert sum(served.metrics.upstream_latency["spot"].counts) == 1
        assert served.metrics.connections == 1
