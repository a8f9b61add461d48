"""Runs the admin service: sockets bound once, applications replaced on reload, background jobs."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple, cast

import aiohttp
import structlog
from aiohttp import web

from admin import feed
from admin.api.problems import common_headers
from admin.config import AdminSettings
from admin.connections import ListenerHost
from admin.identity.provider import Provider
from admin.metrics import AdminMetrics
from admin.notices.running import sending
from admin.stepup import factors
from admin.stores import Stores
from admin.streaming import streaming
from admin.wiring import build
from gateway.config.values import Address
from gateway.errors import ConfigError, GerbangError
from gateway.keys import postgres, redis_client, ring
from gateway.keys.vault import Vault
from gateway.net import descriptors
from gateway.net.connections import Connection, ConnectionLimit, expecting_to_continue
from gateway.net.listening import listen
from gateway.net.preamble import PreambleListener
from gateway.net.tls import server_context
from gateway.runtime.tasks import cancel, repeat

_log = structlog.get_logger(__name__)
_WAIT_FOR_STORES_S = 30.0
_BACKLOG = 128
_LAST_HANDSHAKES_S = 1.0
"""How long handshakes in progress may take while shutting down."""


class CannotStart(GerbangError):
    """The service cannot start; the message is one line with the reason."""


class Bound(NamedTuple):
    """A running service: its addresses, and how to replace its settings."""

    public: Address
    internal: Address
    swap: Callable[[AdminSettings], Awaitable[None]]
    """Use new settings from now on; requests in progress finish with the old ones.

    :raises ConfigError: they cannot be used; the old ones are kept
    """
    metrics: AdminMetrics


@asynccontextmanager
async def serving(
    settings: AdminSettings, *, wait_s: float = _WAIT_FOR_STORES_S, leaving: asyncio.Event | None = None
) -> AsyncIterator[Bound]:
    """A running service; at the end of the block requests in progress are finished, within ``drain_timeout_ms``.

    :param wait_s: how long to wait for PostgreSQL
    :param leaving: once set, ``/ready`` reports that the service is shutting down
    :raises ConfigError, CannotStart, StoreUnavailable, SchemaOutdated: it cannot start
    """
    vault = Vault.parse(settings.vault.keys.get_secret_value())
    redis = redis_client.connect(settings.stores.redis.get_secret_value())
    pool = await postgres.create_pool(settings.stores.postgres.get_secret_value())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(_close_pool, pool)
        stores = Stores(pool, redis)
        await stores.wait(wait_s)
        await _check_ring(stores, vault)
        stack.push_async_callback(cancel, repeat(partial(feed.maintain, stores), name="feed of changes"))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        running = _Running(vault, stores, http, AdminMetrics(), leaving or asyncio.Event())
        public, internal = (_bound(stack, address, where) for address, where in (
            (settings.listen.public, "listen.public"), (settings.listen.internal, "listen.internal")
        ))  # fmt: skip
        running.sockets = public, internal
        stack.push_async_callback(running.stop)
        await running.swap(settings)
        yield Bound(_address_of(public), _address_of(internal), running.swap, running.metrics)


class _Running:
    """The applications of the current settings, on sockets that outlive them."""

    def __init__(self, vault: Vault, stores: Stores, http: aiohttp.ClientSession, metrics: AdminMetrics, leaving: asyncio.Event) -> None:
        self.metrics = metrics
        self._leaving = leaving
        self.sockets: tuple[socket.socket, ...] = ()
        self._vault = vault
        self._stores = stores
        self._http = http
        self._current: AsyncExitStack | None = None
        self._provider: Provider | None = None
        self._stream = AsyncExitStack()

    async def swap(self, settings: AdminSettings) -> None:
        """See :attr:`Bound.swap`."""
        tls = None if settings.listen.tls is None else server_context(settings.listen.tls)
        provider = self._provider
        if provider is None or provider.settings != settings.oidc:  # otherwise its cached documents are kept, since it may be unavailable
            provider = Provider(self._http, settings.oidc, note=self.metrics.provider_read)
        applications = build(settings, self._vault, self._stores, self._http, self.metrics, provider=provider, leaving=self._leaving.is_set)
        after = AsyncExitStack()
        try:
            for application, listening, context in zip(applications, self.sockets, (tls, None), strict=True):
                await _serve(after, application, listening.dup(), settings, context, refused=self.metrics.connection_refused)
        except BaseException:
            await after.aclose()
            raise
        before, self._current = self._current, after
        self._provider = provider
        self.metrics.certificate(settings.listen.tls)
        await self._stream.aclose()  # two streams would write and send each event twice
        await self._stream.enter_async_context(streaming(settings.audit, self._stores, self.metrics))
        await self._stream.enter_async_context(sending(settings, self._stores, self._vault, self._http))
        if before is not None:
            await before.aclose()

    async def stop(self) -> None:
        """Accept nothing new, and finish requests in progress."""
        for listening in self.sockets:
            listening.close()
        if self._current is not None:
            await self._current.aclose()
        await self._stream.aclose()


async def _check_ring(stores: Stores, vault: Vault) -> None:
    """:raises ConfigError: the vault opens no key, or no factor, so that every proof would fail"""
    await ring.check(stores.pool, vault)
    async with stores.transaction() as connection:
        ring.check_opens(vault, await factors.seals(connection, limit=ring.SAMPLE), "factors")


async def _serve(
    stack: AsyncExitStack,
    application: web.Application,
    listening: socket.socket,
    settings: AdminSettings,
    tls: ssl.SSLContext | None,
    *,
    refused: Callable[[], None],
) -> None:
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=settings.listen.drain_timeout_ms / 1000)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    server, loop = cast("web.Server", runner.server), asyncio.get_running_loop()
    server.request_handler = expecting_to_continue(server.request_handler, common_headers)
    idle_s = settings.limits.idle_timeout_ms / 1000
    connection_limit = _limit_of(settings, refused)

    def connection() -> Connection:
        return Connection(connection_limit, server, loop=loop, finish=common_headers, idle_s=idle_s)

    if tls is None:
        accepting = await loop.create_server(connection, sock=listening, backlog=_BACKLOG)
        stack.callback(accepting.close)
    else:
        listener = PreambleListener(listening, ListenerHost(connection_limit, connection, settings.limits), tls)
        stack.push_async_callback(listener.finish, _LAST_HANDSHAKES_S)


def _limit_of(settings: AdminSettings, refused: Callable[[], None]) -> ConnectionLimit:
    """The limit as configured, or lower when there are fewer file descriptors; an address may then have at most an eighth."""
    in_all, of_one, room = settings.limits.max_connections, settings.limits.max_connections_per_address, descriptors.connections()
    if room < in_all:
        _log.warning("few_file_descriptors", connections=room, configured=in_all)
        in_all, of_one = room, min(of_one, max(room // 8, 1))
    return ConnectionLimit(in_all=in_all, of_one=of_one, trusted=settings.client_ip.trusted_proxies, refused=refused)


def _bound(stack: AsyncExitStack, address: Address, where: str) -> socket.socket:
    try:
        (listening,) = listen(address, where=where)
    except ConfigError as error:
        why = error.problems[0].message.rpartition(": ")[2]
        raise CannotStart(f"{where}: {address} cannot be listened on: {why}") from None
    stack.callback(listening.close)
    return listening


def _address_of(listening: socket.socket) -> Address:
    return Address(*listening.getsockname()[:2])


async def _close_pool(pool: postgres.Pool) -> None:
    """Close gracefully; a connection that hangs is aborted, so that shutdown always ends."""
    try:
        await asyncio.wait_for(pool.close(), 5.0)
    except TimeoutError:
        pool.terminate()
