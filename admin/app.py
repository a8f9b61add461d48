"""The admin service as a process: wires the rooms, listens on both ports, stops gracefully. No rules."""

import asyncio
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import aiohttp
import structlog
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from admin.api import openapi, table
from admin.api.access_log import access_log
from admin.api.client_ip import client_ip
from admin.api.entry import Entry, Rotation
from admin.api.handlers import AccountApi, Who
from admin.api.operation import Dispatcher
from admin.api.problems import finish_headers, problems
from admin.audit import Trail
from admin.config import AdminSettings, load_settings
from admin.identity.accounts import Accounts
from admin.identity.browser import Browsers
from admin.identity.login import Login
from admin.identity.provider import Provider
from admin.identity.sessions import SessionStore
from admin.identity.tokens import TokenVerifier
from admin.internal.handlers import InternalApi
from admin.internal.tokens import ServiceTokens
from admin.lifecycle.operations import KeyOperations
from admin.lifecycle.service import KeyService
from admin.pages import app as pages
from admin.pages.context import PageServices
from admin.stepup.enrolment import Enrolment
from admin.stepup.operations import FactorOperations
from admin.stepup.passkey_factors import PasskeyEnrolment, PasskeyMethod, relying_party
from admin.stepup.service import StepUp, TotpMethod
from admin.stores import Stores
from gateway.config.settings import Address, Tls
from gateway.errors import GerbangError
from gateway.keys import postgres, redis_client
from gateway.keys.vault import Vault
from gateway.telemetry import configure_logging

_WAIT_FOR_STORES_S = 30.0

_log = structlog.get_logger(__name__)


class CannotStart(GerbangError):
    """The service cannot begin; one line that says why."""


class Bound(NamedTuple):
    """Where a running service listens."""

    public: Address
    internal: Address


def run(path: Path) -> int:
    """Run the service in the foreground until SIGTERM or SIGINT.

    :returns: exit status: 0 after a stop, 1 when it could not start, which is explained on standard error
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(load_settings(path)))
    except GerbangError as error:
        print(f"gerbang: {error}", file=sys.stderr)  # noqa: T201  # for a person who has just typed a command
        return 1
    return 0


async def _run(settings: AdminSettings) -> None:
    configure_logging(settings.telemetry.log_level, service="admin")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with serving(settings) as bound:
        _log.info("ready", public=str(bound.public), internal=str(bound.internal))
        await stopping.wait()
        _log.info("stopping")


@asynccontextmanager
async def serving(settings: AdminSettings, *, wait_s: float = _WAIT_FOR_STORES_S) -> AsyncIterator[Bound]:
    """A running service; at the end of the block requests under way are finished, up to ``drain_timeout_ms``.

    :param wait_s: how long to wait for PostgreSQL
    :raises ConfigError, CannotStart, StoreUnavailable: it cannot begin
    """
    vault = Vault.parse(settings.vault.keys.get_secret_value())
    redis = redis_client.connect(settings.stores.redis.get_secret_value())
    pool = await postgres.create_pool(settings.stores.postgres.get_secret_value())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(_close_pool, pool)
        stores = Stores(pool, redis)
        await stores.wait(wait_s)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        public, internal = build(settings, vault, stores, http)
        bound_public = await _listen(stack, public, settings.listen.public, settings, where="listen.public", tls=settings.listen.tls)
        bound_internal = await _listen(stack, internal, settings.listen.internal, settings, where="listen.internal", tls=None)
        yield Bound(bound_public, bound_internal)


def build(settings: AdminSettings, vault: Vault, stores: Stores, http: aiohttp.ClientSession) -> tuple[web.Application, web.Application]:
    """The applications of the two ports."""
    provider = Provider(http, settings.oidc)
    verifier = TokenVerifier(provider, settings.oidc, settings.kyc)
    sessions = SessionStore(stores.redis, vault, idle_ms=settings.pages.idle_timeout_ms, absolute_ms=settings.pages.absolute_timeout_ms)
    browsers = Browsers(sessions, settings.public_url)
    accounts = Accounts(stores)
    party = relying_party(settings.public_url, settings.pages.site_name)
    step_up = StepUp([TotpMethod(vault), PasskeyMethod(vault, party)])
    enrolment = Enrolment(stores, vault, step_up, settings.step_up)
    keys = KeyService(stores, vault, step_up, key_limit=settings.keys.per_account, kyc_help_url=settings.kyc.help_url)
    api = AccountApi(stores, keys, enrolment, PasskeyEnrolment(stores, vault, enrolment, party), step_up)
    entry = Entry((verifier.bearer, browsers.authenticate), accounts, settings.limits)
    trusted, timeout_s = settings.client_ip.trusted_proxies, settings.limits.request_timeout_ms / 1000

    public = _application(settings, stores)
    dispatcher: Dispatcher[Who] = Dispatcher(entry.admit, trusted, timeout_s, Rotation(browsers).after)
    public.add_routes(dispatcher.routes(table.operations(api)))
    public.router.add_get("/openapi.json", _document(api, settings))
    services = PageServices(
        settings=settings,
        stores=stores,
        browsers=browsers,
        login=Login(provider=provider, verifier=verifier, store=sessions, http=http, oidc=settings.oidc, public_url=settings.public_url),
        accounts=accounts,
        keys=keys,
        enrolment=enrolment,
        client_ip=lambda request: client_ip(request.remote, request.headers.getall("X-Forwarded-For", []), trusted),
    )
    pages.setup(public, services)

    internal = _application(settings, stores)
    back_office: Dispatcher[str] = Dispatcher(ServiceTokens(settings.internal.named), trusted, timeout_s)
    operators = InternalApi(accounts, KeyOperations(stores), FactorOperations(stores), Trail(stores.transaction))
    internal.add_routes(back_office.routes(operators.operations()))
    return public, internal


def _application(settings: AdminSettings, stores: Stores) -> web.Application:
    application = web.Application(
        middlewares=[access_log(settings.telemetry.access_log), problems], client_max_size=settings.limits.max_body_bytes
    )
    application.on_response_prepare.append(finish_headers)

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_request: web.Request) -> web.Response:
        missing = await stores.missing()
        return web.json_response({"status": "unready" if missing else "ready", "missing": missing}, status=503 if missing else 200)

    application.router.add_get("/health", health)
    application.router.add_get("/ready", ready)
    return application


def _document(api: AccountApi, settings: AdminSettings) -> Handler:
    document = openapi.document(table.operations(api), version=version("gerbang"), server=settings.public_url)
    body = json.dumps(document, ensure_ascii=False).encode()

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return serve


async def _listen(
    stack: AsyncExitStack, application: web.Application, address: Address, settings: AdminSettings, *, where: str, tls: Tls | None
) -> Address:
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=settings.limits.idle_timeout_ms / 1000,
        shutdown_timeout=settings.listen.drain_timeout_ms / 1000,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, address.host, address.port, ssl_context=None if tls is None else _tls_context(tls))
    try:
        await site.start()
    except OSError as error:
        raise CannotStart(f"{where}: {address} cannot be listened on: {error.strerror or error}") from None
    host, port = runner.addresses[0][:2]
    return Address(host, port)


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(f"listen.tls: {tls.certificate} and {tls.key} cannot be used: {error.strerror or error}") from None
    return context


async def _close_pool(pool: postgres.Pool) -> None:
    """Close gracefully; a connection that hangs is cut, so that a stop always ends."""
    try:
        await asyncio.wait_for(pool.close(), 5.0)
    except TimeoutError:
        pool.terminate()
