"""The gate that is attacked, and the service behind it."""

import asyncio

from gateway.keys.vault import new_entry
from tests.support.running import configuration
from tests.support.session import switching
from tests.support.wire import OK, Received, UpstreamSide

VAULT = new_entry("k1")
ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nGET /ticker public spot\nGET /slow public spot"
LIMITS = """[limits]
per_key = "6000/minute"
per_account = "6000/minute"
body_memory_bytes = 16777216
"""

WEBSOCKETS = """
[[routes]]
match = "GET /stream"
scope = "public"
upstream = "spot"
websocket = true
[[routes]]
match = "GET /silent"
scope = "public"
upstream = "spot"
websocket = true
[[routes]]
match = "GET /session"
scope = "public"
upstream = "spot"
websocket = "mobee"
methods = "mobee"
[methods.mobee]
"subscribe MK" = { scope = "public" }
"""


async def service(side: UpstreamSide, request: Received) -> None:
    """A trading service: slow where it is asked to be, and with WebSockets that say nothing."""
    if b"/slow" in request.line:
        await asyncio.sleep(5)
    if b"/silent" in request.line:
        await side.gone.wait()
    if request.values(b"upgrade"):
        side.send(switching(request))
        while await side.reader.read(1 << 16):
            pass
    side.send(OK)


def settings(postgres: str, redis: str, upstream: str, more: str = "") -> str:
    """The text of its configuration.

    :param more: further tables
    """
    text = configuration(postgres=postgres, redis=redis, vault=VAULT, upstreams={"spot": upstream}, routes=ROUTES, more=LIMITS + more)
    return text + WEBSOCKETS
