"""An upstream: a named group of servers, of which the best is chosen for each request."""

import ssl
from collections.abc import Collection
from typing import TYPE_CHECKING

from gateway.forward.balance import choose
from gateway.forward.identity import IdentityLines, Signer
from gateway.forward.upstream_server import UpstreamServer
from gateway.runtime.outbox import Outbox
from gateway.runtime.ticker import Ticker
from gateway.telemetry import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Upstream


class Pool:
    """See the module. Created without I/O, so that it can be discarded if a configuration is refused."""

    def __init__(
        self,
        name: str,
        settings: "Upstream",
        *,
        tls: ssl.SSLContext | None,
        authority: bytes,
        signer: Signer,
        assertion_period_ms: int,
        ticker: Ticker,
        outbox: Outbox,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.settings = settings
        self.authority = authority
        self.metrics = metrics
        self.identity_lines = IdentityLines(signer, name, period_ms=assertion_period_ms)
        self.servers = tuple(
            UpstreamServer(url, settings, upstream=name, tls=tls, ticker=ticker, outbox=outbox, metrics=metrics) for url in settings.servers
        )
        self._only = self.servers[0] if len(self.servers) == 1 else None
        self._ticker = ticker
        self._turn = 0

    def choose(self, tried: Collection[UpstreamServer]) -> UpstreamServer | None:
        """See :func:`gateway.forward.balance.choose`."""
        only = self._only
        if only is not None:
            return only if only.condition.up and not tried else None
        self._turn += 1
        return choose(self.servers, tried, self._ticker.now_ms, self._turn)

    def sweep(self, now_ms: int) -> None:
        for server in self.servers:
            server.sweep(now_ms)

    def usable_servers(self) -> int:
        return sum(server.condition.usable(self._ticker.now_ms) for server in self.servers)

    def retire(self) -> None:
        for server in self.servers:
            server.retire()

    def abort(self) -> None:
        for server in self.servers:
            server.abort()
