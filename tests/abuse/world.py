"""The gate that is attacked."""

import os
from pathlib import Path
from typing import Final

from gateway.keys.vault import new_entry
from tests.support.running import configuration

QUIET: Final = bool(os.environ.get("GERBANG_QUIET_MACHINE"))
"""Whether the machine has nothing else to do."""
VAULT = new_entry("k1")
HONEST = 4
"""Honest customers, of an account each."""
ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nGET /ticker public spot\nGET /slow public spot\nPOST /upload public spot"
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
match = "GET /account-stream"
scope = "read"
upstream = "spot"
websocket = true
[[routes]]
match = "GET /session"
scope = "public"
upstream = "spot"
websocket = "mobee"
methods = "mobee"
[methods.mobee]
"login" = { scope = "any", replay = "off" }
"subscribe MK" = { scope = "public" }
"""

BEHIND_A_PROXY = '[client_ip]\ntrusted_proxies = ["127.0.0.0/8"]\n'


def behind_a_proxy(certificate: Path, key: Path) -> str:
    """The further tables of a gate that ends TLS behind a proxy that it trusts."""
    return f'{BEHIND_A_PROXY}[listen.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'


def settings(postgres: str, redis: str, upstream: str, more: str = "", *, limits: str = LIMITS, of_upstreams: str = "") -> str:
    """The text of its configuration.

    :param more: further tables
    :param of_upstreams: further lines of every upstream
    """
    text = configuration(
        postgres=postgres, redis=redis, vault=VAULT, upstreams={"spot": upstream}, of_upstreams=of_upstreams, routes=ROUTES,
        more=limits + more,
    )  # fmt: skip
    return text + WEBSOCKETS
