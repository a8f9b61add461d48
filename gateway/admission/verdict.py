"""Admission without forwarding: the decision for a request that another proxy (nginx, Envoy) forwards.

A :class:`CheckRequest` and its :class:`Verdict` travel as JSON between the ops port and a worker, so bodies are Latin-1 text, one
character for each byte.
"""

from typing import TYPE_CHECKING, NamedTuple

from gateway.admission import answers
from gateway.admission.dialects import binance
from gateway.admission.driver import admit
from gateway.admission.gate import Gate
from gateway.admission.outcome import Admitted
from gateway.admission.routes import Route
from gateway.errors import BodyTooLarge, HeadersTooLarge, MalformedRequest, NoRoute, Refusal
from gateway.http1.headers import HOP_BY_HOP, OWNED, REGENERATED, is_never_forwarded, shadows
from gateway.http1.message import Answer, Request

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings

ANONYMOUS = (("X-Account-Id", ""), ("X-Key-Id", ""), ("X-Key-Scopes", ""))
"""Set to empty values on a public route: a proxy that copies these over the client's own fields would otherwise leave the client's."""


NO_IDENTITY = (*ANONYMOUS, ("X-Client-IP", ""), ("X-Gateway-Assertion", ""))
"""Set on a request that shadow mode allows although it would be refused: none of its claims were verified."""


