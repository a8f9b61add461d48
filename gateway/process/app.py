"""Wires one worker: creates its long-lived objects, and applies each version of the configuration.

A version is prepared completely before it is used (:meth:`App.prepare`), and then applied in one step (:meth:`App.commit`, which does
not await). A request in progress keeps the gate and the pools that it began with.
"""

import asyncio
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import structlog

from gateway.admission.failures import AddressLimiter, FailureLimiter
from gateway.admission.gate import Gate
from gateway.admission.limits import KeyLimiter
from gateway.admission.outcome import Admitted
from gateway.admission.principal import Principal
from gateway.admission.replay import ReplayGuard
from gateway.admission.services import Services
from gateway.admission.verdict import UNSTATED, CheckRequest, Verdict, allowed, decide, is_unseen, refused, shadow_allowed
from gateway.assertion import Signer, SigningKey
from gateway.errors import ConfigError, ConfigProblem, IpNotAllowed, Refusal
from gateway.forward.identity import IdentityLines
from gateway.forward.tunnel import Tunnels
from gateway.forward.upstreams import Pools, Upstreams
from gateway.http1.message import Request
from gateway.keys.invalidation import InvalidationListener
from gateway.keys.lookup import KeyLookup
from gateway.keys.shared import SharedRecords
from gateway.keys.store import KeyStore
from gateway.keys.trust import Trust
from gateway.keys.usage import UsageCounts
from gateway.keys.usage_store import UsageWriter
from gateway.process.redis_policy import RedisPolicy
from gateway.process.stores import Stores
from gateway.process.version import Configuration
from gateway.runtime import clock
from gateway.runtime.tasks import wait_at_most
from gateway.runtime.ticker import Ticker
from gateway.server import reports
from gateway.server.plane import Plane
from gateway.server.serving import Serving
from gateway.telemetry import AccessLog, Metrics, configure_logging
from gateway.telemetry.logs import LineSink
from gateway.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from gateway.config.settings import Cache, GatewayTelemetry

CHANNELS_MS = 2_000
"""How long start-up waits for the change feed and the messages. Without the feed a gate queries PostgreSQL for each key every second."""

LOOKUP_SECONDS = 2.0
"""How long PostgreSQL may take to find keys before a waiting request is refused with 503."""

DECISION_NS = 200_000
"""Approximate nanoseconds of a decision for a proxy."""

UNSTATED_PEERS = 64
"""Maximum number of proxies that are warned about."""

SHADOW = "the decision endpoint allows every request: auth.enforce is shadow"

_log = structlog.get_logger(__name__)


class Prepared(NamedTuple):
    """A prepared version, not in use yet."""

    configuration: Configuration
    gate: Gate
    pools: Pools
    deciding: Gate
    """The decision endpoint's gate: the same, unless in shadow mode."""
    tracing: Tracing | None
    """That of the version in use, unless its settings have changed."""


