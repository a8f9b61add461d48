"""Upstreams end to end: retries, balancing, ejection, health, keep-alive, responses that cannot be framed, reload, TLS."""

import asyncio
import os
import socket
from typing import Any

import pytest

from tests.support.inside import has_received, upstream_connections
from tests.support.plane import ScriptedGate, serving
from tests.support.wire import OK, Received, UpstreamSide, answer_ok, answering, recording_upstream

HOST = b"Host: gate.example\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"

UNFRAMABLE = {
    "both Content-Length and Transfer-Encoding": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "repeated Content-Length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "differing Content-Length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "Content-Length list": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "Content-Length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "Transfer-Encoding gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked on HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status beyond 599": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000,
    "an upgrade that was not asked for": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "101 without Upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "content of a 1xx": b"HTTP/1.1 150 X\r\nContent-Length: 38\r\n\r\n" + OK,
    "chunks of a 1xx": b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bytes behind a 1xx": b"HTTP/1.1 150 X\r\n\r\nhello" + OK,
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("response", UNFRAMABLE.values(), ids=UNFRAMABLE.keys())
async def test_a_response_that_cannot_be_framed_is_502_and_its_connection_is_never_used_again(response: bytes) -> None:
    async with recording_upstream(answering(response, close=not response)) as upstream, serving(upstream) as served:
        client = await served.client()
        answer = await client.ask(POST)
        assert (answer.status, answer.body) == (502, b"upstream_unreachable")
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)
        upstream.script = answer_ok
        assert (await client.ask(POST)).status == 200
        assert len(upstream.sides) == 2


SPOILED = {
    "a second response": OK + OK,
    "the beginning of a second response": OK + b"H",
    "content behind 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
    "more content than announced": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokok",
}


@pytest.mark.parametrize("response", SPOILED.values(), ids=SPOILED.keys())
async def test_bytes_behind_a_response_never_become_the_next_one(response: bytes) -> None:
    async with recording_upstream(answering(response)) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status in (200, 204)
        upstream.script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        assert (await client.ask(GET)).body == b"good"
        assert len(upstream.sides) == 2


ONLY_ONCE = {
    "Connection: close": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
    "Proxy-Connection: close": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nProxy-Connection: close\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "content announced by 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("response", ONLY_ONCE.values(), ids=ONLY_ONCE.keys())
async def test_a_response_with_any_doubt_is_the_last_of_its_connection(response: bytes) -> None:
    async with recording_upstream(answering(response)) as upstream, serving(upstream) as served:
        client = await served.client()
        for count in (1, 2):  # unknown, and known
            assert (await client.ask(GET)).status in (200, 204)
            assert len(upstream.sides) == count


@pytest.mark.parametrize("content", [b"ok", b"5\r\n", b"0\r\n\r\n"])
async def test_content_behind_a_head_response_never_becomes_the_next_one(content: bytes) -> None:
    async with recording_upstream(answering(OK.removesuffix(b"ok") + content)) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(b"HEAD /read HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200
        upstream.script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
        assert (await client.ask(GET)).body == b"good"
        assert len(upstream.sides) == 2


@pytest.mark.parametrize(("echo", "first", "second"), [(b"a", b"\r", b"\n\r\n"), (b"ab", b"b", b"\r\n\r\n")])
async def test_a_head_that_begins_like_a_known_one_and_comes_in_two_pieces_is_read_to_its_end(
    echo: bytes, first: bytes, second: bytes
) -> None:
    """``echo`` comes from a client. The first piece is one byte longer than the known head, and the length would fit the shortcut."""
    known = b"HTTP/1.1 200 OK\r\nServer: upstream\r\nContent-Length: 62\r\nX-Echo: a"
    content = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforged!".ljust(len(known) - 2)
    assert len(content) == 62
    again = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        if len(upstream.requests) == 1:
            side.send(known + b"\r\n\r\n" + content)
            return
        side.send(known + first)
        await again.wait()
        side.send(second + content)

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).body == content
        client.send(GET)
        await upstream.got(2)
        connection = next(iter(upstream_connections(served)))
        await served.until(lambda: connection.call is None or has_received(connection))  # the first piece has been read
        again.set()
        response = await client.response()
        assert (response.header("x-echo"), response.body) == (echo.decode(), content)
        assert len(upstream.sides) == 1


@pytest.mark.parametrize(
    "chunks",
    [b"2  \r\nok\r\n0  \r\n\r\n", b"2 ; a=b\r\nok\r\n0\r\n\r\n", b"2\r\nok\r\n0\r\nX-Account-Id: 7\r\nTransfer-Encoding: x\r\n\r\n"],
)
@pytest.mark.parametrize("coding", [b"chunked", b"chunked\t", b"Chunked  "])
async def test_chunks_as_servers_send_them_are_read_and_sent_on_in_our_own(chunks: bytes, coding: bytes) -> None:
    script = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n" + chunks)
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):
            response = await client.ask(GET)
            assert (response.body, response.header("transfer-encoding"), response.header("x-account-id")) == (b"ok", "chunked", None)
        assert len(upstream.sides) == 1


