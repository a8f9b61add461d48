"""All upstreams of a worker: built from the configuration, replaced on reload, closed at the end."""

import asyncio
import ssl
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, ConfigProblem
from gateway.forward.health import watch
from gateway.forward.identity import Signer
from gateway.forward.pool import Pool
from gateway.runtime.outbox import Outbox
from gateway.runtime.tasks import repeat
from gateway.runtime.ticker import Ticker
from gateway.telemetry import Metrics

if TYPE_CHECKING:
    from gateway.config.settings import Upstream, UpstreamTls

Pools = Mapping[str, Pool]


class Upstreams:
    """See the module. ``pools`` is replaced as a whole; a replaced pool remains usable for requests in progress.

    :param assertion_period_ms: how long one assertion is sent before a new one is signed
    """

    def __init__(self, *, signer: Signer, assertion_period_ms: int, ticker: Ticker, metrics: Metrics) -> None:
        self.pools: Pools = {}
        self.outbox = Outbox()
        """Shared with the client side."""
        self._signer = signer
        self._assertion_period_ms = assertion_period_ms
        self._ticker = ticker
        self._metrics = metrics
        self._retired: list[Pool] = []
        self._watchers: dict[str, list[asyncio.Task[None]]] = {}
        ticker.subscribe(self.sweep)
        metrics.probes.append(self._count)

    def prepare(self, settings: Mapping[str, "Upstream"]) -> Pools:
        """Create the pools for these settings. An unchanged upstream keeps its pool and connections; nothing is started or stopped.

        :raises ConfigError: a CA file cannot be used
        """
        problems: list[ConfigProblem] = []
        pools = {name: self._pool(name, upstream, problems) for name, upstream in settings.items()}
        if problems:
            raise ConfigError(problems)
        return pools

    def commit(self, pools: Pools) -> None:
        """Use the pools from :meth:`prepare`. Needs a running loop. A new pool begins with what is known of its servers, by URL."""
        old, self.pools = self.pools, pools
        known = {(name, server.url): server.condition for name, pool in old.items() for server in pool.servers}
        elsewhere = {url: condition for (_, url), condition in known.items()}
        for name, pool in pools.items():
            if old.get(name) is not pool:
                for server in pool.servers:
                    server.inherit(known.get((name, server.url)) or elsewhere.get(server.url))
        for name, pool in old.items():
            if pools.get(name) is not pool:
                for task in self._watchers.pop(name, []):
                    task.cancel()
                pool.retire()
                self._retired.append(pool)
        for name, pool in pools.items():
            if old.get(name) is not pool and pool.settings.health is not None:
                self._watchers[name] = [
                    repeat(partial(watch, server, pool.settings.health), name=f"health of {server.url}") for server in pool.servers
                ]

    def sweep(self, now_ms: int) -> None:
        for pool in self.pools.values():
            pool.sweep(now_ms)
        for pool in self._retired:
            pool.sweep(now_ms)
        self._retired = [pool for pool in self._retired if any(server.active for server in pool.servers)]

    def close(self) -> None:
        """Stop everything immediately."""
        for tasks in self._watchers.values():
            for task in tasks:
                task.cancel()
        self._watchers.clear()
        for pool in (*self.pools.values(), *self._retired):
            pool.abort()

    def _pool(self, name: str, settings: "Upstream", problems: list[ConfigProblem]) -> Pool:
        known = self.pools.get(name)
        authority = _authority(settings)
        if known is not None and known.settings == settings and known.authority == authority:
            return known
        tls = None
        if any(url.startswith("https:") for url in settings.servers):
            try:
                tls = _client_context(settings.tls)
            except (OSError, ssl.SSLError) as error:
                problems.append(ConfigProblem(f"upstreams.{name}.tls.ca", f"cannot be used: {error.strerror or error}"))
        return Pool(
            name,
            settings,
            tls=tls,
            authority=authority,
            signer=self._signer,
            assertion_period_ms=self._assertion_period_ms,
            ticker=self._ticker,
            outbox=self.outbox,
            metrics=self._metrics,
        )

    def used_percent(self) -> dict[str, int]:
        """The percentage of connections in use, of the most loaded server."""
        servers = [server for pool in self.pools.values() for server in pool.servers]
        return {"upstream_connections": max((server.used_percent() for server in servers), default=0)}

    def _count(self, metrics: Metrics) -> None:
        metrics.upstream_servers.clear()  # drops upstreams that a reload has removed
        metrics.upstream_healthy.clear()
        for name, pool in self.pools.items():
            metrics.upstream_servers[name] = len(pool.servers)
            metrics.upstream_healthy[name] = pool.usable_servers()


def _authority(settings: "Upstream") -> bytes:
    """The current contents of the CA file: a renewed file requires a new pool although the settings are unchanged."""
    try:
        return settings.tls.ca.read_bytes() if settings.tls is not None and settings.tls.ca is not None else b""
    except OSError:
        return b""  # reported when it is loaded


def _client_context(settings: "UpstreamTls | None") -> ssl.SSLContext:
    """Verifies the server's certificate and name; TLS 1.2 or later."""
    context = ssl.create_default_context(cafile=str(settings.ca) if settings is not None and settings.ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
