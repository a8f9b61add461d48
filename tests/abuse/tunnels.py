"""Attacks by WebSockets: tunnels, and sessions whose messages the gate reads."""

import asyncio
import json
import secrets
from collections.abc import Callable
from itertools import count
from typing import Final

from gateway.websocket.frames import TEXT, frame
from tests.abuse.attacks import Attack, Scene, answer, holding

HANDSHAKE: Final = (
    b"GET %b HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
EMPTY: Final = b"\x8a\x80\x00\x00\x00\x00"
"""A Pong without a payload, masked."""
PING: Final = b"\x89\x80\x00\x00\x00\x00"
BURST: Final = 4_000
"""Frames in one write: 24 kB, ten times a second."""


async def open_tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: bytes = b"/stream") -> int:
    """The status of the handshake."""
    writer.write(HANDSHAKE % path)
    return await answer(reader)


async def idle_tunnels(scene: Scene, address: str) -> None:
    """1 024 of them, as many as a service takes connections, by public viewers who send nothing."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await open_tunnel(reader, writer)
        await reader.read()

    await holding(scene, address, 94, one)


async def half_open_tunnels(scene: Scene, address: str) -> None:
    """The service never answers the handshake."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await open_tunnel(reader, writer, b"/silent")

    await holding(scene, address, 94, one)


async def empty_frames(scene: Scene, address: str) -> None:
    await _frames(scene, address, b"/stream", EMPTY)


async def ping_floods(scene: Scene, address: str) -> None:
    await _frames(scene, address, b"/session", PING)


async def _frames(scene: Scene, address: str, path: bytes, frame: bytes) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await open_tunnel(reader, writer, path) == 101
        while not writer.is_closing() and not reader.at_eof():
            writer.write(frame * BURST)
            await writer.drain()
            await asyncio.sleep(0.1)

    await holding(scene, address, 2, one)


async def messages_by_other_names(scene: Scene, address: str) -> None:
    """Each of a method that nobody has heard of."""
    await _messages(scene, address, lambda: {"method": secrets.token_hex(8)})


async def endless_subscriptions(scene: Scene, address: str) -> None:
    """To another event each time, all of them public."""
    numbers = count()
    await _messages(scene, address, lambda: {"method": "subscribe", "events": [f"MK.{next(numbers)}" for _ in range(10)]})


async def _messages(scene: Scene, address: str, message: Callable[[], object]) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await open_tunnel(reader, writer, b"/session") == 101
        while not writer.is_closing() and not reader.at_eof():
            writer.write(b"".join(frame(TEXT, json.dumps(message()).encode(), mask=b"\0\0\0\0") for _ in range(50)))
            await writer.drain()
            await asyncio.sleep(0.1)

    await holding(scene, address, 4, one)


TUNNEL_ATTACKS: Final = (
    Attack(idle_tunnels, addresses=11),
    Attack(half_open_tunnels),
    Attack(empty_frames),
    Attack(ping_floods),
    Attack(messages_by_other_names),
    Attack(endless_subscriptions),
)
