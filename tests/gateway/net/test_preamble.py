"""What comes before the protocol counts for its client, takes turns, and is awaited for a while only."""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.config.settings import Tls
from gateway.net import preamble
from gateway.net.preamble import PreambleListener, whole_hello
from gateway.net.tally import Tally
from gateway.net.tls import server_context
from gateway.runtime.tasks import spawn
from gateway.server import plane
from tests.support import inside
from tests.support.certificates import client_hello, self_signed
from tests.support.plane import Served, serving
from tests.support.wire import RawClient, recording_upstream

GET = b"GET /read HTTP/1.1\r\nHost: gate.example\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00" + b"\x01\x00\x01\xfc\x03\x03" + bytes(506)
"""A whole record, which no handshake begins with in earnest."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"), "gate.example")


@asynccontextmanager
async def serving_tls(pair: tuple[Path, Path], *servers: Any, **sections: Any) -> AsyncIterator[Served]:
    async with serving(*servers, listen={"tls": {"certificate": pair[0], "key": pair[1]}}, **sections) as served:
        yield served


def trusting(pair: tuple[Path, Path]) -> dict[str, Any]:
    return {"ssl": ssl.create_default_context(cafile=pair[0]), "server_hostname": "gate.example"}


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        return listening.accept()[0], far


def preambles(served: Served) -> int:
    """How many preambles are in progress."""
    return sum(inside.preambles(served).values())


async def test_handshakes_in_progress_count_for_their_address_and_another_address_has_room(pair, monkeypatch):
    monkeypatch.setattr(plane, "MAX_EXCESS_REFUSED", 0)
    async with recording_upstream() as upstream, serving_tls(pair, upstream, limits={"max_connections_per_address": 3}) as served:
        stalled = [await served.client(local_addr=("127.0.0.2", 0)) for _ in range(5)]
        await served.until(lambda: served.metrics.connections_refused["from your address"] == 2)
        assert preambles(served) == 3
        for client in stalled[3:]:
            assert await client.rest() == b""
        other = await served.client(**trusting(pair))
        assert (await other.ask(GET)).status == 200
        await stalled[0].close()
        await served.until(lambda: preambles(served) == 2)
        again = await served.client(local_addr=("127.0.0.2", 0), **trusting(pair))
        assert (await again.ask(GET)).status == 200


async def test_handshakes_in_progress_count_in_all(pair, monkeypatch):
    monkeypatch.setattr(plane, "MAX_EXCESS_REFUSED", 0)
    async with serving_tls(pair, limits={"max_connections": 2}) as served:
        for number in range(4):
            await served.client(local_addr=(f"127.0.0.{number + 2}", 0))
        await served.until(lambda: served.metrics.connections_refused["in all"] == 2)
        assert preambles(served) == 2


async def test_behind_a_load_balancer_they_count_for_the_client_that_it_names(pair, monkeypatch):
    monkeypatch.setattr(plane, "MAX_EXCESS_REFUSED", 0)
    client_ip = {"proxy_protocol": True, "proxy_peers": ("127.0.0.0/8",)}
    async with serving_tls(pair, client_ip=client_ip, limits={"max_connections_per_address": 2}) as served:
        for source in [*["203.0.113.7"] * 3, "203.0.113.8"]:
            client = await served.client()
            client.send(b"PROXY TCP4 %b 10.0.0.1 4711 443\r\n" % source.encode())
        await served.until(lambda: served.metrics.connections_refused["from your address"] == 1)
        await served.until(lambda: preambles(served) == 3)
        await served.until(lambda: inside.preambles(served) == {"203.0.113.7": 2, "203.0.113.8": 1})


async def test_who_has_too_many_connections_is_told_so_over_tls(pair):
    async with recording_upstream() as upstream, serving_tls(pair, upstream, limits={"max_connections_per_address": 1}) as served:
        first = await served.client(**trusting(pair))
        assert (await first.ask(GET)).status == 200
        second = await served.client(**trusting(pair))
        assert (await second.response()).status == 503


@pytest.mark.parametrize("sent", [b"", HELLO[:4], HELLO[:-1]])
async def test_a_first_message_that_does_not_come_is_not_awaited_for_long(pair, sent):
    async with serving_tls(pair, limits={"header_timeout_ms": 100}) as served:
        client = await served.client()
        client.send(sent)
        assert await client.rest() == b""
        assert served.metrics.connections_refused["tls"] == 1
        assert preambles(served) == 0


BEGUN = {
    "nothing": [],
    "dribbled records": [bytes([byte]) for byte in b"\x14\x03\x03\x00\x01\x01" * 20],
    "another hello": [client_hello("gate.example")],
    "junk": [b"\x17\x03\x03\x40\x00" + bytes(20)],
}


@pytest.mark.parametrize("more", BEGUN.values(), ids=BEGUN)
async def test_a_handshake_that_has_begun_and_does_not_end_counts_for_its_address_and_is_not_awaited_for_long(pair, more):
    async with serving_tls(pair, limits={"header_timeout_ms": 400}) as served:
        client = await served.client(local_addr=("127.0.0.2", 0))
        client.send(client_hello("gate.example"))
        assert (await client.reader.readexactly(1)) == b"\x16", "the answer has begun"
        assert inside.preambles(served) == {"127.0.0.2": 1}
        for piece in more:
            if not client.writer.is_closing():
                client.send(piece)
                await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            await client.reader.read()
        await served.until(lambda: inside.preambles(served) == {})
        assert served.metrics.connections_refused["tls"] == 1
        assert served.metrics.connections_accepted == 0


async def test_who_takes_long_for_the_first_message_has_less_time_for_the_others(pair):
    """One limit for all of it: whose first message took more than half of it is dropped before who came in the middle of it."""
    async with serving_tls(pair, limits={"header_timeout_ms": 500}) as served:
        slow = await served.client()
        await asyncio.sleep(0.25)
        silent = await served.client()
        await asyncio.sleep(0.05)
        slow.send(client_hello("gate.example"))

        async def end(client: RawClient) -> RawClient:
            with contextlib.suppress(ConnectionError):
                await client.reader.read()
            return client

        dropped = [await each for each in asyncio.as_completed([end(silent), end(slow)])]
        assert dropped == [slow, silent]


@pytest.mark.parametrize("more", [b"", client_hello("gate.example")], ids=["nothing", "another hello, in the clear"])
async def test_a_handshake_that_nothing_follows_or_another_one_does_is_a_connection_of_its_address_and_closed(pair, more):
    async with serving_tls(pair, limits={"header_timeout_ms": 800}) as served:
        client = await served.client(local_addr=("127.0.0.2", 0), **trusting(pair))
        await served.until(lambda: inside.remembered(served.plane) == {"127.0.0.2": 1})
        if more:
            os.write(client.writer.get_extra_info("socket").fileno(), more)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await client.reader.read()
        await served.until(lambda: inside.remembered(served.plane) == {})


@pytest.mark.parametrize("sent", [HELLO, GET, b"\x16\x03\x01\xff\xff" + bytes(20_000)])
async def test_what_is_no_handshake_is_dropped_and_counted(pair, sent):
    async with serving_tls(pair) as served:
        client = await served.client()
        client.send(sent)
        await client.rest()
        await served.until(lambda: served.metrics.connections_refused["tls"] == 1)


async def test_of_many_that_start_tls_one_does_in_a_turn_and_addresses_take_turns(pair, monkeypatch):
    begun: list[str] = []
    turns: list[int] = []
    turn = 0
    async with serving_tls(pair) as served:
        in_turn = served.plane.in_turn

        def noted(peer, begin):
            def begins():
                begun.append(peer)
                turns.append(turn)
                begin()

            in_turn(peer, begins)

        monkeypatch.setattr(plane.Plane, "in_turn", lambda _self, peer, begin: noted(peer, begin))
        clients = [await served.client(local_addr=(address, 0)) for address in [*["127.0.0.2"] * 4, "127.0.0.3"]]
        await served.until(lambda: preambles(served) == 5)
        for client in clients:
            os.write(client.writer.get_extra_info("socket").fileno(), HELLO)
        while len(begun) < 5:
            turn += 1
            await asyncio.sleep(0)
        assert begun.index("127.0.0.3") <= 2, "it waits for one of each other address, and for the one under way"
        assert len(set(turns)) == 5


class Hall:
    """A host with room for everybody, whose clients are told when their preamble has ended."""

    def __init__(self) -> None:
        self.greeted = 0
        self.failed = 0
        self.came = asyncio.Condition()

    def sends_header(self, _peer: str) -> bool:
        return False

    def preamble_seconds(self) -> float:
        return 60.0

    def has_room(self, _peer: str, opening: Tally) -> bool:
        spawn(self._note(opening.total + 1), name="tell of one who came")
        return True

    def preamble_failed(self, _reason: str) -> None:
        self.failed += 1

    def in_turn(self, _peer: str, begin: Callable[[], None]) -> None:
        begin()

    def tls_limits(self) -> dict[str, Any]:
        return {}

    def client(self, _peer: str | None = None, *, believed: bool = True) -> asyncio.Protocol:
        return Told()

    async def _note(self, greeted: int) -> None:
        async with self.came:
            self.greeted = greeted
            self.came.notify_all()

    async def greets(self, number: int) -> None:
        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: self.greeted == number)


class Told(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"greeted\n")


async def test_who_finishes_lets_a_handshake_end_and_drops_those_that_do_not(pair):
    hall = Hall()
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    listener = PreambleListener(listening, hall, server_context(Tls(certificate=pair[0], key=pair[1])))
    silent, half, late = [await asyncio.open_connection(*address) for _ in range(3)]
    half[1].write(client_hello("gate.example"))
    await hall.greets(3)
    assert await asyncio.wait_for(half[0].readexactly(1), 20) == b"\x16", "the answer has begun"
    finishing = spawn(listener.finish(2.0), name="finish")
    await late[1].start_tls(trusting(pair)["ssl"], server_hostname="gate.example")
    assert await asyncio.wait_for(late[0].readline(), 20) == b"greeted\n"
    await asyncio.wait_for(finishing, 20)
    assert await asyncio.wait_for(silent[0].read(), 20) == b""
    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(half[0].read(), 20)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*address)
    assert hall.failed == 0
    for _, writer in (silent, half, late):
        writer.close()


async def test_who_finishes_with_nobody_is_done(pair):
    listener = PreambleListener(socket.create_server(("127.0.0.1", 0)), Hall(), server_context(Tls(certificate=pair[0], key=pair[1])))
    await asyncio.wait_for(listener.finish(60.0), 20)


async def test_a_hello_is_left_unread_and_awaited_to_its_last_byte():
    near, far = tcp_pair()
    with near, far:
        near.setblocking(False)
        waiting = spawn(whole_hello(near), name="await a hello")
        for part in (HELLO[:3], HELLO[3:6], HELLO[6:-1]):
            far.send(part)
            for _ in range(10):
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        far.send(HELLO[-1:])
        await waiting
        assert near.recv(1_000) == HELLO
        far.send(b"x")
        assert await asyncio.get_running_loop().sock_recv(near, 10) == b"x", "later bytes are told of at once"


@pytest.mark.parametrize("sent", [b"", b"GET", HELLO[:100]])
async def test_an_end_is_not_waited_beyond(sent):
    near, far = tcp_pair()
    with near, far:
        near.setblocking(False)
        far.send(sent)
        far.close()
        await whole_hello(near)


async def test_without_descriptors_it_rests_and_goes_on(pair, monkeypatch):
    monkeypatch.setattr(preamble, "REST_SECONDS", 0.01)
    async with recording_upstream() as upstream, serving_tls(pair, upstream) as served:
        listener, real = inside.listening(served)
        failures = [OSError(errno.EMFILE, "Too many open files")] * 2

        class Listening:
            """Which fails at first."""

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def accept(self) -> Any:
                if failures:
                    raise failures.pop()
                return real.accept()

        monkeypatch.setattr(listener, "_listening", Listening())
        client = await served.client(**trusting(pair))
        assert (await client.ask(GET)).status == 200
        assert not failures


async def test_a_client_accepted_during_a_drain_and_asks_nothing_does_not_hold_it(pair, monkeypatch):
    monkeypatch.setattr(plane, "IDLE_GRACE_MS", 20)
    async with recording_upstream() as upstream, serving_tls(pair, upstream) as served:
        busy = await served.client(**trusting(pair))
        busy.send(b"POST /trade HTTP/1.1\r\nHost: gate.example\r\nContent-Length: 1\r\n\r\n")
        late = await served.client()
        await served.until(lambda: preambles(served) == 1)
        draining = spawn(served.plane.drain(8_000), name="drain")
        await asyncio.sleep(0.1)
        await late.writer.start_tls(trusting(pair)["ssl"], server_hostname="gate.example")
        await served.until(lambda: served.metrics.connections == 2)
        busy.send(b"x")
        assert (await busy.response()).status == 200
        assert await draining


async def test_a_drain_waits_for_handshakes_in_progress_and_answers_what_comes_with_their_end(pair):
    async with recording_upstream() as upstream, serving_tls(pair, upstream) as served:
        late, silent = await served.client(), await served.client()
        await served.until(lambda: preambles(served) == 2)
        draining = spawn(served.plane.drain(60_000), name="drain")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not draining.done()
        await late.writer.start_tls(trusting(pair)["ssl"], server_hostname="gate.example")
        late.send(GET)
        assert (await late.response()).status == 200
        assert await draining
        assert await silent.rest() == b""


async def test_a_drain_does_not_wait_longer_than_it_may_for_preambles(pair):
    async with serving_tls(pair) as served:
        silent = await served.client()
        await served.until(lambda: preambles(served) == 1)
        assert not await served.plane.drain(50)
        assert await silent.rest() == b""