async def test_a_date_that_goes_no_further_is_written_anew() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\nConnection: date\r\nDate: then\r\nContent-Length: 2\r\n\r\nok")
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):
            assert (await client.ask(GET)).header("date") not in (None, "then")


async def test_bytes_on_an_idle_connection_end_it() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        upstream.sides[0].send(OK)
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)
        assert (await client.ask(GET)).status == 200


MALFORMED_CONTENT = {
    "a broken chunk size": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"zz\r\n"),
    "a chunk without its end": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok", b"x"),
    "a trailer that is none": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"x\r\n\r\n"),
    "trailers without end": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"X-A: " + b"a" * 70_000),
}


@pytest.mark.parametrize("response", [*MALFORMED_CONTENT.values()][:3], ids=[*MALFORMED_CONTENT][:3])
async def test_malformed_content_that_comes_with_the_head_is_502(response: tuple[bytes, bytes]) -> None:
    script = answering(b"HTTP/1.1 200 OK\r\n" + b"".join(response))
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 502
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)


@pytest.mark.parametrize("response", MALFORMED_CONTENT.values(), ids=MALFORMED_CONTENT.keys())
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_malformed_content_behind_what_was_passed_on_resets_the_connection(response: tuple[bytes, bytes], version: bytes) -> None:
    passed = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\n" + response[0])
        await passed.wait()
        side.send(response[1])

    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET.replace(b"1.1", version))
        assert (await client.head())[0] == 200
        passed.set()
        rest, reset = await client.end()
        assert reset, "an HTTP/1.0 client would take any other end for that of the content"
        assert b"ok" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)


async def test_a_response_that_ends_too_early_is_not_made_to_look_whole() -> None:
    for head in (b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"):
        async with recording_upstream(answering(b"HTTP/1.1 200 OK\r\n" + head, close=True)) as upstream, serving(upstream) as served:
            client = await served.client()
            client.send(GET)
            rest = await client.rest()
            assert b"half" in rest or rest == b""
            assert not rest.endswith(b"0\r\n\r\n")


# -- trying again


async def close_second(side: UpstreamSide, request: Received) -> None:
    """Answer the first request of a connection, then close when the second comes: an idle connection that was just being closed."""
    if side.raw.count(b" HTTP/1.1\r\n") == 1:
        side.send(OK)
    else:
        side.writer.transport.abort()


async def test_an_idle_connection_closed_as_it_is_used_is_made_up_for_by_a_fresh_one() -> None:
    async with recording_upstream(close_second) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        assert (await client.ask(GET)).status == 200
        assert len(upstream.sides) == 2
        assert served.metrics.upstream_retries["spot"] == 1


async def test_a_request_that_is_not_idempotent_is_never_sent_twice() -> None:
    async with recording_upstream(close_second) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(POST)).status == 200
        answer = await client.ask(POST)
        assert (answer.status, answer.body) == (502, b"upstream_unreachable")
        assert len(upstream.requests) == 2


METHODS = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"POST", b"PATCH")


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("method", METHODS)
async def test_a_trade_is_never_sent_twice_whatever_its_method(method: bytes, servers: int) -> None:
    sending = method + b" /trade/1 HTTP/1.1\r\n" + HOST + b"\r\n"
    script = answering(b"", close=True)
    async with recording_upstream(script) as one, recording_upstream(script) as two, serving(*(one, two)[:servers]) as served:
        answer = await (await served.client()).ask(sending)
        assert (answer.status, len(one.requests) + len(two.requests)) == (502, 1)
        assert served.metrics.upstream_retries["spot"] == 0


@pytest.mark.parametrize("method", METHODS)
async def test_a_trade_is_not_sent_again_when_an_idle_connection_is_just_being_closed(method: bytes) -> None:
    sending = method + b" /trade/1 HTTP/1.1\r\n" + HOST + b"\r\n"
    async with recording_upstream(close_second) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(POST)).status == 200
        assert (await client.ask(sending)).status == 502
        assert len(upstream.requests) == 2


