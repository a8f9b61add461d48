"""Limits of time, size and number. Limits of time are set small; nothing asserts how fast."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from gateway.forward.fair_queue import SMALLEST_SHARE
from gateway.net.addresses import owners
from gateway.net.tally import Tally
from gateway.runtime.tasks import spawn
from gateway.server.connection import ClientConnection
from gateway.server.plane import MAX_EXCESS_REFUSED
from gateway.server.states import ENDING
from tests.support import inside
from tests.support.certificates import self_signed
from tests.support.in_memory import Wire
from tests.support.plane import serving
from tests.support.wire import TIMEOUT, Received, Script, UpstreamSide, answering, recording_upstream

HOST = b"Host: gate.example\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n"
QUICK = {"header_timeout_ms": 120}


async def drip(client, data: bytes, every: float = 0.02) -> None:
    """One byte at a time until the gate hangs up."""
    for byte in data:
        if client.writer.is_closing() or client.reader.at_eof():
            return
        client.send(bytes([byte]))
        await asyncio.sleep(every)


async def test_a_head_that_comes_byte_by_byte_is_cut_off() -> None:
    async with serving(limits=QUICK) as served:
        client = await served.client()
        dripping = spawn(drip(client, GET * 10), name="drip")
        response = await client.response()
        assert (response.status, response.body, response.header("connection")) == (408, b"request_timeout", "close")
        dripping.cancel()
        assert served.metrics.timeouts["header"] == 1


async def test_the_first_heads_time_runs_from_the_connections_opening() -> None:
    async with serving() as served:
        client = await served.client()
        await served.until(lambda: bool(inside.connections(served)))
        (connection,) = inside.connections(served)
        opened = connection.deadline_ms
        served.plane.worker.ticker.now_ms += 1_000
        client.send(GET[:10])
        await served.until(lambda: not connection.idle)
        assert connection.deadline_ms == opened


async def test_a_later_head_has_the_same_limit_from_its_first_byte() -> None:
    async with serving(limits=QUICK) as served:
        client = await served.client()
        assert (await client.ask(b"GET /time HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200
        client.send(b"G")
        assert (await client.response()).status == 408


async def test_a_connection_on_which_nothing_is_ever_sent_is_closed() -> None:
    async with serving(limits=QUICK) as served:
        client = await served.client()
        assert await client.rest() == b""


async def test_an_idle_connection_is_closed_after_its_own_limit() -> None:
    async with serving(limits={"idle_timeout_ms": 120}) as served:
        client = await served.client()
        assert (await client.ask(b"GET /time HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200
        assert await client.rest() == b""
        assert served.metrics.timeouts["idle"] == 1


POST_AND_EMPTY_LINE = b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi\r\n"


async def test_an_empty_line_behind_content_is_not_taken_for_a_head_that_does_not_come() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={**QUICK, "idle_timeout_ms": 300}) as served:
        client = await served.client()
        assert (await client.ask(POST_AND_EMPTY_LINE)).status == 200
        assert await client.rest() == b""  # and not an answer that nobody asked for
        assert served.metrics.timeouts["idle"] == 1
        client = await served.client()
        for _ in range(2):
            assert (await client.ask(POST_AND_EMPTY_LINE)).status == 200
        client.send(b"GET /r")
        assert (await client.response()).status == 408


async def test_an_empty_line_behind_content_does_not_hold_up_a_drain() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        assert (await client.ask(POST_AND_EMPTY_LINE)).status == 200
        assert await served.plane.drain(30_000)
        assert await client.rest() == b""
        assert served.metrics.timeouts == {}


async def test_content_that_does_not_come_in_time_is_cut_off() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"body_timeout_ms": 120}) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nx")
        dripping = spawn(drip(client, b"x" * 90), name="drip")
        response = await client.response()
        assert (response.status, response.header("connection")) == (408, "close")
        dripping.cancel()
        assert upstream.sides == []


async def test_content_of_a_refused_request_is_not_waited_for_for_ever() -> None:
    async with serving(limits={"body_timeout_ms": 120}) as served:
        client = await served.client()
        client.send(b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nx")
        response = await client.response()
        assert (response.status, response.header("connection")) == (404, None)
        assert await client.rest() == b""


async def test_streamed_content_that_stops_coming_frees_the_upstream() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"body_timeout_ms": 120}) as served:
        client = await served.client()
        client.send(b"POST /public HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\nx")
        await served.until(lambda: bool(upstream.sides))
        assert (await client.response()).status == 408
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)


async def test_a_client_that_stops_reading_is_dropped() -> None:
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000)
    async with recording_upstream(script) as upstream, serving(upstream, limits={"idle_timeout_ms": 120}) as served:
        client = await served.client()
        client.pause_reading()
        client.send(GET)
        await served.until(lambda: served.metrics.timeouts["write"] == 1)
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)


async def test_an_upstream_that_does_not_answer_in_time_is_504() -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    async with recording_upstream(never) as upstream, serving(upstream, spot={"response_timeout_ms": 120}) as served:
        client = await served.client()
        response = await client.ask(GET)
        assert (response.status, response.body) == (504, b"upstream_timeout")
        await asyncio.wait_for(upstream.sides[0].gone.wait(), 30)
        assert len(upstream.requests) == 1, "a request that timed out is not sent again"


@pytest.mark.parametrize("why", ["close", "HTTP/1.0", "drain"])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_slow_reader_gets_the_end_of_a_last_answer(why: str, tls: bool, tmp_path: Path) -> None:
    content = bytes(range(240)) * 250  # more than the sockets take, less than the gate stops reading at
    begun, finish = asyncio.Event(), asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content[:-1])
        begun.set()
        await finish.wait()
        side.send(content[-1:])

    first, line = (b"HTTP/1.0" if why == "HTTP/1.0" else b"HTTP/1.1"), (b"Connection: close\r\n" if why == "close" else b"")
    certificate, key = self_signed(tmp_path, "gate.example")
    listen = {"tls": {"certificate": certificate, "key": key}} if tls else {}

    def connect(port: int) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", port))
        return ssl.create_default_context(cafile=certificate).wrap_socket(sock, server_hostname="gate.example") if tls else sock

    def read(sock: socket.socket) -> bytes:
        return b"".join(iter(lambda: sock.recv(65_536), b""))

    async with recording_upstream(script) as upstream, serving(upstream, listen=listen) as served:
        with await asyncio.to_thread(connect, served.port) as client:
            await served.until(lambda: bool(inside.connections(served)))
            (connection,) = inside.connections(served)
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            client.sendall(b"GET /read " + first + b"\r\n" + HOST + line + b"\r\n")
            await begun.wait()
            draining = spawn(served.plane.drain(30_000), name="drain") if why == "drain" else None
            await asyncio.sleep(0)
            finish.set()
            await served.until(lambda: inside.state(connection) == ENDING)
            for _ in range(5):
                connection.expired()  # the moment to linger has passed
                await asyncio.sleep(0.01)
            assert served.metrics.connections == 1
            assert (await asyncio.to_thread(read, client)).endswith(content)

        def gone() -> bool:
            connection.expired()
            return served.metrics.connections == 0

        await served.until(gone)
        assert draining is None or await draining is True


async def test_a_response_that_has_begun_may_be_silent_for_longer_than_one_that_has_not() -> None:
    again = asyncio.Event()

    async def events(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n")
        await again.wait()
        side.send(b"2\r\nb\n\r\n0\r\n\r\n")

    async with recording_upstream(events) as upstream, serving(upstream, spot={"response_timeout_ms": 80}) as served:
        client = await served.client()
        client.send(GET)
        await client.head()
        assert await client.reader.readuntil(b"a\n\r\n") == b"2\r\na\n\r\n"
        ticks: list[int] = []
        served.plane.worker.ticker.subscribe(ticks.append)
        await served.until(lambda: bool(ticks) and ticks[-1] - ticks[0] > 200)
        again.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"2\r\nb\n\r\n0\r\n\r\n"


async def test_a_response_that_stops_in_its_middle_is_cut_off() -> None:
    async def half(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await side.reader.read()

    async with recording_upstream(half) as upstream, serving(upstream, spot={"stream_idle_timeout_ms": 120}) as served:
        client = await served.client()
        client.send(GET)
        assert (await client.head())[0] == 200
        assert await client.rest() == b"half"


async def test_a_response_that_trickles_is_not_cut_off() -> None:
    async def trickle(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.04)
            side.send(b"x")

    async with recording_upstream(trickle) as upstream, serving(upstream, spot={"stream_idle_timeout_ms": 200}) as served:
        client = await served.client()
        assert (await client.ask(GET)).body == b"x" * 10


async def test_a_client_that_sends_slowly_is_not_the_upstreams_fault() -> None:
    async with recording_upstream() as upstream, serving(upstream, spot={"response_timeout_ms": 80}) as served:
        client = await served.client()
        client.send(b"POST /public HTTP/1.1\r\n" + HOST + b"Content-Length: 70000\r\n\r\n")
        await served.until(lambda: bool(upstream.sides))
        await asyncio.sleep(0.25)
        assert (await client.ask(b"x" * 70_000)).status == 200


async def test_a_client_that_reads_slowly_is_not_the_upstreams_fault() -> None:
    size = 32 << 20
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    async with recording_upstream(script) as upstream, serving(upstream, spot={"response_timeout_ms": 80}) as served:
        client = await served.client()
        client.pause_reading()
        client.send(GET)
        await upstream.got(1)
        await asyncio.sleep(0.3)
        client.resume_reading()
        assert len((await client.response()).body) == size


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_reads_slowly_gets_the_whole_answer_however_short_the_limit(tmp_path: Path, tls: bool) -> None:
    size = 6 << 20
    pair = self_signed(tmp_path, "gate.example")
    how = {"ssl": ssl.create_default_context(cafile=pair[0]), "server_hostname": "gate.example"} if tls else {}
    listen = {"listen": {"tls": {"certificate": pair[0], "key": pair[1]}}} if tls else {}
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    async with recording_upstream(script) as upstream, serving(upstream, limits={"idle_timeout_ms": 400}, **listen) as served:
        client = await served.client(receive_bytes=8_192, **how)
        client.send(b"GET /read HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert (await client.head())[0] == 200
        received = 0
        while received < size:
            client.resume_reading()
            data = await client.reader.read(size)
            client.pause_reading()
            assert data, f"the connection ended after {received} bytes"
            received += len(data)
            await asyncio.sleep(len(data) / 3_000_000)


async def test_an_upstream_that_stops_taking_content_is_504() -> None:
    size = 64 << 20
    limits = {"max_body_bytes": size}
    async with recording_upstream() as upstream, serving(upstream, spot={"response_timeout_ms": 150}, limits=limits) as served:
        client = await served.client()
        client.send(b"POST /public HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size)
        await served.until(lambda: bool(upstream.sides))
        upstream.sides[0].pause_reading()
        client.send(b"x" * size)
        assert (await client.response()).status == 504


async def test_an_upstream_that_cannot_be_reached_in_time_is_502() -> None:
    # A listener whose queue of connections is full does not complete another one.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        async with serving(f"http://127.0.0.1:{full.getsockname()[1]}", spot={"connect_timeout_ms": 120}) as served:
            client = await served.client()
            response = await client.ask(GET)
            assert (response.status, response.body) == (502, b"upstream_unreachable")
        for sock in waiting:
            sock.close()


# -- sizes


def post(body: bytes, path: bytes = b"/trade", *lines: bytes) -> bytes:
    head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(body)
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def test_content_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"max_body_bytes": 100}) as served:
        client = await served.client()
        assert (await client.ask(post(b"x" * 100))).status == 200
        response = await client.ask(post(b"x" * 101))
        assert (response.status, response.body, response.header("connection")) == (413, b"body_too_large", "close")
        assert await client.rest() == b""
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("path", [b"/trade", b"/public"])
async def test_chunked_content_is_held_to_the_same_limit(path: bytes) -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"max_body_bytes": 100}) as served:
        head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        client = await served.client()
        assert (await client.ask(head + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n")).status == 200
        client.send(head)
        client.send(b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n")
        response = await client.response()
        assert (response.status, response.header("connection")) == (413, "close")
        assert len(upstream.requests) == 1


async def test_content_that_is_given_up_gives_its_memory_back() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"body_timeout_ms": 120}) as served:
        free = served.plane.worker.memory.left
        half = b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n" + b"x" * 50
        gone, late, whole = [await served.client() for _ in range(3)]
        for client in (gone, late):
            client.send(half)
        await served.until(lambda: served.plane.worker.memory.left == free - 100)
        await gone.close()
        assert (await late.response()).status == 408
        assert (await whole.ask(post(b"x" * 100))).status == 200
        await served.until(lambda: served.metrics.connections == 2)
        assert served.plane.worker.memory.left == free


async def test_too_large_content_is_refused_before_it_is_sent() -> None:
    async with serving(limits={"max_body_bytes": 100}) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.response()).status == 413


async def test_a_head_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    limit = 2_048
    head = b"GET /read HTTP/1.1\r\n" + HOST + b"X-Long: "
    room = limit - len(head) - 4
    async with recording_upstream() as upstream, serving(upstream, limits={"max_header_bytes": limit}) as served:
        client = await served.client()
        assert (await client.ask(head + b"a" * room + b"\r\n\r\n")).status == 200
        response = await client.ask(head + b"a" * (room + 1) + b"\r\n\r\n")
        assert (response.status, response.body, response.header("connection")) == (431, b"headers_too_large", "close")
        assert len(upstream.requests) == 1


# -- number


async def test_connections_beyond_the_limit_are_told_and_closed_and_others_go_on() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"max_connections": 2}) as served:
        first, second = await served.client(), await served.client()
        assert (await first.ask(GET)).status == 200
        assert (await second.ask(GET)).status == 200
        third = await served.client()
        response = await third.response()
        assert (response.status, response.body, response.header("connection")) == (503, b"overloaded", "close")
        assert await third.rest() == b""
        assert (await first.ask(GET)).status == 200
        await first.close()
        await served.until(lambda: served.metrics.connections == 1)
        assert (await (await served.client()).ask(GET)).status == 200


async def test_connections_of_one_address_are_limited() -> None:
    async with recording_upstream() as upstream, serving(upstream, limits={"max_connections_per_address": 1}) as served:
        first = await served.client()
        assert (await first.ask(GET)).status == 200
        assert (await (await served.client()).response()).status == 503
        other = await served.client(local_addr=("127.0.0.2", 0))
        assert (await other.ask(GET)).status == 200


async def test_addresses_of_one_ipv6_customer_are_counted_as_one() -> None:
    async with serving(limits={"max_connections_per_address": 2}) as served:
        plane = served.plane

        def come(peer: str) -> str:
            connection = ClientConnection(plane.worker, plane, peer=peer)
            connection.transport = Wire()  # type: ignore[assignment]
            return plane.opened(connection)

        assert [come(f"2001:db8:1:2::{host:x}") for host in range(3)] == ["", "", "from your address"]
        assert [come("2001:db8:1:3::1"), come("::ffff:192.0.2.1"), come("192.0.2.1")] == ["", "", ""]
        assert come("192.0.2.1") == "from your address"


async def test_the_networks_of_an_ipv6_site_have_a_quarter_of_all_connections() -> None:
    async with serving(limits={"max_connections_per_address": 2, "max_connections": 20}) as served:
        plane = served.plane
        open_: list[ClientConnection] = []

        def come(peer: str) -> str:
            connection = ClientConnection(plane.worker, plane, peer=peer)
            connection.transport = Wire()  # type: ignore[assignment]
            open_.append(connection)
            return plane.opened(connection)

        assert [come(f"2001:db8:1:{network:x}::1") for network in range(7)] == [""] * 5 + ["from your network"] * 2
        assert [come("2001:db8:2::1"), come("192.0.2.1")] == ["", ""]
        plane.closed(open_.pop(0))
        assert [come("2001:db8:1:1::1"), come("2001:db8:1:1::1")] == ["", "from your address"]
        opening = Tally()
        for network in range(MAX_EXCESS_REFUSED):
            assert plane.has_room("2001:db8:1:ffff::1", opening)
            opening.add(owners(f"2001:db8:1:{network:x}::1"))
        assert not plane.has_room("2001:db8:1:ffff::1", opening)
        for connection in open_:
            plane.closed(connection)
        assert inside.remembered(plane) == {}


async def test_a_trusted_proxy_speaks_for_many_and_is_not_limited_as_one() -> None:
    limits, client_ip = {"max_connections_per_address": 1}, {"trusted_proxies": ("127.0.0.0/8",)}
    async with recording_upstream() as upstream, serving(upstream, limits=limits, client_ip=client_ip) as served:
        for _ in range(3):
            assert (await (await served.client()).ask(GET)).status == 200


async def test_upstream_connections_are_limited_and_requests_wait_their_turn() -> None:
    release = asyncio.Event()

    async def script(side: UpstreamSide, _request: Received) -> None:
        await release.wait()
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with recording_upstream(script) as upstream, serving(upstream, spot={"max_connections": 1}) as served:
        clients = [await served.client() for _ in range(2)]
        for client in clients:
            client.send(GET)
        await upstream.got(1)
        assert (await (await served.client()).ask(GET)).body == b"overloaded"
        release.set()
        assert [(await client.response()).status for client in clients] == [200, 200]
        assert len(upstream.sides) == 1


async def test_a_request_does_not_wait_for_a_connection_for_ever() -> None:
    async def slowly(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        while True:
            await asyncio.sleep(0.03)
            side.send(b"x")

    spot = {"max_connections": 1, "response_timeout_ms": 150}
    async with recording_upstream(slowly) as upstream, serving(upstream, spot=spot) as served:
        first, second = await served.client(), await served.client()
        first.send(GET)
        await upstream.got(1)
        response = await second.ask(GET)
        assert (response.status, response.body) == (503, b"overloaded")


async def test_a_connection_that_fails_when_its_client_has_gone_leaves_its_place_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    fails = asyncio.Event()

    async with recording_upstream() as upstream, serving(upstream, spot={"max_connections": 1}) as served:
        (server,) = served.upstreams.pools["spot"].servers
        connect = server.connect

        async def fail_later() -> None:
            monkeypatch.setattr(server, "connect", connect)
            await fails.wait()
            raise ConnectionError("refused")

        monkeypatch.setattr(server, "connect", fail_later)
        gone, waiting = await served.client(), await served.client()
        gone.send(GET)
        await served.until(lambda: server.active == 1)
        waiting.send(GET)
        await served.until(lambda: server.active == 2)
        gone.writer.transport.abort()
        await served.until(lambda: server.active == 1)
        fails.set()
        assert (await waiting.response()).status == 200
        assert inside.remembered(inside.fair_queue(served)) == {}


def slow_until(release: asyncio.Event) -> Script:
    """An upstream whose answers to ``/slow`` wait for this."""

    async def script(side: UpstreamSide, request: Received) -> None:
        if b"/slow" in request.line:
            await release.wait()
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return script


async def test_nor_does_one_client_keep_the_connections_that_others_leave() -> None:
    """One after the other: more than a quarter of all have been opened, and those that are idle are no longer everybody's."""
    release = asyncio.Event()
    async with recording_upstream(slow_until(release)) as upstream, serving(upstream, spot={"max_connections": 16}) as served:
        (server,) = served.upstreams.pools["spot"].servers
        greedy = [await served.client() for _ in range(14)]
        honest = await served.client(local_addr=("127.0.0.2", 0))
        for number, client in enumerate(greedy):
            client.send(GET.replace(b"/read", b"/read/slow"))
            await served.until(lambda number=number: server.active == number + 1)  # type: ignore[misc]
            assert (await honest.ask(GET)).status == 200
        assert sum(b"/slow" in request.line for request in upstream.requests) <= 16 // 4 + SMALLEST_SHARE
        assert len(upstream.sides) < 16
        release.set()
        assert [(await client.response()).status for client in greedy] == [200] * 14
        await served.until(lambda: inside.remembered(inside.fair_queue(served)) == {})


async def test_one_client_leaves_upstream_connections_to_others_and_its_requests_are_served_in_the_end() -> None:
    release = asyncio.Event()
    async with recording_upstream(slow_until(release)) as upstream, serving(upstream, spot={"max_connections": 16}) as served:
        greedy = [await served.client() for _ in range(20)]
        for client in greedy:
            client.send(GET.replace(b"/read", b"/read/slow"))
        await upstream.got(8)
        other = await served.client(local_addr=("127.0.0.2", 0))
        for _ in range(3):
            assert (await other.ask(GET)).status == 200
        slow = sum(b"/slow" in request.line for request in upstream.requests)
        assert slow == 8
        assert served.upstreams.used_percent() == {"upstream_connections": 50}, "one that is idle is not in use"
        release.set()
        assert [(await client.response()).status for client in greedy] == [200] * 20
        assert len(upstream.sides) <= 16
        assert inside.remembered(inside.fair_queue(served)) == {}
        assert served.upstreams.used_percent() == {"upstream_connections": 0}
