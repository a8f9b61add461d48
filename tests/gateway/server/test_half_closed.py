"""A client that shuts down its sending side right behind its requests: what is answered by then arrives, the rest is given up."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.errors import NoRoute
from gateway.server import fair_scheduler
from tests.support.certificates import self_signed
from tests.support.plane import ScriptedGate, Served, serving
from tests.support.wire import TIMEOUT, Received, UpstreamSide, recording_upstream

HOST = b" HTTP/1.1\r\nHost: gate.example\r\n\r\n"
TIME = b"GET /time" + HOST
OWN = TIME + b"GET /nowhere" + HOST
READ = b"GET /read" + HOST


async def half_closing(served: Served, data: bytes, certificate: Path | None) -> bytes:
    """Sends this and its end at once, over TLS in one segment, on a connection that is in use; what comes back."""
    client = await served.client()
    if certificate is None:
        await client.ask(TIME)
        client.send(data)
        client.writer.write_eof()
        return await client.rest()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context(cafile=certificate).wrap_bio(incoming, outgoing, server_hostname="gate.example")
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(outgoing.read())
                incoming.write(await client.reader.read(65_536))
        session.write(TIME)
        client.send(outgoing.read())
        received = b""
        while b"time_ms" not in received:
            incoming.write(await client.reader.read(65_536))
            with suppress(ssl.SSLWantReadError):
                received += session.read()
    session.write(data)
    with pytest.raises(ssl.SSLWantReadError):
        session.unwrap()  # writes close_notify, and would wait for the other one
    client.send(outgoing.read())
    incoming.write(await client.rest())
    received = b""
    with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
        while piece := session.read():
            received += piece
    return received


@pytest.fixture(params=["plain", "tls"])
def pair(request, tmp_path: Path, monkeypatch):
    for limit in ("BUDGET_NS", "TURN_NS"):  # what waits for a turn is not answered by then
        monkeypatch.setattr(fair_scheduler, limit, 60_000_000_000)
    return self_signed(tmp_path, "gate.example") if request.param == "tls" else None


def listening(pair: tuple[Path, Path] | None) -> dict[str, object]:
    return {} if pair is None else {"listen": {"tls": {"certificate": pair[0], "key": pair[1]}}}


async def test_it_gets_what_the_gate_itself_answers(pair) -> None:
    async with serving(gate=ScriptedGate(), **listening(pair)) as served:
        said = await half_closing(served, OWN, pair and pair[0])
        assert [said.count(line) for line in (b"HTTP/1.1 200 ", b'{"time_ms":1}', b"HTTP/1.1 404 ", NoRoute.code.encode())] == [1] * 4
        await served.until(lambda: served.metrics.connections == 0)


async def test_what_a_service_is_still_working_on_is_given_up(pair) -> None:
    async def never(side: UpstreamSide, _request: Received) -> None:
        await side.reader.read()

    async with recording_upstream(never) as upstream, serving(upstream, **listening(pair)) as served:
        assert (await half_closing(served, OWN + READ + OWN, pair and pair[0])).count(b"HTTP/1.1 ") == 2
        await served.until(lambda: served.metrics.connections == 0)
        assert served.upstreams.pools["spot"].servers[0].active == 0