class App:
    """See the module.

    :param worker: this worker's number, a label of metrics
    """

    def __init__(self, configuration: Configuration, stores: Stores, signing: SigningKey, *, worker: int) -> None:
        settings = configuration.settings
        self.metrics = Metrics()
        self._worker = str(worker)
        self._stores = stores
        self._ticker = Ticker()
        self._ticker.subscribe(self._measure_lag)
        self._ticked_ms = self._ticker.now_ms
        self._worst_lag_ms = 0
        self.signer = Signer(signing, issuer=settings.assertion.issuer, ttl_ms=settings.assertion.ttl_ms)
        self._trust = Trust()
        self._lookup = _key_lookup(stores, self._trust, settings.cache, self.metrics)
        self._usage = UsageCounts()
        self._usage_writer = UsageWriter(self._usage, stores.timed, self.metrics)
        self._tunnels = Tunnels(self._key_is_active, self.metrics)
        self._listener = InvalidationListener(
            stores.redis, settings.stores.postgres.get_secret_value(), self._trust, self._lookup, metrics=self.metrics
        )
        self._listener.on_invalidate.append(self._tunnels.invalidated)
        self._upstreams = Upstreams(
            signer=self.signer, assertion_period_ms=self.signer.period_ms, ticker=self._ticker, metrics=self.metrics
        )
        self._limiter = KeyLimiter(stores.timed, metrics=self.metrics)
        self._redis_policy = RedisPolicy(stores.redis, metrics=self.metrics)
        self._services = self._gate_services()
        self._compiled = configuration
        self._tracing = _tracing(settings.telemetry)
        prepared = self.prepare(configuration)
        self._upstreams.commit(prepared.pools)
        self._serving = self._serving_of(prepared)
        self._deciding = prepared.deciding
        self._unstated: set[str] = set()
        self._log_shadow()
        self._plane = Plane(
            settings, self._serving, outbox=self._upstreams.outbox, tunnels=self._tunnels, ticker=self._ticker, metrics=self.metrics
        )
        self.metrics.probes.append(self._count)

    def _gate_services(self) -> Services:
        return Services(
            lookup=self._lookup,
            limiter=self._limiter,
            failures=FailureLimiter(),
            public=AddressLimiter(),
            messages=AddressLimiter(),
            replay=ReplayGuard(self._stores.timed, metrics=self.metrics),
            usage=self._usage,
            monotonic_ms=clock.monotonic_ms,
            now_ms=clock.now_ms,
        )

    @classmethod
    async def create(cls, configuration: Configuration, *, signing: SigningKey, worker: int, require_stores: bool) -> Self:
        """Create an instance and start its background tasks.

        :param require_stores: whether to fail if a store cannot be used
        :raises ConfigError: a file or, with ``require_stores``, a store cannot be used
        """
        stores = await Stores.open(configuration.settings)
        try:
            if require_stores:
                await stores.check()
            app = cls(configuration, stores, signing, worker=worker)
        except BaseException:
            await stores.close()
            raise
        await app._start()
        return app

    async def _start(self) -> None:
        self._ticker.start()
        self._listener.start()
        self._usage_writer.start()
        self._limiter.start()
        await self._redis_policy.start()
        await wait_at_most(self._listener.up, CHANNELS_MS)

    async def serve(self, listening: socket.socket) -> None:
        """Accept connections on this socket."""
        await self._plane.serve([listening])

    async def decide(self, check: CheckRequest) -> Verdict:
        """Decide on a request for a trusted proxy, without forwarding it, by the version in force."""
        serving, gate, worker = self._serving, self._deciding, self._plane.worker
        shadow = gate.settings.auth.enforce == "shadow"
        request = check.request(received_ms=clock.now_ms(), request_id=worker.next_request_id())
        outcome: Admitted | Refusal
        if self._plane.is_trusted(check.peer):
            if not worker.scheduler.may_run():
                await worker.scheduler.wait_turn(gate.client(request), DECISION_NS)
            outcome, pattern = await decide(gate, request, whole=check.whole)
        else:
            outcome, pattern = IpNotAllowed(f"{check.peer} is not allowed to ask for decisions: it is not in client_ip.trusted_proxies"), ""
            if not shadow:
                return refused(outcome)
        if shadow:
            self._note_shadow(outcome, request, pattern)
        if isinstance(outcome, Refusal):
            if shadow:
                return shadow_allowed(outcome, request.request_id)
            worker.refused(serving, outcome, request, pattern or None)
            return refused(outcome, gate.render(outcome, request))
        self.metrics.admitted[pattern] += 1
        if is_unseen(outcome.route, whole=check.whole):
            self._note_unstated(check.peer)
        return allowed(outcome, request, serving.pools[outcome.route.upstream].identity_lines.at(outcome.identity, request.received_ms))

    def _note_unstated(self, peer: str) -> None:
        """Count a request admitted without a statement about its content, and warn once about each proxy."""
        self.metrics.decisions_unstated += 1
        if peer not in self._unstated and len(self._unstated) < UNSTATED_PEERS:
            self._unstated.add(peer)
            _log.warning("content_unstated", peer=peer, detail=UNSTATED)

    def _note_shadow(self, outcome: Admitted | Refusal, request: Request, pattern: str) -> None:
        """Count what would have been decided. Every refusal is logged, whatever the access log's share."""
        if isinstance(outcome, Refusal):
            self.metrics.shadow_decisions[pattern, outcome.code] += 1
            reports.log_refused(outcome, request, pattern or None, None, event="shadow_refused")
            return
        self.metrics.shadow_decisions[pattern, "admitted"] += 1
        if outcome.principal is not None:
            self._usage.admitted(outcome.principal.key_id, outcome.client_ip, request.received_ms)

    def _log_shadow(self) -> None:
        if self._deciding.settings.auth.enforce == "shadow":
            _log.warning("shadow_mode", detail=SHADOW)

    # -- versions

    def prepare(self, configuration: Configuration) -> Prepared:
        """Prepare a version without using it: whatever may fail is done here, since a worker that fails to commit is ended.

        :raises ConfigError: a file cannot be used, or OpenTelemetry refuses its environment
        """
        settings, routes = configuration.settings, configuration.routes
        gate = deciding = Gate(settings, routes, self._services)
        if settings.auth.enforce == "shadow":
            # Its refusals are not enforced, so they throttle no address and are not shown to key owners. Limits and the replay guard
            # are shared, because what it admits does pass.
            deciding = Gate(settings, routes, self._services._replace(failures=FailureLimiter(), usage=UsageCounts(limit=0)))
        pools = self._upstreams.prepare(settings.upstreams)
        unchanged = settings.telemetry == self._compiled.settings.telemetry
        return Prepared(configuration, gate, pools, deciding, self._tracing if unchanged else _tracing(settings.telemetry))

    def discard(self, prepared: Prepared) -> None:
        """Release what was prepared for a version that is not used."""
        if prepared.tracing is not None and prepared.tracing is not self._tracing:
            prepared.tracing.shutdown()

    def commit(self, prepared: Prepared) -> None:
        """Use a version from the next request on. Does not await, so no request sees a mixture of versions."""
        settings, assertion = prepared.configuration.settings, self._compiled.settings.assertion
        old, self._tracing = self._tracing, prepared.tracing
        self._upstreams.commit(prepared.pools)
        self._serving = self._serving_of(prepared)
        self._deciding = prepared.deciding
        self._log_shadow()
        self._plane.apply(settings, self._serving)
        if old is not None and old is not self._tracing:
            old.shutdown()
        self._lookup.configure(settings.cache)
        if settings.assertion != assertion:
            self.signer.configure(issuer=settings.assertion.issuer, ttl_ms=settings.assertion.ttl_ms)
            for name, pool in prepared.pools.items():
                pool.identity_lines = IdentityLines(self.signer, name, period_ms=self.signer.period_ms)
        self._renew_certificate()
        self.metrics.forget_routes(prepared.configuration.routes.patterns())
        self._compiled = prepared.configuration
        configure_logging(settings.telemetry.log_level, service="gateway", worker=int(self._worker))

    @staticmethod
    def _serving_of(prepared: Prepared) -> Serving:
        settings = prepared.configuration.settings
        return Serving(settings, prepared.gate, prepared.pools, access=AccessLog(settings.telemetry.access_log), tracing=prepared.tracing)

    def _renew_certificate(self) -> None:
        if self._plane.tls is not None:
            try:
                self._plane.tls.reload()
            except ConfigError as error:  # it was readable a moment ago; the old one is kept
                _log.error("certificate_not_renewed", reason=str(error))

    # -- status

    async def status(self) -> dict[str, Any]:
        """``missing``: why it cannot serve; ``degraded``: what is unavailable although it serves; and general information."""
        unavailable = await self._stores.unavailable()
        degraded = list(unavailable)
        degraded += [f"notifications by {channel}" for channel in self._listener.down()]
        degraded += [f"upstream {name}" for name, pool in self._upstreams.pools.items() if not pool.usable_servers()]
        degraded += ["rate limits apply per process"] if self._limiter.degraded else []
        evicting = self._redis_policy.evicting
        degraded += [f"redis evicts by {evicting}: set maxmemory-policy noeviction, or requests could be replayed"] if evicting else []
        degraded += [SHADOW] if self._deciding.settings.auth.enforce == "shadow" else []
        missing = ["no key store answers"] if len(unavailable) == 2 else []
        return {"pid": os.getpid(), "version": self._compiled.version, "missing": missing, "degraded": degraded}

    def recent(self) -> dict[str, Any]:
        """See :class:`gateway.telemetry.recent.Recent`."""
        return self._plane.worker.recent.report(self.metrics.admitted)

    def _count(self, metrics: Metrics) -> None:
        self._plane.worker.recent.note(metrics.admitted, clock.now_ms())
        tunnels = self._tunnels.used_percent(self._plane.worker.serving.limits)
        metrics.resource_used.update(self._plane.used_percent() | tunnels | self._upstreams.used_percent())
        metrics.cache_entries = len(self._lookup.cache.present)
        metrics.feed_age_ms = 0 if self._trust.read is None else clock.monotonic_ms() - self._trust.read.at.ms
        metrics.log_lines_dropped = LineSink.dropped
        metrics.shadow = int(self._deciding.settings.auth.enforce == "shadow")
        metrics.resident_bytes[self._worker] = _resident_bytes()
        scheduler = self._plane.worker.scheduler
        metrics.turns_waited, metrics.long_turns = scheduler.deferred, scheduler.long_ns / 1_000_000_000
        metrics.loop_lag[self._worker], self._worst_lag_ms = self._worst_lag_ms, 0

    def _measure_lag(self, now_ms: int) -> None:
        self._worst_lag_ms = max(self._worst_lag_ms, now_ms - self._ticked_ms - self._ticker.period_ms)
        self._ticked_ms = now_ms

    async def _key_is_active(self, key_id: str) -> bool:
        """Whether a key that a tunnel uses is still valid."""
        principal = await self._lookup.fetch(key_id)
        if principal is None or principal.record.frozen:
            return False
        return principal.record.expires_ms is None or clock.now_ms() < principal.record.expires_ms

    # -- the end

    async def drain(self, limit_ms: int) -> None:
        """Accept no more connections, finish requests in flight, write usage counts, and release everything."""
        if not await self._plane.drain(limit_ms):
            _log.warning("drain_limit_reached", limit_ms=limit_ms)
        self._upstreams.close()
        self._ticker.stop()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await self._usage_writer.stop()
        await self._limiter.stop()
        await self._redis_policy.stop()
        await self._listener.aclose()
        await self._lookup.aclose()
        await self._stores.close()


def _key_lookup(stores: Stores, trust: Trust, cache: "Cache", metrics: Metrics) -> KeyLookup[Principal]:
    keys = KeyStore(stores.pool, stores.vault, seconds=LOOKUP_SECONDS)
    return KeyLookup(keys.find, SharedRecords(stores.timed, stores.vault), trust, cache, prepare=Principal.of, metrics=metrics)


def _tracing(settings: "GatewayTelemetry") -> Tracing | None:
    """:raises ConfigError: OpenTelemetry refuses its own settings, which are environment variables"""
    if settings.traces is None or settings.trace_share <= 0:
        return None
    try:
        return Tracing(settings.traces, settings.trace_share)
    except Exception as error:  # noqa: BLE001 - of any kind, by the part of the SDK that reads the variable
        problem = f"OpenTelemetry cannot be set up with these environment variables (OTEL_…): {error}"
        raise ConfigError([ConfigProblem("telemetry.traces", problem)]) from None


def _resident_bytes() -> int:
    """Resident memory of this process (Linux, proc(5)); 0 elsewhere."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
