"""Serves the guide: ``/docs`` (language of the browser), ``/docs/en``, ``/docs/id``, and an API explorer."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web
from aiohttp.typedefs import Handler

from admin.config import AdminSettings
from admin.docs import openapi
from admin.docs.facts import read_facts
from admin.docs.render import LANGUAGES, Source, pages
from admin.pages import brand
from admin.pages.assets import Assets
from admin.pages.i18n import choose
from admin.pages.render import LANGUAGE_COOKIE, security_headers

_TEMPLATES = Path(__file__).parent / "templates"
_NO_GATEWAY = "https://api.example.com"


def setup(application: web.Application, settings: AdminSettings, admin_api: Mapping[str, Any]) -> None:
    """Add the guide, when a gateway is configured to tell of.

    :param admin_api: OpenAPI document of this service
    :raises ConfigError: the gateway's configuration cannot be used
    """
    if settings.docs is None:
        return
    facts = read_facts(settings.docs.gateway_config)
    gateway_url = (settings.pages.gateway_url or _NO_GATEWAY).rstrip("/")
    gateway_api = openapi.document(facts, version=version("gerbang"), server=gateway_url)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    assets, look = Assets(brand.files(settings.pages)), brand.brand(settings.pages)
    logo = "mark.svg" if settings.pages.logo is None else brand.logo_name(settings.pages.logo)
    environment.globals.update(asset=assets.url, brand=look, logo_url=assets.url(logo))
    made = pages(Source(facts, gateway_url, admin_api, gateway_api), environment)
    headers = security_headers(secure=settings.public_url.startswith("https:")) | {"Cache-Control": "no-cache"}
    for name, path in (("guide", ""), ("reference", "/api")):
        application.router.add_get(f"/docs{path}", _chosen(made, name, headers))
        for language in LANGUAGES:
            application.router.add_get(f"/docs/{language}{path}", _fixed(made[name, language], language, headers))
    application.router.add_get("/docs/gateway.json", _json(gateway_api))


def _chosen(made: Mapping[tuple[str, str], str], name: str, headers: Mapping[str, str]) -> Handler:
    async def serve(request: web.Request) -> web.Response:
        asked = request.headers.get("Accept-Language", "")
        language = choose(account=None, cookie=request.cookies.get(LANGUAGE_COOKIE), accept_language=asked)
        return _page(made[name, language], language, {**headers, "Vary": "Accept-Language, Cookie"})

    return serve


def _fixed(text: str, language: str, headers: Mapping[str, str]) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        return _page(text, language, headers)

    return serve


def _page(text: str, language: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(text=text, content_type="text/html", headers={**headers, "Content-Language": language})


def _json(document: Mapping[str, Any]) -> Handler:
    body = json.dumps(document, ensure_ascii=False).encode()

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return serve
