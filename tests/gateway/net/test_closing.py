"""How a connection ends, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.net.closing import reset, unsent

PIECE = bytes(4 << 20)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """A transport, and its peer's socket, which nobody reads."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport)  # type: ignore[arg-type]

    server = await loop.create_server(Accepting, "127.0.0.1", 0)
    peer = socket.socket()
    peer.setblocking(False)
    try:
        await loop.sock_connect(peer, server.sockets[0].getsockname())
        transport = await accepted
        yield transport, peer
        transport.abort()
    finally:
        peer.close()
        server.close()


async def test_what_the_peer_has_not_read_is_counted_until_the_socket_is_closed() -> None:
    async with connected() as (transport, peer):
        assert unsent(transport) == 0
        transport.write(PIECE)
        before = unsent(transport)
        assert transport.get_write_buffer_size() < before <= len(PIECE), "the kernel's part is counted, too"
        read = 0
        while read < len(PIECE):
            read += len(await asyncio.get_running_loop().sock_recv(peer, 1 << 20))
        while unsent(transport):  # noqa: ASYNC110  # the kernel tells nobody of an acknowledgement
            await asyncio.sleep(0)
        transport.abort()
        assert unsent(transport) == 0


async def test_a_reset_is_no_end_that_a_peer_could_take_for_a_normal_one() -> None:
    async with connected() as (transport, peer):
        transport.write(b"half")
        assert await asyncio.get_running_loop().sock_recv(peer, 4) == b"half"
        reset(transport)
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(peer, 1)
