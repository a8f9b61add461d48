"""Manages all workers of a gateway: starts and restarts them, reconfigures all or none, drains them."""

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from gateway.admission.verdict import CheckRequest, Verdict
from gateway.assertion import SigningKey
from gateway.errors import Overloaded
from gateway.process.build import code_stamp
from gateway.process.channel import WorkerFailed
from gateway.process.child import WorkerProcess
from gateway.process.version import Configuration
from gateway.runtime import clock
from gateway.runtime.tasks import repeat, unless
from gateway.telemetry import Metrics, Snapshot

START_MS = 30_000
"""A worker that is not ready within this time is restarted."""
PREPARE_MS = 3_000
COMMIT_MS = 2_000
STATUS_MS = 1_500
DECIDE_MS = 5_000
SILENT_MS = 30_000
"""A worker that does not answer for this long is killed. The parent queries it every ten seconds."""
EXIT_MS = 3_000
"""Time from the end of draining to the end of the process."""

_log = structlog.get_logger(__name__)


class Workers:
    """See the module.

    :param public: one listening socket per worker
    :param configuration: the configuration in force; changed by :meth:`commit` alone
    """

    def __init__(self, public: list[socket.socket], configuration: Configuration, signing: SigningKey, metrics: Metrics) -> None:
        self.configuration = configuration
        self.signing = signing
        self.changing = asyncio.Lock()
        """Held while a worker starts and during every change, so that a new worker always has the configuration in force."""
        self._workers = [WorkerProcess(number, listening) for number, listening in enumerate(public)]
        self._keeping: list[asyncio.Task[None]] = []
        self._metrics = metrics
        self._turn = 0
        self._code = code_stamp()

    # -- life

    async def start(self) -> None:
        """Start all workers for the first time.

        :raises WorkerFailed: the first error of a worker that cannot serve
        """
        async with self.changing:
            outcomes = await asyncio.gather(*(self._start(worker, require_stores=True) for worker in self._workers), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        self._keeping = [repeat(partial(self._keep, worker), name=f"keep {worker.name}") for worker in self._workers]

    async def _start(self, worker: WorkerProcess, *, require_stores: bool) -> None:
        """Start one worker with the configuration in force.

        :param require_stores: whether to fail if a store cannot be reached
        """
        await worker.spawn(clock.monotonic_ms())
        orders = {**_orders(self.configuration), "signing": _wire(self.signing)}
        await worker.call("start", timeout_ms=START_MS, worker=worker.number, require_stores=require_stores, **orders)
        await worker.call("serve", timeout_ms=STATUS_MS)
        worker.ready = True

    async def _keep(self, worker: WorkerProcess) -> None:
        """Restart the worker whenever it ends."""
        status = await worker.wait()
        delay_ms = worker.back_off.after(clock.monotonic_ms() - worker.started_ms)
        _log.error("worker_died", worker=worker.number, status=status, restart_in_ms=delay_ms)
        await asyncio.sleep(delay_ms / 1000)
        async with self.changing:
            self._metrics.worker_restarts += 1
            try:
                await self._start(worker, require_stores=False)
                _log.info("worker_restarted", worker=worker.number)
            except Exception as error:
                worker.kill()  # otherwise it would stay, without serving and unobserved
                if not isinstance(error, WorkerFailed | OSError):
                    raise
                # A worker is a new process, which runs the code that is installed by now.
                changed = "" if code_stamp() == self._code else "; the code was replaced since this gateway started: restart the gateway"
                _log.error("worker_did_not_start", worker=worker.number, reason=f"{error}{changed}")

    def kill_unresponsive(self, now_ms: int) -> None:
        """Kill workers that have not answered for a long time: their clients would wait for ever, and a new worker can serve them."""
        for worker in self._serving():
            if now_ms - worker.last_message_ms > SILENT_MS:
                _log.error("worker_does_not_answer", worker=worker.number, since_ms=now_ms - worker.last_message_ms)
                worker.kill()

    async def drain(self, limit_ms: int, stop_now: asyncio.Event) -> None:
        """Drain all workers: no new connections; requests in flight finish within the limit, or are dropped when ``stop_now`` is set."""
        self._stop_keeping()

        async def drain_one(worker: WorkerProcess) -> None:
            with suppress(WorkerFailed):
                await worker.call("drain", timeout_ms=limit_ms + EXIT_MS, limit_ms=limit_ms)

        async def drain_all() -> None:
            await asyncio.gather(*map(drain_one, self._serving()))

        await unless(stop_now, drain_all())

    async def stop(self) -> None:
        """End every worker."""
        self._stop_keeping()
        await asyncio.gather(*(worker.hang_up(within_ms=EXIT_MS) for worker in self._workers))

    def _stop_keeping(self) -> None:
        for task in self._keeping:
            task.cancel()

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers if worker.ready]

    # -- changes, in all workers or none; the caller holds ``changing``

    async def prepare(self, after: Configuration) -> list[str]:
        """Have every serving worker prepare the new version. Returns the errors, if any: then all workers discard it."""
        failures = await self._ask("prepare", timeout_ms=PREPARE_MS, **_orders(after))
        if failures:
            await self._ask("abort", timeout_ms=STATUS_MS)
        return [str(failure) for failure in failures.values()]

    async def commit(self, after: Configuration) -> None:
        """Switch to the prepared version. A worker that fails is killed, and restarts with the new version."""
        self.configuration = after
        for worker, failure in (await self._ask("commit", timeout_ms=COMMIT_MS, version=after.version)).items():
            _log.error("worker_did_not_commit", worker=worker.number, reason=str(failure))
            worker.kill()

    async def sign_with(self, signing: SigningKey) -> None:
        """Sign with a new key in all workers. A worker that does not receive it keeps the old one, which stays published."""
        self.signing = signing
        for worker, failure in (await self._ask("sign", timeout_ms=STATUS_MS, signing=_wire(signing))).items():
            _log.warning("worker_kept_old_signing_key", worker=worker.number, reason=str(failure))

    async def _ask(self, do: str, *, timeout_ms: int, **values: Any) -> dict[WorkerProcess, BaseException]:
        """Call all serving workers concurrently. Returns the failures by worker."""
        serving = self._serving()
        outcomes = await asyncio.gather(*(worker.call(do, timeout_ms=timeout_ms, **values) for worker in serving), return_exceptions=True)
        return {worker: outcome for worker, outcome in zip(serving, outcomes, strict=True) if isinstance(outcome, BaseException)}

    # -- their state

    async def states(self) -> list[dict[str, Any]]:
        """The status of each worker: ``worker``, ``missing``, ``degraded`` and more."""
        return list(await asyncio.gather(*map(self._state_of, self._workers)))

    async def _state_of(self, worker: WorkerProcess) -> dict[str, Any]:
        state: dict[str, Any] = {"worker": worker.number, "missing": ["is starting"], "degraded": []}
        if not worker.ready:
            return state
        try:
            return {**state, **await worker.call("status", timeout_ms=STATUS_MS)}
        except WorkerFailed as error:
            return {**state, "missing": [str(error).removeprefix(f"{worker.name}: ")]}

    async def recent(self) -> list[dict[str, Any]]:
        """Each worker's recent decisions; a worker that does not answer is omitted."""
        asked = await asyncio.gather(*(worker.call("recent", timeout_ms=STATUS_MS) for worker in self._serving()), return_exceptions=True)
        return [answer for answer in asked if not isinstance(answer, BaseException)]

    async def decide(self, check: CheckRequest) -> Verdict:
        """Have the next worker in turn decide.

        :raises Overloaded: no worker answers
        """
        serving = self._serving()
        if not serving:
            raise Overloaded("no worker is ready")
        self._turn += 1
        try:
            return Verdict(*await serving[self._turn % len(serving)].call("decide", timeout_ms=DECIDE_MS, check=check))
        except WorkerFailed as error:
            raise Overloaded("no worker answers", reason=str(error)) from None

    async def snapshots(self) -> list[Snapshot]:
        """Each worker's metrics."""
        self._metrics.workers = len(self._serving())
        return list(await asyncio.gather(*(worker.snapshot() for worker in self._workers)))


def _orders(configuration: Configuration) -> dict[str, Any]:
    return {"settings": configuration.serialized, "version": configuration.version}


def _wire(signing: SigningKey) -> dict[str, Any]:
    """A signing key, for the private channel to a worker only."""
    return {"pem": signing.pem(), "created_ms": signing.created_ms}