async def test_what_claims_at_the_replay_guard_is_not_sent_twice_either() -> None:
    claim = asyncio.get_running_loop().create_future()
    claim.set_result(None)
    gate = ScriptedGate(claim_result=claim)
    async with recording_upstream(answering(b"", close=True)) as upstream, serving(upstream, gate=gate) as served:
        assert (await (await served.client()).ask(GET)).status == 502
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(("path", "doubtful"), [(b"/trade", True), (b"/read", False)])
@pytest.mark.parametrize("answers", [False, True])
async def test_a_refusal_of_a_trade_that_was_sent_says_how_to_find_out_what_became_of_it(
    path: bytes, doubtful: bool, answers: bool
) -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    script = answering(b"", close=True) if answers else never
    async with recording_upstream(script) as upstream, serving(upstream, spot={"response_timeout_ms": 100}) as served:
        refusals = []
        served.gate.told = refusals.append
        answer = await (await served.client()).ask(GET.replace(b"/read", path))
        assert answer.status == (502 if answers else 504)
        assert ("before you send it again, check its outcome" in refusals[0].detail) is doubtful
        assert (refusals[0].extras == {"outcome": "unknown"}) is doubtful


async def test_a_trade_of_which_no_byte_was_sent_goes_to_another_server() -> None:
    async with recording_upstream() as gone, recording_upstream() as upstream, serving(gone, upstream) as served:
        await gone.stop()
        client = await served.client()
        for _ in range(4):
            assert (await client.ask(GET.replace(b"/read", b"/trade"))).status == 200


