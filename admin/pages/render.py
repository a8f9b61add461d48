"""Renders a template in the request's language, under a strict content security policy."""

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import jinja2
from aiohttp import web
from markupsafe import Markup

from admin.config import Pages
from admin.identity.browser import SESSION
from admin.pages import brand, texts
from admin.pages.assets import Assets
from admin.pages.i18n import Language, choose, load_languages
from gateway.runtime.moments import rfc3339

LANGUAGE_COOKIE = "gerbang-language"
_LANGUAGE_COOKIE_S = 400 * 86_400  # the maximum that browsers allow (RFC 6265bis §5.5)

_CHOSEN = web.RequestKey("language", str)

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",  # a QR code, which must have no URL
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}


class Renderer:
    """Renders templates in all languages.

    :param secure: browsers connect by https; enables HSTS
    :param has_docs: whether the developers' guide is served and linked
    """

    def __init__(self, assets: Assets, settings: Pages, *, secure: bool, has_docs: bool) -> None:
        self.languages = {code: language._replace(zone=ZoneInfo(settings.time_zone)) for code, language in load_languages().items()}
        self._headers = security_headers(secure=secure)
        self._environments = {code: environment_of(texts.TEMPLATES, "jinja2.ext.i18n") for code in self.languages}
        for code, environment in self._environments.items():
            language = self.languages[code]
            environment.install_gettext_translations(language.translations, newstyle=True)  # type: ignore[attr-defined]  # by the extension
            environment.globals.update(_globals(language, assets, settings), has_docs=has_docs)

    def language(self, request: web.Request, account: str | None = None) -> Language:
        """The language of a request."""
        if _CHOSEN not in request:
            request[_CHOSEN] = choose(
                account=account,
                cookie=request.cookies.get(LANGUAGE_COOKIE),
                accept_language=request.headers.get("Accept-Language", ""),
            )
        return self.languages[request[_CHOSEN]]

    def page(self, request: web.Request, template: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
        """Render a page, which must not be cached because it belongs to one customer."""
        language = self.language(request)
        frame = {
            "language": language.code,
            "session": request.get(SESSION),
            "here": request.path,
            "section": "",
            "account_name": "",
        }
        text = self._environments[language.code].get_template(template).render({**frame, **values})
        headers = {**self._headers, "Content-Language": language.code, "Vary": "Accept-Language, Cookie"}
        return web.Response(text=text, content_type="text/html", status=status, headers=headers)


def environment_of(templates: Path, *extensions: str) -> jinja2.Environment:
    """Templates that escape every value, and fail for one that is missing."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        extensions=extensions,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def remember_language(response: web.StreamResponse, code: str) -> None:
    """Store the language in a cookie, signed in or not; not readable by scripts."""
    response.set_cookie(LANGUAGE_COOKIE, code, max_age=_LANGUAGE_COOKIE_S, path="/", httponly=True, samesite="Lax")


def security_headers(*, secure: bool) -> dict[str, str]:
    """The security headers of every page, including the policy."""
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
        # Not "no-referrer": with it browsers send "Origin: null" with our own forms (Fetch §3.1).
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return headers | ({"Strict-Transport-Security": "max-age=31536000"} if secure else {})


def _globals(language: Language, assets: Assets, settings: Pages) -> dict[str, object]:
    translate = language.translations.gettext
    return {
        "asset": assets.url,
        "brand": brand.brand(settings),
        "time_zone": settings.time_zone,
        "logo_url": None if settings.logo is None else assets.url(brand.logo_name(settings.logo)),
        "number": language.number,
        "clock_time": lambda at_ms: Markup('<time datetime="{}" data-clock>{}</time>').format(rfc3339(at_ms), language.clock(at_ms)),
        "time": lambda at_ms: Markup('<time datetime="{}">{}</time>').format(rfc3339(at_ms), language.time(at_ms)),
        "texts": texts.labels(translate),
        "script_texts": lambda: texts.scripts(translate),
    }
