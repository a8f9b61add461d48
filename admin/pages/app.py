"""Adds the pages to the admin service's application."""

from urllib.parse import urlsplit

from aiohttp import web

from admin.pages import brand
from admin.pages.account import AccountPages
from admin.pages.assets import Assets
from admin.pages.context import Context, PageServices, see_other
from admin.pages.entrance import Entrance
from admin.pages.keys import KeyPages
from admin.pages.render import Renderer


def setup(application: web.Application, services: PageServices) -> None:
    """Add all pages and their assets."""
    settings = services.settings
    assets = Assets(brand.files(settings.pages))
    secure = urlsplit(settings.public_url).scheme == "https"
    renderer = Renderer(assets, settings.pages, secure=secure, has_docs=settings.docs is not None)
    context = Context(services, renderer)
    application.middlewares.append(context.lost)
    for section in (Entrance(context), KeyPages(context), AccountPages(context)):
        application.add_routes(section.routes())
    application.router.add_post("/scripts-needed", context.open(context.scripts_needed))
    application.router.add_get("/", _home)
    application.router.add_get("/static/{version}/{name:.+}", assets.serve)


async def _home(request: web.Request) -> web.Response:  # noqa: ARG001  # a handler's shape
    return see_other("/keys")
