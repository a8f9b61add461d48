"""Builds the applications of the admin service's two ports."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST

from admin.api import openapi, table
from admin.api.access_log import access_log
from admin.api.entry import Entry, rotate_session
from admin.api.handlers import AccountApi, AccountHolder
from admin.api.operation import Dispatcher
from admin.api.problems import DOCS_URL, finish_headers, problems
from admin.api.reporters import ReporterKeys
from admin.api.reports import PATH as REPORTS_PATH
from admin.api.reports import SecretReports
from admin.api.reports import described as report_described
from admin.config import AdminSettings
from admin.docs import app as docs
from admin.identity.accounts import Accounts
from admin.identity.browser import Browsers
from admin.identity.login import Login
from admin.identity.provider import Provider
from admin.identity.sessions import SessionStore
from admin.identity.tokens import TokenVerifier
from admin.internal import table as internal_table
from admin.internal.handlers import InternalApi
from admin.internal.tokens import ServiceTokens
from admin.lifecycle.leaks import Leaks
from admin.lifecycle.operations import KeyOperations
from admin.lifecycle.service import KeyService
from admin.metrics import AdminMetrics
from admin.pages import app as pages
from admin.pages.context import PageServices
from admin.stepup.enrolment import Enrolment
from admin.stepup.passkey_factors import PasskeyEnrolment, PasskeyMethod, relying_party
from admin.stepup.service import StepUp, TotpMethod
from admin.stores import Stores
from gateway.keys.vault import Vault
from gateway.net.client_ip import client_ip


def build(
    settings: AdminSettings,
    vault: Vault,
    stores: Stores,
    http: aiohttp.ClientSession,
    metrics: AdminMetrics,
    *,
    provider: Provider,
    leaving: Callable[[], bool],
) -> tuple[web.Application, web.Application]:
    """Build both applications.

    :param leaving: whether the service is shutting down
    """
    public = _application(settings, stores, metrics, leaving, port="public")
    _add_public(public, settings, vault, stores, http=http, provider=provider)
    internal = _application(settings, stores, metrics, leaving, port="internal")
    _add_internal(internal, settings, stores)
    internal.router.add_get("/metrics", _metrics(metrics))
    return public, internal


def _add_public(
    public: web.Application, settings: AdminSettings, vault: Vault, stores: Stores, *, http: aiohttp.ClientSession, provider: Provider
) -> None:
    """Add the account holder's API, the pages, the guide, and the reports of leaked secrets."""
    accounts = Accounts(stores)
    trusted, timeout_s = settings.client_ip.trusted_proxies, _timeout_s(settings)

    def address_of(request: web.Request) -> str | None:
        return client_ip(request.remote, request.headers.getall("X-Forwarded-For", []), trusted)

    verifier = TokenVerifier(provider, settings.oidc, settings.kyc)
    sessions = SessionStore(stores.redis, vault, idle_ms=settings.pages.idle_timeout_ms, absolute_ms=settings.pages.absolute_timeout_ms)
    browsers = Browsers(sessions, settings.public_url)
    party = relying_party(settings.public_url, settings.pages.site_name)
    step_up = StepUp([TotpMethod(vault), PasskeyMethod(vault, party)])
    enrolment = Enrolment(stores, vault, step_up, settings.step_up)
    keys = KeyService(stores, vault, step_up, settings.keys, kyc_help_url=settings.kyc.help_url)
    api = AccountApi(stores, keys, enrolment, PasskeyEnrolment(stores, vault, enrolment, party), step_up)
    entry = Entry((verifier.bearer, browsers.authenticate), accounts, settings.limits)
    dispatcher: Dispatcher[AccountHolder] = Dispatcher(entry.admit, trusted, timeout_s, partial(rotate_session, browsers))
    public.add_routes(dispatcher.routes(table.operations(api)))
    described = _document(api, settings)
    public.router.add_get("/openapi.json", docs.json_handler(described))
    if settings.leaks is not None:
        reports = SecretReports(Leaks(stores, vault), ReporterKeys(http, settings.leaks), client_ip=address_of, timeout_s=timeout_s)
        public.router.add_post(REPORTS_PATH, reports.handle)
    login = Login(
        provider=provider, verifier=verifier, vault=vault, http=http, oidc=settings.oidc, public_url=settings.public_url,
        max_age_ms=settings.pages.absolute_timeout_ms,
    )  # fmt: skip
    services = PageServices(
        settings=settings, stores=stores, browsers=browsers, login=login, accounts=accounts, keys=keys, enrolment=enrolment,
        client_ip=address_of,
    )  # fmt: skip
    pages.setup(public, services)
    docs.setup(public, settings, described, browsers)


def _add_internal(internal: web.Application, settings: AdminSettings, stores: Stores) -> None:
    """Add the back office's API."""
    tokens, trusted = ServiceTokens(settings.internal.named), settings.client_ip.trusted_proxies
    dispatcher: Dispatcher[str] = Dispatcher(tokens, trusted, _timeout_s(settings))
    api = InternalApi(stores, Accounts(stores), KeyOperations(stores))
    internal.add_routes(dispatcher.routes(internal_table.operations(api)))


def _timeout_s(settings: AdminSettings) -> float:
    return settings.limits.request_timeout_ms / 1000


def _application(
    settings: AdminSettings, stores: Stores, metrics: AdminMetrics, leaving: Callable[[], bool], *, port: str
) -> web.Application:
    trusted = settings.client_ip.trusted_proxies
    application = web.Application(
        middlewares=[access_log(settings.telemetry.access_log, trusted, metrics, port=port), problems],
        client_max_size=settings.limits.max_body_bytes,
    )
    application[DOCS_URL] = "" if settings.docs is None else f"{settings.public_url.rstrip('/')}/docs"
    application.on_response_prepare.append(finish_headers)

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_request: web.Request) -> web.Response:
        missing = [*(["shutting down"] if leaving() else []), *await stores.missing()]
        return web.json_response({"status": "unready" if missing else "ready", "missing": missing}, status=503 if missing else 200)

    application.router.add_get("/health", health)
    application.router.add_get("/ready", ready)
    return application


def _metrics(metrics: AdminMetrics) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return serve


def _document(api: AccountApi, settings: AdminSettings) -> dict[str, Any]:
    document = openapi.document(table.operations(api), version=version("gerbang"), server=settings.public_url)
    if settings.leaks is not None:
        document["paths"][REPORTS_PATH] = {"post": report_described()}
    return document
