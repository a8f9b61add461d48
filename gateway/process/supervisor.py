"""The parent process: binds ports, supervises the workers, reloads, serves the operations port, drains and stops.

It handles no client connection. There is always one parent and N workers, even for N = 1, so that start, reload and
shutdown work the same way.
"""

import asyncio
import signal
import socket
import sys
from operator import itemgetter
from pathlib import Path
from typing import Any

import structlog

from gateway.admission.verdict import CheckRequest, Verdict, refused, shadow_allowed
from gateway.assertion import KeyRing, SigningKey
from gateway.assertion.keys import SigningKeysUnusable
from gateway.config.changes import changes, needs_restart, shown
from gateway.config.values import Address
from gateway.errors import ConfigError, ConfigProblem, GerbangError, Refusal
from gateway.net import descriptors
from gateway.net.certificates import end_or_zero
from gateway.net.listening import listen
from gateway.ops.app import serving
from gateway.ops.report import Operated, Readiness, ReloadReport
from gateway.process.build import is_compiled
from gateway.process.channel import MAX_CONTENT
from gateway.process.configuration import load
from gateway.process.dry_run import compare
from gateway.process.fleet import Workers
from gateway.process.version import Configuration
from gateway.runtime import clock
from gateway.runtime.moments import rfc3339
from gateway.runtime.tasks import repeat, spawn, unless, wait_at_most
from gateway.telemetry import Metrics, configure_logging
from gateway.telemetry.exposition import render
from gateway.telemetry.logs import LineSink
from gateway.telemetry.metrics import merge

HOUSEKEEPING_MS = 10_000

_log = structlog.get_logger(__name__)


def run(path: Path) -> int:
    """Run the gateway in the foreground until SIGTERM or SIGINT drain it; SIGHUP reloads.

    :returns: exit status: 0 after a drain, 1 if it could not start, with the reason on standard error
    """
    descriptors.raise_limit()
    try:
        asyncio.run(_run(path))
    except GerbangError as error:
        for line in _lines(error):
            print(f"gerbang: {line}", file=sys.stderr)  # noqa: T201 - for a person who has just typed a command
        return 1
    return 0


def _lines(error: GerbangError) -> list[str]:
    """One line for each problem."""
    if not isinstance(error, ConfigError):
        return str(error).splitlines()
    return [": ".join(part for part in (error.source, problem.path, problem.message) if part) for problem in error.problems]


async def _run(path: Path) -> None:
    configuration = load(path)
    configure_logging(configuration.settings.telemetry.log_level, service="gateway")
    ring = _key_ring(configuration)
    signing = ring.refresh(clock.now_ms())
    address = configuration.settings.listen
    public = listen(address.public, where="listen.public", count=address.workers)
    try:
        (ops,) = listen(address.ops, where="listen.ops")
        await Supervisor(path, configuration, ring, signing, public).run(ops)
    finally:
        for listening in public:
            listening.close()


