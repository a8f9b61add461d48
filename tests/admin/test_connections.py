"""How many connections the admin service takes: a bound for each address, none but that of all for a trusted proxy."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from admin.config import AdminLimits
from admin.connections import Crowd
from gateway.net.addresses import Network
from tests.support.admin import Service, running_service, settings_for
from tests.support.certificates import self_signed
from tests.support.issuer import Issuer
from tests.support.stack import Database

ASK = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Counted(Crowd):
    def __init__(self, trusted: tuple[Network, ...] = (), **limits: int) -> None:
        self.refused = 0
        super().__init__(AdminLimits(**limits), trusted, self._count)

    def _count(self) -> None:
        self.refused += 1


def test_a_network_of_ipv6_is_one_client_and_whoever_leaves_makes_room():
    crowd = Counted(max_connections_per_address=2)
    first = crowd.enter("2001:db8::1")
    assert first is not None
    assert crowd.enter("2001:db8::2") == first
    assert crowd.enter("2001:db8::3") is None
    assert crowd.enter("2001:db8:0:1::1") is not None
    crowd.leave(first)
    assert crowd.enter("2001:db8::3") == first
    assert crowd.refused == 1


def test_a_trusted_proxy_is_bound_by_the_total_alone():
    crowd = Counted((IPv4Network("10.0.0.0/8"),), max_connections_per_address=1, max_connections=3)
    assert [crowd.enter("10.0.0.1") is None for _ in range(4)] == [False, False, False, True]
    assert crowd.enter("8.8.8.8") is None


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    url = URL(service.public)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    try:
        writer.write(ASK)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    except (ConnectionError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("idle", [b"", b"GET / HTTP/1.1\r\n"])
async def test_one_connection_too_many_is_cut_and_the_others_go_on(issuer: Issuer, database: Database, redis_url: str, idle: bytes) -> None:
    limits = {"max_connections_per_address": 3}
    async with (
        running_service(settings_for(issuer, database.admin_dsn, redis_url, limits=limits), issuer) as service,
        AsyncExitStack() as held,
    ):
        first = await held.enter_async_context(connected(service))
        assert await answered(*first)
        others = [await held.enter_async_context(connected(service)) for _ in range(2)]
        for _, writer in others:
            writer.write(idle)
        async with connected(service) as one_too_many:
            assert not await answered(*one_too_many)
        assert await answered(*first), "its connection stands"
        others[0][1].close()
        async with asyncio.timeout(20):
            while True:
                async with connected(service) as anew:
                    if await answered(*anew):
                        break


async def test_who_never_finishes_the_handshake_counts_and_others_are_served(
    tmp_path: Path, issuer: Issuer, database: Database, redis_url: str
) -> None:
    certificate, key = self_signed(tmp_path, "localhost")
    listen: dict[str, Any] = {"public": "127.0.0.1:0", "internal": "127.0.0.1:0", "drain_timeout_ms": 2_000}
    listen["tls"] = {"certificate": certificate, "key": key}
    settings = settings_for(issuer, database.admin_dsn, redis_url, listen=listen, limits={"max_connections_per_address": 3})
    context = ssl.create_default_context(cafile=certificate)
    async with running_service(settings, issuer) as service, AsyncExitStack() as held:
        url = URL(service.public)
        first = await asyncio.open_connection(url.host, url.port, ssl=context, server_hostname="localhost")
        assert await answered(*first)
        silent = [await held.enter_async_context(connected(service)) for _ in range(2)]
        async with connected(service) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 20) == b"", "one too many: not even a handshake"
        assert await answered(*first)
        silent[0][1].close()
        async with asyncio.timeout(20):
            while True:
                try:
                    anew = await asyncio.open_connection(url.host, url.port, ssl=context, server_hostname="localhost")
                except ConnectionError:
                    continue
                assert await answered(*anew)
                break
        for _, writer in (first, anew):
            writer.close()
