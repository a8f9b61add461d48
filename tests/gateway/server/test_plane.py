"""Draining, reloading, and what a worker counts."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from gateway.errors import NoRoute
from gateway.net.preamble import AT_ONCE
from gateway.runtime.tasks import spawn
from gateway.server.plane import IDLE_GRACE_MS
from tests.support import inside
from tests.support.plane import ScriptedGate, serving
from tests.support.wire import OK, RawClient, Received, Response, UpstreamSide, recording_upstream

HOST = b"Host: gate.example\r\n"
GET = b"GET /read HTTP/1.1\r\n" + HOST + b"\r\n"


async def test_a_drain_closes_idle_connections_and_lets_requests_in_flight_finish() -> None:
    release = asyncio.Event()

    async def slow(side: UpstreamSide, _request: Received) -> None:
        await release.wait()
        side.send(OK)

    async with recording_upstream(slow) as upstream, serving(upstream) as served:
        idle, busy = await served.client(), await served.client()
        assert (await idle.ask(b"GET /time HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200
        busy.send(GET)
        await upstream.got(1)
        draining = spawn(served.plane.drain(30_000), name="drain")
        assert await idle.rest() == b""
        assert not draining.done()
        release.set()
        response = await busy.response()
        assert (response.status, response.header("connection")) == (200, "close")
        assert await busy.rest() == b""
        await busy.close()
        assert await draining is True


async def test_a_request_that_lies_unread_in_the_socket_when_a_drain_begins_is_answered() -> None:
    async def answered(client: RawClient) -> Response:
        response = await client.response()
        assert await client.rest() == b""
        await client.close()
        return response

    async with recording_upstream() as upstream, serving(upstream) as served:
        clients = [await served.client() for _ in range(3)]
        for client in clients:
            assert (await client.ask(GET)).status == 200
        answers = [spawn(answered(client), name="read an answer") for client in clients]
        for client in clients:
            os.write(client.writer.get_extra_info("socket").fileno(), GET)
        assert await served.plane.drain(30_000) is True  # begins before the event loop looks at the sockets
        responses = await asyncio.gather(*answers)
        assert [(response.status, response.header("connection")) for response in responses] == [(200, "close")] * 3


async def test_a_drain_with_nothing_open_ends_without_waiting() -> None:
    async with serving() as served:
        draining = spawn(served.plane.drain(30_000), name="drain")
        for _ in range(3):
            await asyncio.sleep(0)
        assert draining.done()


def in_halves(release: asyncio.Event) -> Callable[[UpstreamSide, Received], Awaitable[None]]:
    """Answers with the head and half of the content, and with the rest once it may."""

    async def answer(side: UpstreamSide, _request: Received) -> None:
        side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await release.wait()
        side.send(b"lf")

    return answer


async def test_a_response_that_had_begun_before_the_drain_is_the_connections_last() -> None:
    release = asyncio.Event()

    async with recording_upstream(in_halves(release)) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET)
        await client.head()
        draining = spawn(served.plane.drain(30_000), name="drain")
        await asyncio.sleep(0)
        release.set()
        assert await client.rest() == b"half"
        await client.close()
        assert await draining is True


@pytest.mark.parametrize("behind", [b"\r\n" + GET, b"\r\n"])
async def test_what_was_received_behind_a_request_whose_answer_had_begun_is_answered_in_the_drain(behind: bytes) -> None:
    """Its client has not been told that the connection would be closed, and could not know that the request was never read."""
    release = asyncio.Event()

    async with recording_upstream(in_halves(release)) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET + behind)
        assert "connection" not in dict((await client.head())[1])
        draining = spawn(served.plane.drain(30_000), name="drain")
        await asyncio.sleep(2 * IDLE_GRACE_MS / 1000)
        release.set()
        assert await client.reader.readexactly(4) == b"half"
        if len(behind) > 2:
            answer = await client.response()
            assert (answer.body, answer.header("connection")) == (b"half", "close")
        assert await client.rest() == b""
        await client.close()
        async with asyncio.timeout(10):
            assert await draining is True


async def test_a_client_that_reads_its_answer_during_the_drain_is_not_waited_for_after_that() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await served.until(lambda: bool(inside.connections(served)))
        (connection,) = inside.connections(served)
        client.pause_reading()
        connection.write(before := b"x" * (16 << 20))  # what it was answered earlier
        client.send(GET)
        await served.until(lambda: served.metrics.admitted["GET /read"] == 1 and not inside.answers(connection))
        draining = spawn(served.plane.drain(30_000), name="drain")
        await asyncio.sleep(2 * IDLE_GRACE_MS / 1000)
        client.resume_reading()
        await client.reader.readexactly(len(before))
        assert (await client.response()).status == 200
        assert await client.rest() == b""
        await client.close()
        async with asyncio.timeout(10):
            assert await draining is True


async def test_what_was_sent_behind_an_answer_that_is_read_during_the_drain_is_answered_too() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        await served.until(lambda: bool(inside.connections(served)))
        (connection,) = inside.connections(served)
        client.pause_reading()
        connection.write(before := b"x" * (16 << 20))  # what it was answered earlier
        client.send(GET + GET)
        await served.until(lambda: served.metrics.admitted["GET /read"] == 1 and not inside.answers(connection))
        draining = spawn(served.plane.drain(30_000), name="drain")
        await asyncio.sleep(0)
        client.resume_reading()
        await client.reader.readexactly(len(before))
        assert (await client.response()).header("connection") is None
        assert (await client.response()).header("connection") == "close"
        assert await client.rest() == b""
        await client.close()
        assert await draining is True


async def test_a_drain_takes_no_new_connections() -> None:
    async with serving() as served:
        await served.plane.drain(1_000)
        try:
            client = await served.client()
        except OSError:
            return
        assert await client.rest() == b""


async def test_a_drain_gives_up_after_its_limit() -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    async with recording_upstream(never) as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET)
        await upstream.got(1)
        assert await served.plane.drain(50) is False
        assert await client.rest() == b""


async def test_a_half_read_request_may_still_be_sent_while_draining() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(GET[:20])
        await served.until(lambda: any(not connection.idle for connection in inside.connections(served)))
        draining = spawn(served.plane.drain(30_000), name="drain")
        await asyncio.sleep(0)
        response = await client.ask(GET[20:])
        assert (response.status, response.header("connection")) == (200, "close")
        await client.close()
        assert await draining is True


async def test_a_request_is_judged_by_the_gate_that_was_in_force_at_its_head() -> None:
    class Strict(ScriptedGate):
        def route(self, head: object) -> None:
            raise NoRoute("nothing here")

    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        client.send(b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\na")
        await served.until(lambda: bool(served.gate.routed))
        served.reload(gate=Strict())
        assert (await client.ask(b"b")).status == 200
        assert (await client.ask(GET)).status == 404


async def test_new_limits_hold_for_open_connections() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        post = b"POST /trade HTTP/1.1\r\n" + HOST + b"Content-Length: 50\r\n\r\n" + b"x" * 50
        assert (await client.ask(post)).status == 200
        served.reload(limits={"max_body_bytes": 10})
        assert (await client.ask(post)).status == 413


async def test_connections_are_counted_down_as_they_end() -> None:
    async with serving() as served:
        clients = [await served.client() for _ in range(3)]
        await served.until(lambda: served.metrics.connections == 3)
        for client in clients:
            await client.close()
        await served.until(lambda: served.metrics.connections == 0)
        assert served.metrics.connections_accepted == 3
        assert inside.remembered(served.plane) == {}


async def test_request_ids_differ() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        for _ in range(3):
            await client.ask(GET)
        assert len({request.request_id for request in served.gate.admitted}) == 3


async def test_connections_that_wait_are_accepted_several_in_a_turn() -> None:
    async with serving() as served:
        waiting = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(AT_ONCE)]
        for _ in range(AT_ONCE - 1):
            await asyncio.sleep(0)
        assert served.metrics.connections_accepted == AT_ONCE
        for client in waiting:
            client.close()


async def test_after_the_last_request_a_client_speaks_of_the_connection_is_closed_and_after_the_gates_own_end_read_on() -> None:
    async with recording_upstream() as upstream, serving(upstream) as served:
        client = await served.client()
        response = await client.ask(b"GET /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert response.status == 200
        assert await client.end() == (b"", False)
        assert served.metrics.connections == 0
        refused = await served.client()
        assert (await refused.ask(b"GET /read HTTP/1.1\r\n\r\n")).status == 400
        assert await refused.end() == (b"", False)
        assert served.metrics.connections == 1, "the client may still be sending"
        unheard = await served.client()
        unheard.send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n")
        assert (await unheard.response()).status == 404
        assert await unheard.end() == (b"", False)
        assert served.metrics.connections == 2, "the client is still sending"
