"""How many connections the admin service takes: a bound for each address, none but that of all for a trusted proxy."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from admin import service as admin_service
from admin.config import AdminLimits, AdminSettings
from admin.service import serving
from gateway.net.addresses import Network, owners
from gateway.net.connections import ConnectionLimit
from gateway.net.tally import Tally
from tests.support.admin import INTERNAL_TOKEN, Service, running_service, settings_for
from tests.support.certificates import client_hello, self_signed
from tests.support.issuer import Issuer
from tests.support.stack import Database

ASK = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HELLO = client_hello("localhost")

Settings = Callable[..., AdminSettings]


class Counted(ConnectionLimit):
    def __init__(self, trusted: tuple[Network, ...] = (), **limits: int) -> None:
        self.refused = 0
        chosen = AdminLimits(**limits)
        super().__init__(in_all=chosen.max_connections, of_one=chosen.max_connections_per_address, trusted=trusted, refused=self._count)

    def _count(self) -> None:
        self.refused += 1


def test_a_network_of_ipv6_is_one_client_and_whoever_leaves_makes_room():
    connection_limit = Counted(max_connections_per_address=2)
    assert connection_limit.enter("2001:db8::1")
    assert connection_limit.enter("2001:db8::2")
    assert not connection_limit.enter("2001:db8::3")
    assert connection_limit.enter("2001:db8:0:1::1")
    connection_limit.leave("2001:db8::1")
    assert connection_limit.enter("2001:db8::3")
    assert connection_limit.refused == 1


def test_a_site_with_many_networks_has_a_quarter():
    connection_limit = Counted((IPv6Network("2001:db8:2::/48"),), max_connections_per_address=2, max_connections=20)
    assert [connection_limit.enter(f"2001:db8:1:{number}::1") for number in range(7)] == [True] * 5 + [False] * 2
    assert [connection_limit.enter(f"2001:db8:2:{number}::1") for number in range(7)] == [True] * 7, "a proxy's"
    assert [connection_limit.enter("8.8.8.8") for _ in range(3)] == [True, True, False]
    connection_limit.leave("2001:db8:1:4::1")
    assert connection_limit.enter("2001:db8:1:5::1")


def test_a_trusted_proxy_is_bound_by_the_total_alone():
    connection_limit = Counted((IPv4Network("10.0.0.0/8"),), max_connections_per_address=1, max_connections=3)
    assert [connection_limit.enter("10.0.0.1") for _ in range(4)] == [True, True, True, False]
    assert not connection_limit.enter("8.8.8.8")


def test_those_being_opened_count_with_those_that_are_open():
    connection_limit = Counted((IPv4Network("10.0.0.0/8"),), max_connections_per_address=3, max_connections=5)
    assert connection_limit.enter("8.8.8.8")
    assert [connection_limit.has_room("8.8.8.8", opening("8.8.8.8", number)) for number in range(4)] == [True, True, False, False]
    assert [connection_limit.has_room("8.8.4.4", opening("8.8.8.8", number)) for number in (3, 4)] == [True, False]
    assert [connection_limit.has_room("10.0.0.1", opening("10.0.0.1", number)) for number in (3, 4)] == [True, False]
    assert connection_limit.refused == 4


def test_those_being_opened_count_for_their_site_too():
    connection_limit = Counted(max_connections_per_address=2, max_connections=20)
    assert connection_limit.enter("2001:db8:1::1")
    others = Tally()
    for network in range(1, 4):
        others.add(owners(f"2001:db8:1:{network}::1"))
    assert connection_limit.has_room("2001:db8:1:9::1", others)
    others.add(owners("2001:db8:1:4::1"))
    assert not connection_limit.has_room("2001:db8:1:9::1", others)
    assert connection_limit.has_room("2001:db8:2::1", others)


def opening(peer: str, number: int) -> Tally:
    """So many that are being opened."""
    tally = Tally()
    for _ in range(number):
        tally.add(owners(peer))
    return tally


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


@pytest.fixture
def over_tls(tmp_path: Path, issuer: Issuer, database: Database, redis_url: str) -> tuple[Settings, ssl.SSLContext]:
    """Settings with TLS and these limits, and what a client trusts."""
    certificate, key = self_signed(tmp_path, "localhost")
    listen: dict[str, Any] = {"public": "127.0.0.1:0", "internal": "127.0.0.1:0", "drain_timeout_ms": 2_000}
    listen["tls"] = {"certificate": certificate, "key": key}

    def settings(**limits: int) -> AdminSettings:
        return settings_for(issuer, database.admin_dsn, redis_url, listen=listen, limits=limits)

    return settings, ssl.create_default_context(cafile=certificate)


async def answered_over_tls(url: URL, context: ssl.SSLContext) -> asyncio.StreamWriter:
    """A connection on which a request has been answered, as soon as there is room for it."""
    async with asyncio.timeout(20):
        while True:
            try:
                reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context, server_hostname="localhost")
            except ConnectionError:
                continue
            assert await answered(reader, writer)
            return writer


async def test_who_never_finishes_the_handshake_counts_and_others_are_served(
    over_tls: tuple[Settings, ssl.SSLContext], issuer: Issuer
) -> None:
    settings, context = over_tls
    async with running_service(settings(max_connections_per_address=3), issuer) as service, AsyncExitStack() as held:
        url = URL(service.public)
        first = await asyncio.open_connection(url.host, url.port, ssl=context, server_hostname="localhost")
        assert await answered(*first)
        silent, babbling = [await held.enter_async_context(connected(service)) for _ in range(2)]
        async with connected(service) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 20) == b"", "one too many: not even a handshake"
        assert await answered(*first)
        metrics = await service.send("GET", f"{service.internal}/metrics", headers={"Authorization": f"Bearer {INTERNAL_TOKEN}"})
        assert "gerbang_admin_connections_refused_total 1.0" in metrics.text
        babbling[1].write(ASK)
        second = await answered_over_tls(url, context)
        silent[1].close()
        third = await answered_over_tls(url, context)
        for writer in (first[1], second, third):
            writer.close()


@pytest.mark.parametrize("sent", [b"", HELLO[:100], HELLO], ids=["nothing", "a part of its hello", "its hello"])
async def test_a_handshake_that_takes_too_long_is_given_up(over_tls: tuple[Settings, ssl.SSLContext], issuer: Issuer, sent: bytes) -> None:
    settings, _ = over_tls
    async with running_service(settings(request_timeout_ms=100), issuer) as service, connected(service) as (reader, writer):
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 20)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"], ids=["nothing", "a part of a head"])
async def test_who_has_finished_the_handshake_and_asks_nothing_is_closed(
    over_tls: tuple[Settings, ssl.SSLContext], issuer: Issuer, sent: bytes
) -> None:
    settings, context = over_tls
    async with running_service(settings(idle_timeout_ms=100), issuer) as service:
        url = URL(service.public)
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=context, server_hostname="localhost")
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_after_a_reload_whoever_begins_is_served_and_who_never_finishes_is_dropped(
    over_tls: tuple[Settings, ssl.SSLContext], issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_service, "_LAST_HANDSHAKES_S", 0.1)
    settings, context = over_tls
    before = settings(max_connections_per_address=1, request_timeout_ms=60_000)
    async with serving(before) as bound:
        silent, writer = await asyncio.open_connection(bound.public.host, bound.public.port)
        refused, other = await asyncio.open_connection(bound.public.host, bound.public.port)
        assert await asyncio.wait_for(refused.read(), 20) == b"", "the silent one is in its preamble"
        await bound.swap(before.model_copy(update={"public_url": "https://localhost:1"}))
        assert await asyncio.wait_for(silent.read(), 20) == b""
        for _ in range(3):
            (await answered_over_tls(URL(f"https://{bound.public}"), context)).close()
        writer.close()
        other.close()


async def test_without_descriptors_for_as_many_as_configured_there_are_fewer(
    issuer: Issuer, database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What clients hold must leave some for the stores."""
    monkeypatch.setattr("gateway.net.descriptors.connections", lambda: 16)
    settings = settings_for(issuer, database.admin_dsn, redis_url)
    async with running_service(settings, issuer) as service, AsyncExitStack() as held:
        first = await held.enter_async_context(connected(service))
        assert await answered(*first)
        assert await answered(*(await held.enter_async_context(connected(service))))
        async with connected(service) as one_too_many:
            assert not await answered(*one_too_many)
        assert await answered(*first)
