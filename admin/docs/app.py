"""Serves the guide: ``/docs`` (language of the browser), ``/docs/en``, ``/docs/id``, and an API explorer."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from markupsafe import escape

from admin.config import AdminSettings
from admin.docs import openapi, render
from admin.docs.facts import read_facts
from admin.docs.render import LANGUAGES, Source, pages
from admin.identity.browser import Browsers
from admin.pages import brand
from admin.pages.assets import Assets
from admin.pages.i18n import choose
from admin.pages.render import LANGUAGE_COOKIE, environment_of, security_headers
from gateway.errors import StoreUnavailable
from gateway.runtime import clock

NO_SESSION = '<meta name="csrf-token" content="">'
"""The placeholder in ``reference.html`` for a session's CSRF token."""
_TEMPLATES = Path(__file__).parent / "templates"
_NO_GATEWAY = "https://api.example.com"


def setup(application: web.Application, settings: AdminSettings, admin_api: Mapping[str, Any], browsers: Browsers) -> None:
    """Add the guide, if ``[docs]`` names a gateway's configuration.

    :param admin_api: OpenAPI document of this service
    :param browsers: the sessions that the API explorer may use
    :raises ConfigError: the gateway's configuration cannot be used
    """
    if settings.docs is None:
        return
    facts = read_facts(settings.docs.gateway_config)
    gateway_url = (settings.pages.gateway_url or _NO_GATEWAY).rstrip("/")
    gateway_api = openapi.document(facts, version=version("gerbang"), server=gateway_url)
    environment = environment_of(_TEMPLATES)
    assets, look = Assets(brand.files(settings.pages)), brand.brand(settings.pages)
    logo = "mark.svg" if settings.pages.logo is None else brand.logo_name(settings.pages.logo)
    environment.globals.update(asset=assets.url, brand=look, logo_url=assets.url(logo))
    made = pages(Source(facts, gateway_url, admin_api, gateway_api), environment)
    headers = security_headers(secure=settings.public_url.startswith("https:")) | {"Cache-Control": "no-cache"}
    for name, path in (("guide", ""), ("reference", "/api")):
        pages_of = {language: made[name, language] for language in LANGUAGES}
        personal = browsers if name == "reference" else None
        application.router.add_get(f"/docs{path}", _page_handler(pages_of, None, headers, personal))
        for language in LANGUAGES:
            application.router.add_get(f"/docs/{language}{path}", _page_handler(pages_of, language, headers, personal))
    application.router.add_get("/docs/gateway.json", json_handler(gateway_api))
    for example in render.examples(gateway_url):
        application.router.add_get(f"/docs/examples/{example.name}", _file_handler(example.text))


def _page_handler(made: Mapping[str, str], fixed: str | None, headers: Mapping[str, str], browsers: Browsers | None) -> Handler:
    """A handler that serves a page in the given language, or in the browser's.

    :param browsers: if given, the page contains the session's CSRF token, so that it can call the API
    """

    async def serve(request: web.Request) -> web.Response:
        accepted = request.headers.get("Accept-Language", "")
        language = fixed or choose(account=None, cookie=request.cookies.get(LANGUAGE_COOKIE), accept_language=accepted)
        answered = {**headers, "Content-Language": language}
        if fixed is None:
            answered["Vary"] = "Accept-Language, Cookie"
        text, csrf_token = made[language], await _csrf_token(request, browsers)
        if csrf_token is not None:
            text = text.replace(NO_SESSION, f'<meta name="csrf-token" content="{escape(csrf_token)}">')
            answered["Cache-Control"] = "no-store"
        return web.Response(text=text, content_type="text/html", headers=answered)

    return serve


async def _csrf_token(request: web.Request, browsers: Browsers | None) -> str | None:
    """The CSRF token of the request's session; ``None``: no session, or Redis is unavailable. The guide needs neither."""
    try:
        session = None if browsers is None else await browsers.session(request, clock.now_ms())
    except StoreUnavailable:
        return None
    return None if session is None else session.csrf_token


def _file_handler(text: str) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        headers = {"Content-Disposition": "attachment", "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, headers=headers)

    return serve


def json_handler(document: Mapping[str, Any]) -> Handler:
    """A handler that serves a document, serialized once."""
    body = json.dumps(document, ensure_ascii=False).encode()

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return serve
