"""TLS on accepted connections: who has not finished the handshake is counted, bounded, and served by nobody."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config.settings import Tls
from gateway.net.handshakes import Guest, TlsListener
from gateway.net.tls import server_context
from tests.support.certificates import self_signed

PATIENCE = 20.0


class Hall:
    """Room for two guests, who are told their own names."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.made = 0
        self.changed = asyncio.Condition()

    def note(self) -> None:
        async def tell() -> None:
            async with self.changed:
                self.changed.notify_all()

        asyncio.get_running_loop().create_task(tell())

    async def holds(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(lambda: self.held.total() == number)


class Told(Guest):
    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._peer: str | None = None

    def enter(self, peer: str) -> bool:
        if self._hall.held.total() >= 2:
            return False
        self._peer = peer
        self._hall.held[peer] += 1
        self._hall.note()
        return True

    def leave(self) -> None:
        if self._peer is not None:
            self._hall.held[self._peer] -= 1
            self._peer = None
            self._hall.note()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._hall.made += 1
        transport.write(f"{self._peer}\n".encode())

    def connection_lost(self, _exc: BaseException | None) -> None:
        self.leave()


@asynccontextmanager
async def listening(folder: Path, handshake_s: float = PATIENCE) -> AsyncIterator[tuple[Hall, TlsListener, int, ssl.SSLContext]]:
    certificate, key = self_signed(folder, "localhost")
    hall = Hall()
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    tls = server_context(Tls(certificate=certificate, key=key))
    listener = TlsListener(sock, lambda: Told(hall), tls, handshake_s=handshake_s)
    try:
        yield hall, listener, port, ssl.create_default_context(cafile=certificate)
    finally:
        await listener.close()


async def greeted(port: int, context: ssl.SSLContext) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    return await asyncio.wait_for(reader.readline(), PATIENCE), writer


async def test_a_handshake_under_way_takes_a_place_and_gives_it_back_when_it_fails(tmp_path: Path) -> None:
    async with listening(tmp_path) as (hall, _, port, context):
        silent, babbling = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await hall.holds(2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b"", "one too many"
        writer.close()
        babbling[1].write(b"GET / HTTP/1.1\r\n\r\n")
        await hall.holds(1)
        assert hall.made == 0
        told, client = await greeted(port, context)
        assert told == b"127.0.0.1\n"
        client.close()
        await hall.holds(1)
        silent[1].close()
        await hall.holds(0)
        babbling[1].close()
        assert hall.made == 1


async def test_a_handshake_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    async with listening(tmp_path, handshake_s=0.05) as (hall, _, port, _context):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        await hall.holds(0)
        writer.close()


async def test_who_listens_no_more_lets_a_handshake_end_and_cuts_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.net.handshakes.LAST_S", 0.5)
    async with listening(tmp_path) as (hall, listener, port, context):
        reader, silent = await asyncio.open_connection("127.0.0.1", port)
        late_reader, late = await asyncio.open_connection("127.0.0.1", port)
        await hall.holds(2)
        closing = asyncio.get_running_loop().create_task(listener.close())
        await late.start_tls(context, server_hostname="localhost")
        assert await asyncio.wait_for(late_reader.readline(), PATIENCE) == b"127.0.0.1\n"
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        await closing
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        late.close()
        await hall.holds(0)
        silent.close()
