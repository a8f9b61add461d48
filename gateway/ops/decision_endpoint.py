"""The decision endpoint's wire formats: nginx ``auth_request``, Envoy ``ext_authz`` and forward auth. Pure.

ANY  /decision/nginx            auth_request: X-Original-Method, X-Original-URI. No content, since nginx sends none.
ANY  /decision/forward-auth     Traefik's ForwardAuth, Caddy's forward_auth: X-Forwarded-Method, X-Forwarded-Uri, and content if it is sent
ANY  /decision/envoy<target>    ext_authz over HTTP: the request's own method, target and content after its path_prefix

A signature verified without the content does not cover content that the proxy forwards. So the proxy's configuration states after the path
what happens to content: ``?content=dropped``, the proxy forwards none (nginx, forward auth), or ``?content=sent``, each decision request
includes all of it (forward auth; Envoy, whose path_prefix is then ``/decision/envoy?content=sent``). Without either, a decision request
without content is refused, except, with ``auth.unseen_content = "ignore"``, a GET or HEAD of a read route, unless its dialect is Binance's.

200: allow, with these header fields for the upstream. Anything else: the refusal, for the client. nginx accepts only 401 and 403, so every
other refusal is sent as 403, with the real status and code in X-Gerbang-Status and X-Gerbang-Code; X-Gerbang-Body repeats the body, which
nginx discards, as one line of ASCII.

Only peers in ``client_ip.trusted_proxies`` may use it: others could forge any address in X-Forwarded-For.
"""

import json

from aiohttp import web

from gateway.admission.verdict import CheckRequest, Verdict
from gateway.errors import MalformedRequest

_TARGET_FIELDS = {"nginx": ("x-original-method", "x-original-uri"), "forward-auth": ("x-forwarded-method", "x-forwarded-uri"), "envoy": ()}
_DROPPED, _SENT = "content=dropped", "content=sent"
_STATEMENTS = {"nginx": (_DROPPED,), "forward-auth": (_DROPPED, _SENT), "envoy": (_SENT,)}
"""The statements that a proxy's configuration may append to the path, where clients have no influence."""
_ENVOY = "/decision/envoy"
_ENVOY_FIELDS = "x-envoy-"
_PARTIAL = ("x-envoy-auth-partial-body", "true")
_FOR_THIS_HOP = frozenset({"content-length", "transfer-encoding", "connection"})
"""Header fields of the decision request itself."""


def read(request: web.Request, proxy: str, body: bytes) -> CheckRequest:
    """The request to be decided.

    :param proxy: ``nginx``, ``forward-auth`` or ``envoy``
    :raises MalformedRequest: the proxy did not state method and target, or did so twice
    """
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
    if proxy == "envoy":
        return _of_envoy(request, fields, body)
    content = request.rel_url.raw_query_string
    if content and content not in _STATEMENTS[proxy]:
        raise _invalid_statement(proxy, content)
    method, target = (_only(fields, name) for name in _TARGET_FIELDS[proxy])
    headers = [(name, value) for name, value in fields if name.lower() not in _FOR_THIS_HOP and name.lower() not in _TARGET_FIELDS[proxy]]
    if content == _DROPPED:
        body = b""
    whole = bool(content or (body and proxy == "forward-auth"))
    return CheckRequest(method, target, headers, body.decode("latin-1"), request.remote or "", whole)


def _of_envoy(request: web.Request, fields: list[tuple[str, str]], body: bytes) -> CheckRequest:
    """Split Envoy's path_prefix from the client's target, which begins with a slash.

    :raises MalformedRequest: the prefix contains an invalid statement
    """
    rest = request.raw_path.removeprefix(_ENVOY)
    target = rest.removeprefix(f"?{_SENT}")
    if not target.startswith("/"):
        raise _invalid_statement("envoy", target.removeprefix("?"))
    headers = [(name, value) for name, value in fields if name.lower() not in _FOR_THIS_HOP and not name.lower().startswith(_ENVOY_FIELDS)]
    whole = bool(body or target != rest) and _PARTIAL not in [(name.lower(), value.strip()) for name, value in fields]
    return CheckRequest(request.method, target, headers, body.decode("latin-1"), request.remote or "", whole)


def _invalid_statement(proxy: str, content: str) -> MalformedRequest:
    allowed = " or ".join(_STATEMENTS[proxy])
    return MalformedRequest(f"the proxy's configuration may state {allowed} after the path, not {content[:40]!r}")


def answer(verdict: Verdict, proxy: str) -> web.Response:
    """The verdict in the form that the proxy expects."""
    status, body = verdict.status, verdict.body.encode("latin-1")
    if proxy == "nginx" and status not in (200, 401, 403):
        status = 403
    headers = list(verdict.headers)
    if proxy == "nginx" and body:
        headers.append(("X-Gerbang-Body", json.dumps(json.loads(body), separators=(",", ":"))))  # escapes all but ASCII
    return web.Response(status=status, body=body, headers=headers)


def _only(fields: list[tuple[str, str]], name: str) -> str:
    values = [value for field, value in fields if field.lower() == name]
    if len(values) != 1 or not values[0]:
        raise MalformedRequest(f"the proxy must send {name} exactly once")
    return values[0]
