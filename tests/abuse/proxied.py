"""Attacks on a gate that ends TLS, behind a proxy that it trusts: connections say nothing of who somebody is there."""

import asyncio
import secrets
from itertools import count
from typing import Final

from tests.abuse.attacks import Attack, Scene, again_and_again, answer, connected, holding, signed
from tests.abuse.tunnels import HANDSHAKE
from tests.support.certificates import client_hello

CLIENT_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a handshake begins."""
KEY_SHARE: Final = 51
"""The extension of a ClientHello (RFC 8446 §4.2)."""


def said_to_be_of(request: bytes, address: str) -> bytes:
    """The request, with the client's address as the proxy tells it."""
    return request.replace(b"\r\n", b"\r\nX-Forwarded-For: " + address.encode() + b"\r\n", 1)


def of_one_network() -> str:
    """Any address of one IPv6 /64."""
    return f"2001:db8:bad:1:{secrets.randbelow(1 << 16):x}:{secrets.randbelow(1 << 16):x}:{secrets.randbelow(1 << 16):x}:1"


async def failed_tls_handshakes(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CLIENT_HELLO + secrets.token_bytes(600))
        await reader.read()

    await holding(scene._replace(certificate=""), address, 16, one)


async def tls_handshakes_that_stall(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CLIENT_HELLO)
        await reader.read()

    await holding(scene._replace(certificate=""), address, 60, one)


async def tls_handshakes_that_do_not_end(scene: Scene, address: str) -> None:
    """The gate has answered, which is what costs; then comes a byte now and then of a record."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(client_hello("127.0.0.1"))
        assert await reader.readexactly(1) == b"\x16"
        for byte in b"\x17\x03\x03\x40\x00" + bytes(1_000):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.5)

    await holding(scene._replace(certificate=""), address, 60, one)


async def second_hellos(scene: Scene, address: str) -> None:
    """The first offers no key share, so that the gate asks for another hello (RFC 8446 §4.1.4)."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = client_hello("127.0.0.1")
        writer.write(without_shares(hello))
        await reader.readexactly(6)
        writer.write(hello)
        assert await reader.readexactly(1)
        await reader.read()

    await holding(scene._replace(certificate=""), address, 16, one)


async def tls_connections_that_say_nothing(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await holding(scene, address, 60, one)


def without_shares(hello: bytes) -> bytes:
    """A ClientHello that offers no key shares (RFC 8446 §4.2.8). A record, a handshake, a ClientHello (§5.1, §4, §4.1.2)."""
    place = 5 + 4 + 2 + 32
    place += 1 + hello[place]
    place += 2 + int.from_bytes(hello[place : place + 2])
    place += 1 + hello[place]
    lengths = ((3, 2), (6, 3), (place, 2))
    place += 2
    while int.from_bytes(hello[place : place + 2]) != KEY_SHARE:
        place += 4 + int.from_bytes(hello[place + 2 : place + 4])
    size = int.from_bytes(hello[place + 2 : place + 4])
    changed = bytearray(hello[: place + 2] + b"\0\2\0\0" + hello[place + 4 + size :])
    for start, digits in lengths:
        changed[start : start + digits] = (int.from_bytes(hello[start : start + digits]) + 2 - size).to_bytes(digits)
    return bytes(changed)


async def one_ipv6_network_holds_tunnels(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said_to_be_of(HANDSHAKE % b"/stream", of_one_network()))
        await answer(reader)
        await reader.read()

    await holding(scene, address, 40, one)


async def one_ipv6_network_holds_requests(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said_to_be_of(b"GET /slow HTTP/1.1\r\nHost: gate\r\n\r\n", of_one_network()))
        await answer(reader)

    await holding(scene, address, 40, one)


async def one_ipv6_network_sends_contents(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = said_to_be_of(signed(scene.key, "POST", "/orders", bytes(1 << 20), key_id="gbk_"), of_one_network())
        writer.write(head[: -(1 << 20)] + bytes((1 << 20) - 1))
        await reader.read()

    await holding(scene, address, 8, one)


async def many_clients_of_one_proxy(scene: Scene, address: str) -> None:
    """All on connections that are kept: bad signatures of thousands of addresses."""
    numbers = count(secrets.randbelow(1 << 16))
    await again_and_again(
        scene,
        address,
        lambda: said_to_be_of(
            signed(scene.key, "GET", "/wallets", secret="wrong"), f"198.18.{next(numbers) >> 8 & 255}.{next(numbers) & 255}"
        ),
    )


async def one_client_of_the_bots_proxy(scene: Scene, address: str) -> None:
    """From the bot's own address, by the bot's own proxy."""
    async with connected(scene, address) as (reader, writer):
        while True:
            writer.write(said_to_be_of(signed(scene.key, "GET", "/wallets", secret="wrong"), "203.0.113.7"))
            await answer(reader)
            await asyncio.sleep(0.005)


PROXIED_ATTACKS: Final = (
    Attack(failed_tls_handshakes),
    Attack(tls_handshakes_that_stall),
    Attack(tls_handshakes_that_do_not_end),
    Attack(second_hellos),
    Attack(tls_connections_that_say_nothing),
    Attack(one_ipv6_network_holds_tunnels),
    Attack(one_ipv6_network_holds_requests),
    Attack(one_ipv6_network_sends_contents),
    Attack(many_clients_of_one_proxy),
    Attack(one_client_of_the_bots_proxy),
)
