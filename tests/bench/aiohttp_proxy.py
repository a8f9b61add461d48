"""Baseline: the same checks on aiohttp's own server and client, as most people would write them first."""

import base64
import hmac
import sys

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from gateway.runtime import clock

port, upstream, key_id, secret = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4].encode()
KEYS = {key_id: (secret, {"read", "trade"}, {"127.0.0.1"}, "account")}
OWN = {"x-api-key", "x-request-signature", "x-request-timestamp", "connection", "host", "x-account-id", "x-client-ip"}
counters: dict[str, int] = {}


def refuse(status: int, code: str) -> web.Response:
    return web.json_response({"status": status, "code": code}, status=status, content_type="application/problem+json")


async def proxy(request: web.Request) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in OWN}
    body = await request.read()
    if not request.path.startswith("/v1/markets/"):
        try:
            name, signature = request.headers["X-API-Key"], base64.b64decode(request.headers["X-Request-Signature"])
            timestamp = request.headers["X-Request-Timestamp"]
            age = clock.now_ms() - int(timestamp) * 1000
        except (KeyError, ValueError):
            return refuse(401, "missing_credentials")
        if not -1000 <= age <= 6000:
            return refuse(401, "timestamp_out_of_window")
        key, scopes, addresses, account = KEYS.get(name, (b"", set(), set(), ""))
        message = f"{request.method}\n{request.path}\n{timestamp}".encode() + (b"\n" + body if body else b"")
        if not hmac.compare_digest(hmac.digest(key, message, "sha256"), signature):
            return refuse(401, "invalid_credentials")
        if request.remote not in addresses:
            return refuse(403, "ip_not_allowed")
        if ("read" if request.method == "GET" else "trade") not in scopes:
            return refuse(403, "scope_not_granted")
        counters[name] = counters.get(name, 0) + 1
        headers |= {"X-Account-Id": account, "X-Client-IP": request.remote or ""}
    session: ClientSession = request.app["session"]
    async with session.request(request.method, f"http://127.0.0.1:{upstream}{request.path_qs}", headers=headers, data=body) as answer:
        return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


async def application() -> web.Application:
    app = web.Application()
    app["session"] = ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), auto_decompress=False)
    app.router.add_route("*", "/{path:.*}", proxy)
    return app


web.run_app(application(), host="127.0.0.1", port=port, access_log=None, print=None, loop=uvloop.new_event_loop())
