"""Chooses the form of a refusal, by the route's dialect or else the request's, and whether it is explained."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.admission import answers
from gateway.admission.brief import BriefAnswer
from gateway.admission.dialects import DIALECTS, Dialect, by_field
from gateway.admission.explanations import Explanations
from gateway.admission.routes import RouteTable
from gateway.errors import NoRoute, Refusal
from gateway.http1.memo import LINE_BYTES, remember
from gateway.http1.message import Answer, Request
from gateway.net.client_ip import ClientIpRule

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings

_BINANCE_PATH: Final = re.compile(rb"/(?:api|sapi|wapi|fapi|dapi|eapi|papi|ws-api)/v[0-9]+(?:/|$)")
"""Matches Binance's paths: clients that call them expect refusals in Binance's form."""


class Refusals:
    """Renders refusals per one configuration version.

    :param explanations: limits how many refusals are explained to unauthenticated clients
    """

    __slots__ = (
        "_briefs", "_client_ip", "_dialect_of", "_docs_url", "_explanations", "_form_of", "_knows_binance", "_monotonic_ms", "_prefixes",
        "_routes",
    )  # fmt: skip

    def __init__(
        self, settings: "GatewaySettings", routes: RouteTable, client_ip: ClientIpRule, explanations: Explanations,
        monotonic_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        auth = settings.auth
        self._routes = routes
        self._client_ip = client_ip
        self._explanations = explanations
        self._monotonic_ms = monotonic_ms
        self._docs_url = settings.gateway.docs_url
        self._briefs: dict[tuple[str, str], BriefAnswer] = {}
        self._form_of: dict[bytes, str] = {}
        """The forms of recently used paths."""
        self._knows_binance = "binance" in auth.dialects
        self._prefixes = [(prefix.encode(), name) for prefix, name in sorted(auth.path_dialects.items(), key=lambda item: -len(item[0]))]
        """Longest first."""
        self._dialect_of = by_field(auth.dialects)

    def render(self, refusal: Refusal, request: Request) -> Answer:
        """The answer to a request, explained unless too many refusals are."""
        if self._is_brief(refusal, request):
            return self.brief(type(refusal), request).answer(refusal, request.request_id)
        dialect = self.form(request)
        if dialect is not None and isinstance(refusal, NoRoute) and (more := dialect.unrouted(request)):
            refusal = NoRoute(refusal.detail + more, headers=refusal.headers, extras=refusal.extras)
        return answers.render(refusal, request_id=request.request_id, dialect=dialect, docs_url=self._docs_url)

    def brief(self, kind: type[Refusal], request: Request) -> BriefAnswer:
        """The answer to a request without an explanation."""
        dialect = self.form(request)
        key = (kind.code, "" if dialect is None else dialect.name)
        brief = self._briefs.get(key)
        if brief is None:
            brief = self._briefs[key] = BriefAnswer(kind, dialect, self._docs_url)
        return brief

    def render_unframed(self, refusal: Refusal, request_id: str, method: bytes, path: bytes) -> Answer:
        """The answer to bytes that could not be framed as a request; method and path as far as known."""
        name = self._form_at(method, path)
        return answers.render(refusal, request_id=request_id, dialect=DIALECTS[name] if name else None, docs_url=self._docs_url)

    def form(self, request: Request) -> Dialect | None:
        """The dialect of a request's refusals: its route's or its path's; if neither has one, the one that its header fields belong to."""
        name = self._form_at(request.method, request.path)
        if name:
            return DIALECTS[name]
        for field, _ in request.headers:
            if field in self._dialect_of:
                return self._dialect_of[field]
        return None

    def _form_at(self, method: bytes, path: bytes) -> str:
        try:
            name = self._routes.match(method, path).dialect
        except Refusal:
            name = ""
        return name or self._form_of_path(path)

    def _form_of_path(self, path: bytes) -> str:
        known = self._form_of.get(path)
        if known is None:
            known = next((name for prefix, name in self._prefixes if path.startswith(prefix)), "")
            if not known and self._knows_binance and _BINANCE_PATH.match(path):
                known = "binance"
            if len(path) <= LINE_BYTES:
                remember(self._form_of, path, known)
        return known

    def _is_brief(self, refusal: Refusal, request: Request) -> bool:
        """Whether the explanation is omitted: the client is not authenticated, and too many such refusals are being explained."""
        if refusal.brief is None:
            requester = refusal.requester
            proven = refusal.status >= 500 or (requester is not None and requester.account_id is not None)
            address = requester.client_ip if requester is not None else self._client_ip.of(request).address
            refusal.brief = not proven and not self._explanations.take(address or request.peer, self._monotonic_ms())
        return refusal.brief
