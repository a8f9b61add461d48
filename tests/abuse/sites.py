"""Attacks of one who has a whole IPv6 /48: each connection comes from another of its 65,536 networks, as a PROXY header says.

The gate that is attacked has little of everything, so that a few dozen connections of strangers would use it up.
"""

import asyncio
import secrets
from typing import Final

from gateway.keys.ids import new_key_id
from tests.abuse.attacks import Attack, Scene, answer, holding, signed
from tests.abuse.tunnels import HANDSHAKE

CONNECTIONS: Final = 60
"""Of each address that an attack on connections comes from: 240 of a gate that takes 200. Of others, two thirds."""
UPLOAD: Final = 65_536
"""Bytes, at most: larger ones are not buffered."""
LIMITS_OF_FEW: Final = f"""[limits]
per_key = "6000/minute"
per_account = "6000/minute"
max_connections = 200
max_connections_per_address = 40
max_tunnels = 40
max_tunnels_per_address = 8
max_body_bytes = {UPLOAD}
body_memory_bytes = 1048576
"""
FEW_UPSTREAM_CONNECTIONS: Final = "max_connections = 16"
BEHIND_A_BALANCER: Final = '[client_ip]\nproxy_protocol = true\nproxy_peers = ["127.0.8.0/21"]\n'
"""Attackers come by way of it, bots do not."""


def of_one_site() -> bytes:
    """How a connection begins that comes from any network of one /48."""
    return f"PROXY TCP6 2001:db8:bad:{secrets.randbelow(1 << 16):x}::1 2001:db8::1 40000 443\r\n".encode()


async def _holding(scene: Scene, address: str, request: bytes, number: int = CONNECTIONS * 2 // 3) -> None:
    """Connections with this request, whose answers are awaited, and whatever comes behind them."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of_one_site() + request)
        await answer(reader)
        await reader.read()

    await holding(scene, address, number, one)


async def one_ipv6_site_holds_connections(scene: Scene, address: str) -> None:
    await _holding(scene, address, b"GET /ticker HTTP/1.1\r\nHost: gate\r\n\r\n", CONNECTIONS)


async def one_ipv6_site_begins_connections(scene: Scene, address: str) -> None:
    """And does not even say who it is."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of_one_site())
        await reader.read()

    await holding(scene, address, CONNECTIONS, one)


async def one_ipv6_site_holds_tunnels(scene: Scene, address: str) -> None:
    await _holding(scene, address, HANDSHAKE % b"/stream")


async def one_ipv6_site_holds_requests(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of_one_site())
        while True:
            writer.write(b"GET /slow HTTP/1.1\r\nHost: gate\r\n\r\n")
            await answer(reader)

    await holding(scene, address, CONNECTIONS * 2 // 3, one)


async def one_ipv6_site_sends_contents(scene: Scene, address: str) -> None:
    """Of any size, so that the last bytes are taken, too."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = (UPLOAD if secrets.randbelow(2) else 1 << secrets.randbelow(16)) - 1
        writer.write(of_one_site() + b"POST /upload HTTP/1.1\r\nHost: gate\r\nContent-Length: %d\r\n\r\n" % (size + 1) + bytes(size))
        await reader.read()

    await holding(scene, address, CONNECTIONS * 2 // 3, one)


async def one_ipv6_site_guesses(scene: Scene, address: str) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of_one_site())
        for _ in range(20):
            writer.write(signed(scene.key, "GET", "/wallets", key_id=new_key_id(), secret="any"))
            await answer(reader)
            await asyncio.sleep(0.05)

    await holding(scene, address, CONNECTIONS * 2 // 3, one)


SITE_ATTACKS: Final = (
    Attack(one_ipv6_site_holds_connections),
    Attack(one_ipv6_site_begins_connections),
    Attack(one_ipv6_site_holds_tunnels),
    Attack(one_ipv6_site_holds_requests),
    Attack(one_ipv6_site_sends_contents),
    Attack(one_ipv6_site_guesses),
)
