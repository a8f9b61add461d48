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
    """Created once for each version and never changed.

    An exchange takes the version in force when its head is complete and keeps it, so no request is decided by one version and forwarded by
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
        """Header fields that are never forwarded."""
        self.proxies = NetworkList(settings.client_ip.trusted_proxies)
        """Peers that many clients may share: the trusted proxies."""
        self.proxy_peers = NetworkList(settings.client_ip.proxy_peers)
        """Peers that begin each connection with a PROXY header, if that is enabled."""
        self.cors = Cors(settings.gateway.cors) if settings.gateway.cors else None
        """``None``: no other origin may read any response."""
        self.access = access
        self.tracing = tracing


def _foldings(name: bytes) -> frozenset[bytes]:
    """All names that some servers take for this one because they fold ``-``, ``_`` and ``.`` (see ``http1.headers.shadows``)."""
    parts = name.replace(b"_", b"-").replace(b".", b"-").split(b"-")
    found = {parts[0]}
    for part in parts[1:]:
        found = {begun + mark + part for begun in found for mark in (b"-", b"_", b".")}
    return frozenset(found)
