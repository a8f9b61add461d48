"""One version of the configuration, as connections and exchanges use it."""

from typing import TYPE_CHECKING

from gateway.admission.dialects import CREDENTIAL_FIELDS
from gateway.admission.gate import Gate
from gateway.forward.pool import Pool
from gateway.forward.upstreams import Pools
from gateway.http1.cors import Cors
from gateway.http1.headers import REQUEST_DROP
from gateway.net.addresses import NetworkList
from gateway.telemetry import AccessLog
from gateway.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings


class Serving:
    """Made once for each version and not changed after that.

    An exchange takes the version in force when its head is complete, and keeps it: no request is decided by one version and forwarded by
    another.
    """

    __slots__ = (
        "access", "body_timeout_ms", "cors", "dropped", "gate", "header_timeout_ms", "idle_timeout_ms", "limits", "max_header_bytes",
        "pools", "proxies", "proxy_peers", "tracing",
    )  # fmt: skip

    def __init__(
        self, settings: "GatewaySettings", gate: Gate, pools: Pools, *, access: AccessLog, tracing: Tracing | None = None
    ) -> None:  # fmt: skip
        self.gate = gate
        self.pools: dict[str, Pool] = dict(pools)
        self.limits = settings.limits
        self.max_header_bytes = settings.limits.max_header_bytes
        self.header_timeout_ms = settings.limits.header_timeout_ms
        self.body_timeout_ms = settings.limits.body_timeout_ms
        self.idle_timeout_ms = settings.limits.idle_timeout_ms
        self.dropped = REQUEST_DROP | CREDENTIAL_FIELDS | _foldings(settings.client_ip.header.lower().encode())
        """Fields of a request that go no further, whatever it is."""
        self.proxies = NetworkList(settings.client_ip.trusted_proxies)
        """Peers behind which many clients may stand."""
        self.proxy_peers = NetworkList(settings.client_ip.proxy_peers)
        """Peers that begin each connection with a PROXY header, when that is on."""
        self.cors = Cors(settings.gateway.cors) if settings.gateway.cors else None
        """``None``: no page of another origin may read anything."""
        self.access = access
        self.tracing = tracing


def _foldings(name: bytes) -> frozenset[bytes]:
    """All names that are one where ``-``, ``_`` and ``.`` are folded (see ``http1.headers.shadows``); the configuration bounds how many."""
    parts = name.replace(b"_", b"-").replace(b".", b"-").split(b"-")
    found = {parts[0]}
    for part in parts[1:]:
        found = {begun + mark + part for begun in found for mark in (b"-", b"_", b".")}
    return frozenset(found)