class CheckRequest(NamedTuple):
    """A request as received by the proxy that asks for the decision."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: str
    peer: str
    """The address of the proxy that asks for the decision."""
    whole: bool
    """Whether no content other than :attr:`body` can reach the upstream."""

    def request(self, *, received_ms: int, request_id: str) -> Request:
        """The request as the data plane would parse it; a target that is not in origin form matches no route."""
        path, mark, query = self.target.encode("latin-1", "replace").partition(b"?")
        return Request(
            method=self.method.encode("latin-1", "replace"),
            target=self.target.encode("latin-1", "replace"),
            path=path,
            query=query if mark else None,
            headers=tuple((name.lower().encode("latin-1"), value.strip(" \t").encode("latin-1")) for name, value in self.headers),
            body=self.body.encode("latin-1"),
            peer=self.peer,
            secure=False,
            received_ms=received_ms,
            request_id=request_id,
        )


class Verdict(NamedTuple):
    """200 and the fields to set for the upstream, or the refusal to return to the client."""

    status: int
    headers: list[tuple[str, str]]
    body: str


def refused(refusal: Refusal, given: Answer | None = None) -> Verdict:
    """A refusal as a verdict; its status and code are repeated in fields, for proxies that change the status.

    :param given: the refusal in the form of the request's dialect
    """
    answer = given or answers.render(refusal, request_id="", dialect=None)
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
    fields += [("X-Gerbang-Status", str(refusal.status)), ("X-Gerbang-Code", refusal.code)]
    return Verdict(answer.status, fields, answer.body.decode("latin-1"))


def shadow_allowed(refusal: Refusal, request_id: str = "") -> Verdict:
    """The verdict of shadow mode on a refusal: 200, without an identity."""
    return Verdict(200, [*NO_IDENTITY, ("X-Request-Id", request_id), ("X-Gerbang-Shadow", refusal.code)], "")


def is_unseen(route: Route, *, whole: bool) -> bool:
    """Whether the gate vouches for a signature without having seen all content that can reach the upstream.

    :param whole: see :attr:`CheckRequest.whole`
    """
    return not whole and route.scope != "public"


def notes(settings: "GatewaySettings") -> list[tuple[str, str]]:
    """Notes of ``gerbang check`` and ``gerbang doctor`` on a valid configuration: key and text."""
    if settings.auth.unseen_content == "refuse" or not settings.client_ip.trusted_proxies:
        return []  # the default, or nobody may ask for decisions
    return [("auth.unseen_content", _IGNORED)]


_IGNORED = (
    '"ignore": the decision endpoint admits a GET or HEAD of a read route although the proxy does not state what becomes of content, which '
    'nobody has verified. Let each proxy state it, then delete this setting (deploy/README.md, "Decisions for another proxy")'
)
UNSTATED = (
    "the proxy does not state what becomes of content: append content=dropped or content=sent to its decision URL, then delete "
    'auth.unseen_content (deploy/README.md, "Decisions for another proxy")'
)
"""The warning about a proxy whose request was admitted although :func:`is_unseen`."""


async def decide(gate: Gate, request: Request, *, whole: bool) -> tuple[Admitted | Refusal, str]:
    """Decide on a request from a trusted proxy.

    :param whole: see :attr:`CheckRequest.whole`
    :return: the outcome, and the route's pattern; ``""`` if there is none
    """
    pattern = ""
    try:
        route = gate.route(request)
        pattern = route.pattern
        if route.builtin:
            raise NoRoute("the gateway answers this path itself: forward it to the gateway's public port")
        if route.session:
            raise NoRoute("each message of this session is admitted individually: forward its connections to the gateway's public port")
        _check(request, route, gate.settings, whole=whole)
        return await admit(gate, request, route), pattern
    except Refusal as refusal:
        return refusal, pattern or refusal.route


def allowed(admitted: Admitted, request: Request, identity_lines: bytes) -> Verdict:
    """The verdict on an admitted request.

    :param identity_lines: the field lines that identify the client to the upstream
    """
    anonymous = ANONYMOUS if admitted.identity is None else ()
    own = [("X-Client-IP", admitted.client_ip), ("X-Request-Id", request.request_id)]
    return Verdict(200, [*anonymous, *_fields(identity_lines + admitted.answer_headers), *own], "")


def _check(request: Request, route: Route, settings: "GatewaySettings", *, whole: bool) -> None:
    """The checks that the data plane makes before admission.

    :raises Refusal: too large, a field that the proxy should have removed, or content that was not sent along
    """
    limits = settings.limits
    if len(request.body) > limits.max_body_bytes:
        raise BodyTooLarge(f"the body exceeds {limits.max_body_bytes} bytes", extras={"limit": limits.max_body_bytes})
    head = len(request.method) + len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
    if head > limits.max_header_bytes:
        raise HeadersTooLarge(f"the header section exceeds {limits.max_header_bytes} bytes", extras={"limit": limits.max_header_bytes})
    for name, _ in request.headers:
        unwanted = shadows(name) or (is_never_forwarded(name) and name not in _REPLACED)
        if unwanted and name != settings.client_ip.header.lower().encode():
            raise MalformedRequest(
                f"the field {name.decode('latin-1')!r} is not forwarded by this gateway: leave it out, or let the proxy remove it"
            )
    if is_unseen(route, whole=whole) and not (settings.auth.unseen_content == "ignore" and _content_has_no_effect(request, route)):
        raise MalformedRequest(
            "the proxy did not send the body, so it cannot be verified: forward this route to the gateway's public port, or state in the "
            "proxy's configuration what becomes of the body (?content=dropped or ?content=sent)"
        )


def _content_has_no_effect(request: Request, route: Route) -> bool:
    """Whether content that the gate has not seen has no effect: that of a GET or HEAD (RFC 9110 §9.3.1) on a route without side
    effects, unless its dialect is Binance's, whose parameters may be in the content.
    """
    return request.method in _WITHOUT_CONTENT and route.scope != "trade" and not request.field_lines(binance.KEY)


_REPLACED = HOP_BY_HOP | OWNED | REGENERATED
"""Fields that the proxy configurations in ``deploy/`` remove or replace before forwarding."""
_WITHOUT_CONTENT = frozenset({b"GET", b"HEAD"})
"""Methods whose content means nothing (RFC 9110 §9.3.1)."""


def _fields(lines: bytes) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines.decode("latin-1").split("\r\n") if line)
    return [(name, value.strip()) for name, _, value in pairs]