async def test_a_post_does_not_use_an_idle_connection_that_the_upstream_has_closed() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        server = served.upstreams.pools["spot"].servers[0]
        for certain in (False, True):
            assert (await client.ask(POST)).status == 200
            with socket.socket(fileno=os.dup(upstream.sides[-1].writer.get_extra_info("socket").fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)  # in the tick in which it is taken: the event loop cannot have noticed
            assert (server.take(certain=certain) is None) is certain


async def test_only_requests_that_must_not_be_sent_twice_are_looked_at_so_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        server = served.upstreams.pools["spot"].servers[0]
        take, asked = server.take, []

        def recording(certain: bool) -> object:
            asked.append(certain)
            return take(certain)

        monkeypatch.setattr(server, "take", recording)
        for path in (b"/read", b"/trade"):
            for method in (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH"):
                assert (await client.ask(POST.replace(b"POST", method).replace(b"/trade", path))).status == 200
        assert asked == [False, True, False, False, True] + 5 * [True]


async def test_an_idempotent_request_that_breaks_on_a_lone_fresh_connection_fails_once() -> None:
    async with recording_upstream(answering(b"", close=True)) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 502
        assert len(upstream.requests) == 1


async def test_another_server_is_tried_when_one_cannot_be_reached() -> None:
    async with recording_upstream() as gone, recording_upstream() as upstream, serving(gone, upstream) as served:
        await gone.stop()
        client = await served.client()
        for _ in range(6):
            assert (await client.ask(POST)).status == 200
        assert len(upstream.requests) == 6


async def test_an_idempotent_request_is_tried_on_another_server_when_one_breaks_it() -> None:
    broken_script = answering(b"", close=True)
    async with recording_upstream(broken_script) as broken, recording_upstream() as other, serving(broken, other) as served:
        client = await served.client()
        for _ in range(4):
            assert (await client.ask(GET)).status == 200
        assert broken.requests


async def test_no_server_that_answers_is_502_once_all_were_tried() -> None:
    async with recording_upstream() as one, recording_upstream() as two, serving(one, two) as served:
        await one.stop()
        await two.stop()
        client = await served.client()
        assert (await client.ask(GET)).status == 502


async def test_a_streamed_request_is_not_sent_twice() -> None:
    async with recording_upstream(close_second) as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        body = b"x" * 100_000
        answer = await client.ask(b"PUT /public HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.status == 502


# -- balancing and ejection


async def test_requests_go_where_the_fewest_are() -> None:
    release = asyncio.Event()

    async def slow(side: UpstreamSide, _request: Received) -> None:
        await release.wait()
        side.send(OK)

    async with recording_upstream(slow) as one, recording_upstream(slow) as two, serving(one, two) as served:
        clients = [await served.client() for _ in range(8)]
        for client in clients:
            client.send(GET)
        await asyncio.gather(one.got(4), two.got(4))
        release.set()
        assert [(await client.response()).status for client in clients] == [200] * 8


async def test_a_server_that_keeps_failing_is_ejected_and_let_in_again_by_one_probe() -> None:
    async with recording_upstream(answering(b"", close=True)) as bad, recording_upstream() as good, serving(bad, good) as served:
        client = await served.client()
        served.plane.worker.ticker.stop()  # an ejection runs out when this test says so
        while len(bad.requests) < 3:
            assert (await client.ask(GET)).status == 200
        for _ in range(10):
            assert (await client.ask(GET)).status == 200
        assert len(bad.requests) == 3
        bad.script = answer_ok
        served.plane.worker.ticker.now_ms += 1_100  # the ejection has run out
        for _ in range(6):
            assert (await client.ask(GET)).status == 200
        assert len(bad.requests) > 4


async def test_a_lone_server_is_not_ejected() -> None:
    async with recording_upstream(answering(b"", close=True)) as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(5):
            assert (await client.ask(POST)).status == 502
        assert served.upstreams.pools["spot"].usable_servers() == 1
        upstream.script = answer_ok
        assert (await client.ask(POST)).status == 200


async def test_a_server_killed_under_load_fails_at_most_what_was_in_flight_on_it() -> None:
    async with recording_upstream() as victim, recording_upstream() as survivor, serving(victim, survivor) as served:
        clients = [await served.client() for _ in range(8)]
        failed = 0

        async def load(client) -> None:
            nonlocal failed
            for _ in range(60):
                failed += (await client.ask(POST)).status != 200

        async def kill() -> None:
            await victim.got(40)
            await victim.stop()

        await asyncio.gather(kill(), *(load(client) for client in clients))
        assert failed <= len(clients)
        assert len(survivor.requests) > 200


# -- active health checks


HEALTH = {"health": {"path": "/health", "interval_ms": 20, "timeout_ms": 500}}


async def test_a_server_whose_health_check_fails_is_left_alone_until_it_passes() -> None:
    healthy = True

    async def script(side: UpstreamSide, request: Received) -> None:
        if request.line == b"GET /health HTTP/1.1":
            side.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % (204 if healthy else 503))
        else:
            side.send(OK)

    async with recording_upstream(script) as upstream, serving(upstream, spot=HEALTH) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        server = served.upstreams.pools["spot"].servers[0]
        healthy = False
        await served.until(lambda: not server.condition.up)
        before = [request for request in upstream.requests if b"/read" in request.line]
        answer = await client.ask(GET)
        assert (answer.status, answer.body) == (503, b"upstream_unavailable")
        assert [request for request in upstream.requests if b"/read" in request.line] == before
        assert served.metrics.snapshot()["upstream_healthy"] == [(("spot",), [0])]
        healthy = True
        await served.until(lambda: server.condition.up)
        assert (await client.ask(GET)).status == 200


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 X\r\n\r\n", b"garbage\r\n\r\n", b"HTTP/1.1 301 X\r\n\r\n"])
async def test_anything_but_2xx_is_not_healthy(answer: bytes) -> None:
    async with recording_upstream(answering(answer, close=True)) as upstream, serving(upstream, spot=HEALTH) as served:
        await served.until(lambda: not served.upstreams.pools["spot"].servers[0].condition.up)


async def test_a_health_check_that_hangs_is_not_healthy() -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    spot = {"health": {"path": "/health", "interval_ms": 20, "timeout_ms": 60}}
    async with recording_upstream(never) as upstream, serving(upstream, spot=spot) as served:
        await served.until(lambda: not served.upstreams.pools["spot"].servers[0].condition.up)


# -- keep-alive and reload


async def test_idle_upstream_connections_are_kept_only_so_long() -> None:
    async with recording_upstream() as upstream, serving(upstream, spot={"keep_alive_ms": 100}) as served:
        client = await served.client()
        assert (await client.ask(GET)).status == 200
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)
        assert served.metrics.upstream_connections["spot"] == 0


async def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    async with recording_upstream() as upstream, serving(upstream, spot={"max_idle_connections": 0}) as served:
        client = await served.client()
        for _ in range(2):
            assert (await client.ask(GET)).status == 200
        assert len(upstream.sides) == 2


async def test_an_upstream_that_says_close_is_believed() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    async with recording_upstream(script) as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(2):
            assert (await client.ask(GET)).header("connection") is None
        assert len(upstream.sides) == 2


async def test_a_reload_keeps_the_connections_of_an_unchanged_upstream_and_retires_a_changed_one() -> None:
    async with recording_upstream() as kept, recording_upstream() as changed, serving(kept) as served:
        both: dict[str, dict[str, Any]] = {"spot": {"servers": (kept.url,)}, "other": {"servers": (changed.url,)}}
        served.reload(upstreams=both)
        client = await served.client()
        other = GET.replace(b"/read", b"/other")
        assert [(await client.ask(request)).status for request in (GET, other)] == [200, 200]
        both["other"]["max_connections"] = 7
        served.reload(upstreams=both)
        await asyncio.wait_for(changed.sides[0].gone.wait(), 30)
        assert [(await client.ask(request)).status for request in (GET, other)] == [200, 200]
        assert (len(kept.sides), len(changed.sides)) == (1, 2)
        assert set(dict(served.metrics.snapshot()["upstream_servers"])) == {("spot",), ("other",)}
        served.reload(upstreams={})
        assert served.metrics.snapshot()["upstream_servers"] == []


async def test_a_reload_keeps_what_is_known_of_a_server() -> None:
    async with recording_upstream(answering(b"", close=True)) as bad, recording_upstream() as good:
        spot = {"servers": (bad.url, good.url)}
        async with serving(bad, good) as served:
            client = await served.client()
            served.plane.worker.ticker.stop()  # no ejection runs out
            while not served.upstreams.pools["spot"].servers[0].condition.ejected(served.plane.worker.ticker.now_ms):
                assert (await client.ask(GET)).status == 200
            seen = len(bad.requests)
            before = served.upstreams.pools["spot"]
            served.reload(upstreams={"renamed": {**spot, "max_connections": 7}, "spot": {**spot, "max_connections": 9}})
            for pool in served.upstreams.pools.values():
                assert pool is not before
                now_ms = served.plane.worker.ticker.now_ms
                assert [server.condition.ejected(now_ms) for server in pool.servers] == [True, False]
            for _ in range(6):
                assert (await client.ask(GET)).status == 200
            assert len(bad.requests) == seen


async def test_what_one_upstream_finds_of_a_server_takes_it_from_no_other() -> None:
    """They may ask for another health path, or for none: then nothing would ever find the server up again."""
    async with recording_upstream(answering(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")) as upstream:
        other = {"servers": (upstream.url,), "health": {"path": "/health", "interval_ms": 60_000}}
        spot = {"servers": (upstream.url,)}
        async with serving(upstream, spot=spot) as served:
            served.reload(upstreams={"spot": spot, "other": other})
            pools = served.upstreams.pools
            await served.until(lambda: not pools["other"].servers[0].condition.up)
            assert pools["spot"].usable_servers() == 1
            served.reload(upstreams={"spot": {**spot, "connect_timeout_ms": 999}, "other": other})
            assert [pool.usable_servers() for pool in served.upstreams.pools.values()] == [1, 0]


async def test_a_server_that_a_reload_leaves_alone_is_in_use() -> None:
    async with recording_upstream(answering(b"", close=True)) as bad, recording_upstream() as good, serving(bad, good) as served:
        client = await served.client()
        while not served.upstreams.pools["spot"].servers[0].condition.ejected(served.plane.worker.ticker.now_ms):
            assert (await client.ask(GET)).status == 200
        served.reload(upstreams={"spot": {"servers": (bad.url,)}})
        assert served.upstreams.pools["spot"].usable_servers() == 1


async def test_a_server_that_was_down_is_up_when_nobody_checks_it_any_more() -> None:
    async with recording_upstream(answering(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")) as upstream:
        checked = {"servers": (upstream.url,), "health": {"path": "/health", "interval_ms": 60_000}}
        async with serving(upstream, spot=checked) as served:
            await served.until(lambda: not served.upstreams.pools["spot"].servers[0].condition.up)
            served.reload(upstreams={"spot": {**checked, "connect_timeout_ms": 999}})
            assert not served.upstreams.pools["spot"].servers[0].condition.up
            served.reload(upstreams={"spot": {"servers": (upstream.url,)}})
            assert served.upstreams.pools["spot"].servers[0].condition.up


async def test_a_request_in_flight_outlives_the_removal_of_its_upstream() -> None:
    release = asyncio.Event()

    async def slow(side: UpstreamSide, _request: Received) -> None:
        await release.wait()
        side.send(OK)

    async with recording_upstream(slow) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET)
        await upstream.got(1)
        served.reload(upstreams={})
        release.set()
        assert (await client.response()).status == 200
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)
        assert (await client.ask(GET)).body == b"upstream_unavailable"


async def test_a_pool_of_the_old_settings_still_times_out() -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    async with recording_upstream(never) as upstream, serving(upstream, spot={"response_timeout_ms": 100}) as served:
        client = await served.client()
        client.send(GET)
        await upstream.got(1)
        served.reload(upstreams={})
        assert (await client.response()).status == 504
