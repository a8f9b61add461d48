"""What is refused before anything else looks at it: 400 (or 405, 417, 431), a closed connection, and not one byte to the upstream."""

import pytest

from gateway.errors import ExpectationFailed, MalformedRequest
from gateway.http1.framing import (
    CHUNKED,
    Framing,
    check_coding,
    check_once,
    check_together,
    chunk,
    connection_options,
    content_length,
    frame,
    persists,
)
from tests.support.plane import serving
from tests.support.wire import recording_upstream

HOST = b"Host: gate.example\r\n"


def get(*lines: bytes, host: bytes = HOST) -> bytes:
    return b"GET /read HTTP/1.1\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /trade HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CODED = b"Transfer-Encoding: chunked"

REFUSED = {
    # Length, RFC 9112 §6
    "both Content-Length and Transfer-Encoding": post(b"Content-Length: 5", CODED, body=b"0\r\n\r\n"),
    "both, the other way round": post(CODED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "repeated Content-Length": post(b"Content-Length: 1", b"Content-Length: 1", body=b"x"),
    "differing Content-Length": post(b"Content-Length: 1", b"Content-Length: 2", body=b"xx"),
    "Content-Length list": post(b"Content-Length: 1, 1", body=b"x"),
    "Content-Length with a sign": post(b"Content-Length: +1", body=b"x"),
    "negative Content-Length": post(b"Content-Length: -1", body=b"x"),
    "empty Content-Length": post(b"Content-Length:", body=b"x"),
    "hexadecimal Content-Length": post(b"Content-Length: 0x1", body=b"x"),
    "Content-Length with a blank inside": post(b"Content-Length: 1 1", body=b"x"),
    "Content-Length beyond all sizes": post(b"Content-Length: 99999999999999999999999", body=b"x"),
    "Transfer-Encoding identity": post(b"Transfer-Encoding: identity", body=b"x"),
    "identity, chunked": post(b"Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n"),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked twice in one field": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "chunked in two fields": post(CODED, CODED, body=b"0\r\n\r\n"),
    "chunked behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "quoted chunked": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "empty Transfer-Encoding": post(b"Transfer-Encoding:", body=b""),
    "Transfer-Encoding on HTTP/1.0": b"POST /trade HTTP/1.0\r\n" + HOST + CODED + b"\r\n\r\n0\r\n\r\n",
    # Host, RFC 9112 §3.2
    "missing Host": get(host=b""),
    "repeated Host": get(HOST[:-2]),
    "two different Hosts": get(b"Host: evil.example"),
    "empty Host": get(host=b"Host:\r\n"),
    "Host with a path": get(host=b"Host: gate.example/x\r\n"),
    "Host with user information": get(host=b"Host: user@gate.example\r\n"),
    "Host list": get(host=b"Host: a.example, b.example\r\n"),
    "Host with a comma": get(host=b"Host: a,b\r\n"),
    "Host that is a port": get(host=b"Host: :80\r\n"),
    "Host with a blank": get(host=b"Host: gate example\r\n"),
    "Host with a bad port": get(host=b"Host: gate.example:8x\r\n"),
    # Target, RFC 9112 §3.2
    "absolute-form of another scheme": b"GET ftp://gate.example/read HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form without a host": b"GET http:///read HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form with user information": b"GET http://user@gate.example/read HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form with a list": b"GET http://a,b/read HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form and no Host": b"GET http://gate.example/read HTTP/1.1\r\n\r\n",
    "absolute-form and a repeated Host": b"GET http://gate.example/read HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "absolute-form and an invalid Host": b"GET http://gate.example/read HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "authority-form target": b"GET gate.example:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk-form target": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "control byte in the target": b"GET /read\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "byte over 127 in the target": b"GET /read\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "tab in the target": b"GET /read\tx HTTP/1.1\r\n" + HOST + b"\r\n",
    # Request line and version, RFC 9112 §3
    "HTTP/0.9": b"GET /read\r\n\r\n",
    "HTTP/2.0": b"GET /read HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET /read HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/0.9 spelled out": b"GET /read HTTP/0.9\r\n" + HOST + b"\r\n",
    "RTSP/1.0": b"GET /read RTSP/1.0\r\n" + HOST + b"\r\n",
    "ICE/1.0": b"SOURCE /read ICE/1.0\r\n" + HOST + b"\r\n",
    "lower-case version": b"GET /read http/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two blanks before the target": b"GET  /read HTTP/1.1\r\n" + HOST + b"\r\n",
    "two blanks before the version": b"GET /read  HTTP/1.1\r\n" + HOST + b"\r\n",
    "blank behind the version": b"GET /read HTTP/1.1 \r\n" + HOST + b"\r\n",
    "tab instead of a blank": b"GET\t/read HTTP/1.1\r\n" + HOST + b"\r\n",
    "unknown method": b"BREW /read HTTP/1.1\r\n" + HOST + b"\r\n",
    "lower-case method": b"get /read HTTP/1.1\r\n" + HOST + b"\r\n",
    "two empty lines in front": b"\r\n\r\n" + get(),
    "bare LF in front": b"\n" + get(),
    # Field lines, RFC 9112 §5 and RFC 9110 §5
    "bare LF behind the request line": b"GET /read HTTP/1.1\nHost: gate.example\n\n",
    "bare LF behind a field": b"GET /read HTTP/1.1\r\nHost: gate.example\n\r\n",
    "bare LF ends the head": b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\n",
    "bare CR in a value": get(b"X-A: b\rX-B: c"),
    "bare CR as a line end": b"GET /read HTTP/1.1\rHost: gate.example\r\r",
    "obs-fold": get(b"X-A: b", b" c"),
    "obs-fold with a tab": get(b"X-A: b", b"\tc"),
    "white space before the first field": b"GET /read HTTP/1.1\r\n X-A: b\r\n" + HOST + b"\r\n",
    "blank before the colon": get(b"X-A : b"),
    "tab before the colon": get(b"X-A\t: b"),
    "Content-Length with a blank before the colon": post(b"Content-Length : 1", body=b"x"),
    "no colon": get(b"X-A"),
    "empty name": get(b": b"),
    "NUL in a value": get(b"X-A: b\x00"),
    "control byte in a value": get(b"X-A: b\x01c"),
    "DEL in a value": get(b"X-A: b\x7f"),
    "control byte in a name": get(b"X\x01A: b"),
    "byte over 127 in a name": get(b"X\xffA: b"),
    "separator in a name": get(b"X(A): b"),
    # Names that fold onto the gate's own
    "X_Account_Id": get(b"X_Account_Id: 7"),
    "x-key_id": get(b"x-key_id: 7"),
    "X_Forwarded_For": get(b"X_Forwarded_For: 1.1.1.1"),
    "X_GATEWAY_ASSERTION": get(b"X_GATEWAY_ASSERTION: x"),
    "X.Account.Id": get(b"X.Account.Id: 7"),
    "X-Key~Id": get(b"X-Key~Id: 7"),
    "Transfer.Encoding": post(b"Transfer.Encoding: chunked", b"Content-Length: 1", body=b"x"),
    "Content_Length": post(b"Content_Length: 3", b"Content-Length: 1", body=b"x"),
    "Transfer_Encoding": post(b"Transfer_Encoding: chunked", b"Content-Length: 1", body=b"x"),
    # Chunked coding, RFC 9112 §7.1
    "chunk size without digits": post(CODED, body=b"\r\nx\r\n0\r\n\r\n"),
    "chunk size not hexadecimal": post(CODED, body=b"g\r\nx\r\n0\r\n\r\n"),
    "chunk size with a sign": post(CODED, body=b"-1\r\nx\r\n0\r\n\r\n"),
    "chunk size with 0x": post(CODED, body=b"0x1\r\nx\r\n0\r\n\r\n"),
    "chunk size behind a blank": post(CODED, body=b" 1\r\nx\r\n0\r\n\r\n"),
    "chunk size before a blank": post(CODED, body=b"1 \r\nx\r\n0\r\n\r\n"),
    "chunk size beyond all sizes": post(CODED, body=b"ffffffffffffffffff\r\nx\r\n0\r\n\r\n"),
    "chunk longer than its size": post(CODED, body=b"1\r\nxy\r\n0\r\n\r\n"),
    "chunk size ended by a bare LF": post(CODED, body=b"1\nx\r\n0\r\n\r\n"),
    "chunk ended by a bare LF": post(CODED, body=b"1\r\nx\n0\r\n\r\n"),
    "bare CR in a chunk line": post(CODED, body=b"1;a\rb\r\nx\r\n0\r\n\r\n"),
    "long chunk extension": post(CODED, body=b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n"),
    "long chunk extension that does not end": post(CODED, body=b"1;" + b"a" * 300),
    "control byte in a chunk extension": post(CODED, body=b"1;a=\x00\r\nx\r\n0\r\n\r\n"),
    "bare LF ends the trailers": post(CODED, body=b"0\r\n\n"),
    "trailer without a colon": post(CODED, body=b"0\r\nx\r\n\r\n"),
    "folded trailer": post(CODED, body=b"0\r\nX-A: b\r\n c\r\n\r\n"),
}


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_be_framed_is_refused_and_the_connection_closed(request_bytes: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(request_bytes)
        assert response.status == 400
        assert response.header("connection") == "close"
        assert await client.rest() == b""
        assert upstream.sides == []
        assert served.gate.admitted == []


@pytest.mark.parametrize("request_bytes", REFUSED.values(), ids=REFUSED.keys())
async def test_it_is_refused_as_well_when_it_comes_byte_by_byte_behind_a_good_request(request_bytes: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(get())).status == 200
        before = upstream.raw
        for index in range(len(request_bytes)):
            client.send(request_bytes[index : index + 1])
            if index % 16 == 0:
                await client.writer.drain()
        response = await client.response()
        assert (response.status, response.header("connection")) == (400, "close")
        assert upstream.raw == before


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"CONNECT gate.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"TRACE /read HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (post(b"Expect: 200-ok", b"Content-Length: 1"), 417),
        (post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 1"), 417),
        (get(b"X-Long: " + b"a" * 20_000), 431),
        (b"GET /read HTTP/1.1\r\nX-Long: " + b"a" * 20_000, 431),
        (b"GET /" + b"a" * 20_000, 431),
        (post(CODED, body=b"0\r\n" + b"X-A: b\r\n" * 3_000 + b"\r\n"), 431),
    ],
)
async def test_other_refusals_of_the_head_close_the_connection_too(request_bytes: bytes, status: int) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(request_bytes)
        assert (response.status, response.header("connection")) == (status, "close")
        assert await client.rest() == b""
        assert upstream.sides == []


ACCEPTED = {
    "Host with a port": get(host=b"Host: gate.example:8080\r\n"),
    "Host with an empty port": get(host=b"Host: gate.example:\r\n"),
    "absolute-form target": b"GET http://gate.example/read HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute-form target beside an empty Host": b"GET https://gate.example/read HTTP/1.1\r\nHost:\r\n\r\n",
    "an offer of HTTP/2": get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "an offer of HTTP/2 with content": post(
        b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA", b"Content-Length: 5", body=b"hello"
    ),
    "an offer of a WebSocket with content": post(b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 5", body=b"hello"),
    "Proxy-Connection": get(b"Proxy-Connection: keep-alive"),
    "IPv6 Host": get(host=b"Host: [2001:db8::1]:8080\r\n"),
    "HTTP/1.0 without Host": b"GET /read HTTP/1.0\r\n\r\n",
    "one empty line in front": b"\r\n" + get(),
    "upper-case field names": get(b"ACCEPT: */*"),
    "white space around a value": get(b"X-A: \t b \t "),
    "empty value": get(b"X-A:"),
    "bytes over 127 in a value": get(b"X-A: \xc3\xa9"),
    "chunk extension": post(CODED, body=b'1;a="b"\r\nx\r\n0\r\n\r\n'),
    "Chunked in capitals": post(b"Transfer-Encoding: Chunked", body=b"1\r\nx\r\n0\r\n\r\n"),
    "underscore in a name that is not the gate's": get(b"X_Custom: 1"),
    "dot in a name that is not the gate's": get(b"X.Custom: 1"),
    "Content-Length of 0": post(b"Content-Length: 0"),
}


@pytest.mark.parametrize("request_bytes", ACCEPTED.values(), ids=ACCEPTED.keys())
async def test_what_is_unusual_but_unambiguous_passes(request_bytes: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):  # and the connection goes on, if it may
            assert (await client.ask(request_bytes)).status == 200
            if b"HTTP/1.0" in request_bytes:
                break
        assert len(served.gate.admitted) == len(upstream.requests) > 0
        assert {request.path for request in served.gate.admitted} <= {b"/read", b"/trade"}


@pytest.mark.parametrize("host", [b"Host: other.example\r\n", b"Host:\r\n"])
async def test_the_authority_of_an_absolute_target_stands_for_host(host: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(b"GET http://api.example:81/read?a=b HTTP/1.1\r\n" + host + b"\r\n")
        assert upstream.requests[0].line == b"GET /read?a=b HTTP/1.1"
        assert upstream.requests[0].values(b"x-forwarded-host") == [b"api.example:81"]
        request = served.gate.admitted[0]
        assert (request.target, request.path, request.query) == (b"/read?a=b", b"/read", b"a=b")
        assert request.field_lines(b"host") == [b"api.example:81"]


async def test_so_it_does_where_http_1_0_has_no_host() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await client.ask(b"GET http://api.example/read HTTP/1.0\r\n\r\n")
        assert upstream.requests[0].values(b"x-forwarded-host") == [b"api.example"]


async def test_proxy_connection_close_ends_the_connection() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(get(b"Proxy-Connection: close"))
        assert (response.status, response.header("connection")) == (200, "close")
        assert await client.rest() == b""


async def test_trailers_are_dropped_and_never_become_headers() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        body = b"3\r\nabc\r\n0\r\nX-Account-Id: evil\r\nX-Trailer: v\r\n\r\n"
        assert (await client.ask(post(CODED, body=body))).status == 200
        received = upstream.requests[0]
        assert received.body == b"abc"
        assert b"evil" not in received.raw
        assert received.values(b"x-trailer") == []
        assert served.gate.admitted[0].body == b"abc"


async def test_a_request_smuggled_inside_a_body_is_body() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        inner = b"GET /read?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await client.ask(post(b"Content-Length: %d" % len(inner), body=inner))).status == 200
        assert [received.body for received in upstream.requests] == [inner]


# -- the rules themselves, whatever llhttp lets through

A_HOST = (b"host", b"a")
UPGRADE = [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
PLAIN = {
    "length": 0, "keep_alive": True, "http10": False, "host": b"a", "named": frozenset(), "expects_continue": False, "upgrade": b"",
    "alone": True,
}  # fmt: skip


def told(framing: Framing) -> dict[str, object]:
    return {name: getattr(framing, name) for name in PLAIN}


@pytest.mark.parametrize(
    ("fields", "http10", "differs"),
    [
        ([], False, {}),
        ([(b"content-length", b"0")], False, {}),
        ([(b"content-length", b"12")], False, {"length": 12, "alone": False}),
        ([(b"transfer-encoding", b"Chunked")], False, {"length": CHUNKED, "alone": False}),
        ([(b"connection", b"close")], False, {"keep_alive": False, "alone": False}),
        ([(b"connection", b"X-A,\tClose , x-b")], False, {"keep_alive": False, "alone": False, "named": frozenset({b"x-a", b"x-b"})}),
        ([(b"connection", b"x-a"), (b"connection", b"x-b")], False, {"named": frozenset({b"x-a", b"x-b"})}),
        ([(b"connection", b"a\x0bb, keep alive")], False, {"named": frozenset({b"a\x0bb", b"keep alive"})}),
        ([(b"connection", b"\x0bclose")], False, {"named": frozenset({b"\x0bclose"})}),
        ([(b"connection", b"keep-alive")], False, {}),
        ([], True, {"http10": True, "keep_alive": False, "alone": False}),
        ([(b"connection", b"keep-alive")], True, {"http10": True, "alone": False}),
        ([(b"connection", b"keep-alive, close")], True, {"http10": True, "keep_alive": False, "alone": False}),
        ([(b"proxy-connection", b"close, x-a")], False, {"keep_alive": False, "alone": False}),
        ([(b"proxy-connection", b"keep-alive")], True, {"http10": True, "keep_alive": False, "alone": False}),
        ([(b"expect", b"100-Continue")], False, {"expects_continue": True}),
        ([(b"expect", b"100-continue")], True, {"http10": True, "keep_alive": False, "alone": False}),
        ([(b"expect", b"")], False, {}),
        (UPGRADE, False, {"upgrade": b"websocket", "named": frozenset({b"upgrade"}), "alone": False}),
        ([UPGRADE[0], (b"upgrade", b"h2c,\tWebSocket ")], False, {"upgrade": b"websocket", "named": {b"upgrade"}, "alone": False}),
        ([*UPGRADE, (b"upgrade", b"h2c")], False, {"upgrade": b"websocket", "named": {b"upgrade"}, "alone": False}),
        ([UPGRADE[0], (b"upgrade", b"h2c")], False, {"named": {b"upgrade"}, "alone": False}),
        ([UPGRADE[0], (b"upgrade", b"websocket/13")], False, {"named": {b"upgrade"}, "alone": False}),
        ([UPGRADE[0], (b"upgrade", b"\x0bwebsocket")], False, {"named": {b"upgrade"}, "alone": False}),
        ([UPGRADE[0], (b"upgrade", b"h2c websocket")], False, {"named": {b"upgrade"}, "alone": False}),
        ([UPGRADE[1]], False, {"alone": False}),
        ([(b"connection", b"keep-alive"), UPGRADE[1]], False, {"alone": False}),
        (UPGRADE, True, {"http10": True, "keep_alive": False, "named": {b"upgrade"}, "alone": False}),
        ([*UPGRADE, (b"content-length", b"1")], False, {"length": 1, "named": {b"upgrade"}, "alone": False}),
        ([*UPGRADE, (b"transfer-encoding", b"chunked")], False, {"length": CHUNKED, "named": {b"upgrade"}, "alone": False}),
    ],
)
def test_a_head_is_framed_by_each_of_its_fields(fields: list[tuple[bytes, bytes]], http10: bool, differs: dict[str, object]) -> None:
    assert told(frame([A_HOST, *fields], http10=http10)) == PLAIN | differs
    assert told(frame([*fields, A_HOST], http10=http10)) == PLAIN | differs


def test_what_nothing_is_said_of_is_not_there() -> None:
    assert told(Framing(0, keep_alive=True, http10=False, host=b"a")) == PLAIN | {"alone": False}


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        (b"a.example", b"a.example"), (b"a:80", b"a:80"), (b"a:", b"a"), (b"[::1]", b"[::1]"), (b"[::1]:", b"[::1]"),
        (b"[2001:db8::1]:65535", b"[2001:db8::1]:65535"), (b"a_b~!$&'()*+;=%41", b"a_b~!$&'()*+;=%41"), (b"a" * 255, b"a" * 255),
    ],
)  # fmt: skip
def test_a_host_may_have_a_port(host: bytes, asked: bytes) -> None:
    assert frame([(b"host", host)], http10=False).host == asked


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b":",
        b":80",
        b"a,b",
        b"a b",
        b"a/b",
        b"u@a",
        b"a:8x",
        b"a:123456",
        b"[::1",
        b"::1",
        b"[g]",
        b"[]",
        b"a" * 256,
        b"a\x00",
        b"\xff",
    ],
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    for http10 in (False, True):
        with pytest.raises(MalformedRequest, match=r"Host (must be|field is empty)") as refusal:
            frame([(b"host", host)], http10=http10)
        assert refusal.value.close


def test_only_http_1_0_may_leave_its_host_out() -> None:
    assert frame([], http10=True).host == b""
    with pytest.raises(MalformedRequest, match="Host field is missing"):
        frame([], http10=False)


@pytest.mark.parametrize("expected", [b"200-ok", b"100-continue, 100-continue", b"100"])
def test_no_other_expectation_is_met(expected: bytes) -> None:
    with pytest.raises(ExpectationFailed, match="only expectation supported") as refusal:
        frame([A_HOST, (b"expect", expected)], http10=False)
    assert refusal.value.close


def test_an_expectation_is_stated_once() -> None:
    for first in (b"100-continue", b"x"):
        with pytest.raises(ExpectationFailed):
            frame([A_HOST, (b"expect", first), (b"expect", b"100-continue")], http10=False)


@pytest.mark.parametrize(
    ("name", "value"), [("Host", b"a"), ("Content-Length", b"1"), ("Content-Length", b"0"), ("Transfer-Encoding", b"chunked")]
)
def test_a_repeated_field_is_named(name: str, value: bytes) -> None:
    field = (name.lower().encode(), value)
    with pytest.raises(MalformedRequest, match=f"the {name} field is repeated") as refusal:
        frame([*([A_HOST] if name != "Host" else []), field, field], http10=False)
    assert refusal.value.close


@pytest.mark.parametrize("value", [b"gzip", b"chunked, chunked", b"chunked ", b"\x0bchunked", b"", b"identity", b"xchunked"])
def test_a_coding_that_not_everybody_frames_alike_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedRequest, match="must be exactly chunked") as refusal:
        check_coding(value)
    assert refusal.value.close
    check_coding(b"CHUNKED")


@pytest.mark.parametrize("value", [b"", b"+1", b"-1", b"1 1", b"1,1", b"0x1", b"1" * 19, b"\xd9\xa1"])
def test_a_length_is_written_in_digits(value: bytes) -> None:
    with pytest.raises(MalformedRequest, match="must be given in digits"):
        content_length(value)
    assert content_length(b"9" * 18) == 10**18 - 1
    assert content_length(b"007") == 7


def test_a_length_and_a_coding_exclude_each_other_and_the_older_version_has_no_coding() -> None:
    with pytest.raises(MalformedRequest, match="both Content-Length and Transfer-Encoding"):
        check_together(chunked=True, with_length=True, http10=False)
    with pytest.raises(MalformedRequest, match=r"does not exist in HTTP/1\.0"):
        check_together(chunked=True, with_length=False, http10=True)
    for chunked, with_length, http10 in ((True, False, False), (False, True, True), (False, True, False), (False, False, True)):
        check_together(chunked=chunked, with_length=with_length, http10=http10)
    for http10, why in ((False, "both"), (True, "both")):
        with pytest.raises(MalformedRequest, match=why):
            frame([A_HOST, (b"content-length", b"0"), (b"transfer-encoding", b"chunked")], http10=http10)
    with pytest.raises(MalformedRequest, match=r"HTTP/1\.0"):
        frame([A_HOST, (b"transfer-encoding", b"chunked")], http10=True)


def test_what_may_stand_once_may_stand_once() -> None:
    check_once(False, "X")
    with pytest.raises(MalformedRequest, match="the X field is repeated"):
        check_once(True, "X")


def test_options_are_a_list_whatever_stands_between_its_commas() -> None:
    assert connection_options(b"connection", b",, Close\t,,x-a ,") == {b"close", b"x-a"}
    assert connection_options(b"proxy-connection", b"x-a, CLOSE, keep-alive") == {b"close"}


@pytest.mark.parametrize(
    ("options", "http10", "goes_on"),
    [
        (set(), False, True), (set(), True, False), ({b"keep-alive"}, True, True), ({b"keep-alive"}, False, True),
        ({b"close"}, False, False), ({b"close", b"keep-alive"}, True, False), ({b"close", b"keep-alive"}, False, False),
    ],
)  # fmt: skip
def test_a_connection_goes_on_by_its_version_and_its_options(options: set[bytes], http10: bool, goes_on: bool) -> None:
    assert persists(frozenset(options), http10=http10) is goes_on


def test_a_chunk_tells_its_size_in_hexadecimal() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