class Supervisor(Operated):
    """See the module."""

    def __init__(self, path: Path, configuration: Configuration, ring: KeyRing, signing: SigningKey, public: list[socket.socket]) -> None:
        self._path = path
        self._ring = ring
        self._public = public
        self._metrics = Metrics()
        self._metrics.compiled = int(is_compiled())
        self._metrics.probes.append(lambda metrics: setattr(metrics, "log_lines_dropped", LineSink.dropped))
        self._workers = Workers(public, configuration, signing, self._metrics)
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._note_version(clock.now_ms())

    async def run(self, ops: socket.socket) -> None:
        """Serve until stopped. Takes over the ops socket.

        :raises WorkerFailed: a worker could not start; nothing is left running
        """
        self._watch_signals()
        address = _address_of(ops)
        async with serving(self, ops):
            housekeeping = repeat(self._housekeeping, name="housekeeping")
            try:
                if await unless(self._stopping, self._start()):
                    _log.info(
                        "ready",
                        public=_address_of(self._public[0]),
                        ops=address,
                        version=self._workers.configuration.version,
                        compiled=is_compiled(),
                    )
                    await self._stopping.wait()
                    await self._drain()
            finally:
                housekeeping.cancel()
                await self._workers.stop()
        _log.info("stopped")

    async def _start(self) -> bool:
        await self._workers.start()
        return True

    async def _drain(self) -> None:
        settings = self._workers.configuration.settings.listen
        if settings.shutdown_delay_ms:
            _log.info("leaving", delay_ms=settings.shutdown_delay_ms)
            await wait_at_most(self._stop_now, settings.shutdown_delay_ms)
        limit_ms = settings.drain_timeout_ms
        _log.info("draining", limit_ms=limit_ms)
        for listening in self._public:
            listening.close()  # each worker's copy listens until the worker drains
        await self._workers.drain(limit_ms, self._stop_now)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self._stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(self.reload(), name="reload"))

    def _stop(self) -> None:
        """The first signal drains, the second ends the delay and the drain."""
        if self._stopping.is_set():
            self._stop_now.set()
        self._stopping.set()

    async def _housekeeping(self) -> None:
        """Rotate the signing key when due, and save the workers' counts in case one ends."""
        await asyncio.sleep(HOUSEKEEPING_MS / 1000)
        await self._workers.snapshots()
        self._workers.kill_unresponsive(clock.monotonic_ms())
        async with self._workers.changing:
            try:
                signing = self._ring.refresh(clock.now_ms())
            except SigningKeysUnusable as error:
                _log.error("signing_keys_unusable", reason=str(error))
                return
            if signing.kid != self._workers.signing.kid:
                await self._workers.sign_with(signing)
                _log.info("signing_key_rotated", kid=signing.kid)

    # -- gateway.ops.report.Operated

    async def reload(self) -> ReloadReport:
        async with self._workers.changing:
            report = await self._reload()
        self._metrics.reloads[report.outcome] += 1
        (_log.warning if report.outcome == "refused" else _log.info)(
            "reload",
            outcome=report.outcome,
            version=report.version,
            previous=report.previous,
            changes=[change._asdict() for change in report.changes],
            problems=[problem._asdict() for problem in report.problems],
        )
        return report

    async def dry_run(self) -> ReloadReport:
        before = self._workers.configuration
        report, after = self._read_file(before)
        if after is None or report.outcome == "unchanged":
            return report
        traffic = compare(before, after, await self._workers.recent(), clock.now_ms())
        return report._replace(outcome="would_apply", version=after.version, traffic=traffic)

    def _read_file(self, before: Configuration) -> tuple[ReloadReport, Configuration | None]:
        """Read the file. Returns a report of its changes or errors, and the configuration if it can be applied."""
        refused = ReloadReport("refused", before.version, before.version, (), ())
        try:
            after = load(self._path)
        except ConfigError as error:
            return refused._replace(problems=tuple(error.problems)), None
        found = changes(before.settings, after.settings)
        refused = refused._replace(changes=tuple(found))
        if fixed := needs_restart(found):
            return refused._replace(problems=tuple(ConfigProblem(path, "cannot change without a restart") for path in fixed)), None
        return (refused._replace(outcome="unchanged") if after.version == before.version else refused), after

    async def _reload(self) -> ReloadReport:
        before = self._workers.configuration
        refused, after = self._read_file(before)
        if after is None or refused.outcome == "unchanged":
            return refused
        ring, signing = self._ring, self._workers.signing
        if after.settings.assertion != before.settings.assertion:
            ring = _key_ring(after, earlier=self._ring)
            try:
                signing = ring.refresh(clock.now_ms())
            except SigningKeysUnusable as error:
                return refused._replace(problems=(ConfigProblem("assertion.keys", str(error)),))
        if failures := await self._workers.prepare(after):
            return refused._replace(problems=tuple(ConfigProblem("", failure) for failure in failures))
        await self._apply(after, ring, signing)
        return refused._replace(outcome="applied", version=after.version)

    async def _apply(self, after: Configuration, ring: KeyRing, signing: SigningKey) -> None:
        self._ring = ring  # new keys are published before they sign
        await self._workers.commit(after)
        if signing is not self._workers.signing:
            await self._workers.sign_with(signing)
        configure_logging(after.settings.telemetry.log_level, service="gateway")
        self._note_version(clock.now_ms())

    async def readiness(self) -> Readiness:
        states = await self._workers.states()
        missing = [f"worker {state['worker']}: {reason}" for state in states for reason in state["missing"]]
        if self._stopping.is_set():
            missing.insert(0, "shutting down")
        degraded = dict.fromkeys(reason for state in states for reason in state["degraded"])
        return Readiness(tuple(missing), tuple(degraded), tuple(states))

    async def metrics(self) -> bytes:
        snapshots = await self._workers.snapshots()
        return render([self._metrics.snapshot(), *snapshots])

    def max_body_bytes(self) -> int:
        return min(self._workers.configuration.settings.limits.max_body_bytes, MAX_CONTENT)

    async def decide(self, check: CheckRequest) -> Verdict:
        return await self._workers.decide(check)

    def undecided(self, refusal: Refusal) -> Verdict:
        if self._workers.configuration.settings.auth.enforce != "shadow":
            return refused(refusal)
        self._metrics.shadow_decisions["", refusal.code] += 1
        _log.info("shadow_refused", outcome=refusal.code, status=refusal.status, reason=refusal.reason)
        return shadow_allowed(refusal)

    async def shadow(self) -> dict[str, Any]:
        counted = merge([self._metrics.snapshot(), *await self._workers.snapshots()])["shadow_decisions"]
        decisions = [{"route": route, "outcome": outcome, "count": round(count)} for (route, outcome), (count,) in counted]
        decisions.sort(key=itemgetter("count"), reverse=True)
        return {"enforce": self._workers.configuration.settings.auth.enforce, "decisions": decisions}

    def configuration(self) -> dict[str, Any]:
        configuration = self._workers.configuration
        return {
            "version": configuration.version,
            "compiled": is_compiled(),
            "loaded_at": rfc3339(self._metrics.config_loaded_ms),
            "settings": shown(configuration.settings),
        }

    def jwks(self) -> dict[str, Any]:
        return self._ring.jwks()

    def _note_version(self, now_ms: int) -> None:
        self._metrics.config.clear()
        self._metrics.config[self._workers.configuration.version] = 1
        self._metrics.config_loaded_ms = now_ms
        self._metrics.certificate_end = end_or_zero(self._workers.configuration.settings.listen.tls) // 1000


def _address_of(listening: socket.socket) -> str:
    return str(Address(*listening.getsockname()[:2]))


def _key_ring(configuration: Configuration, *, earlier: KeyRing | None = None) -> KeyRing:
    assertion = configuration.settings.assertion
    return KeyRing(assertion.keys, rotate_after_ms=assertion.rotate_after_ms, earlier=earlier)
