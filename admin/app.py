"""The admin service as a process: start, reload on SIGHUP, graceful stop."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import structlog
import uvloop

from admin.config import AdminSettings, load_settings
from admin.service import Bound, CannotStart, serving
from gateway.config.changes import changes, needs_restart
from gateway.errors import ConfigError, ConfigProblem, GerbangError
from gateway.net import descriptors
from gateway.net.certificates import end_or_zero
from gateway.runtime.tasks import spawn, unless, wait_at_most
from gateway.telemetry import configure_logging

__all__ = ["CannotStart", "run", "serving"]

_log = structlog.get_logger(__name__)


def run(path: Path) -> int:
    """Run the service in the foreground until SIGTERM or SIGINT end it, after ``listen.shutdown_delay_ms``; SIGHUP reloads.

    :returns: exit status: 0 after a stop, 1 if it could not start, with the reason on standard error
    """
    descriptors.raise_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(path))
    except GerbangError as error:
        print(f"gerbang: {error}", file=sys.stderr)  # noqa: T201  # for a person who has just typed a command
        return 1
    return 0


async def _run(path: Path) -> None:
    settings = load_settings(path)
    configure_logging(settings.telemetry.log_level, service="admin")
    stopping, stop_now = _watch_stops()
    async with AsyncExitStack() as stack:
        bound = await unless(stopping, stack.enter_async_context(serving(settings, leaving=stopping)))
        if bound is None:
            return
        reloading = Reloading(path, settings, bound)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: spawn(reloading.reload(), name="reload"))
        _log.info("ready", public=str(bound.public), internal=str(bound.internal))
        await stopping.wait()
        if settings.listen.shutdown_delay_ms:
            _log.info("leaving", delay_ms=settings.listen.shutdown_delay_ms)
            await wait_at_most(stop_now, settings.listen.shutdown_delay_ms)
        _log.info("stopping")
        loop.add_signal_handler(signal.SIGHUP, _ignore)
        await reloading.finish()


def _watch_stops() -> tuple[asyncio.Event, asyncio.Event]:
    """Events set by the first and the second SIGTERM or SIGINT."""
    stopping, stop_now = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            stop_now.set()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, _ignore)
    return stopping, stop_now


def _ignore() -> None:
    """Ignores SIGHUP before a reload is possible: the default would end the process."""


class Reloading:
    """Reloads the file: applies everything except ``listen`` (but including its TLS), ``stores`` and ``vault``, or nothing."""

    def __init__(self, path: Path, settings: AdminSettings, bound: Bound) -> None:
        self._path = path
        self._settings = settings
        self._bound = bound
        self._one_at_a_time = asyncio.Lock()
        self._finished = False

    async def finish(self) -> None:
        """Wait for a reload in progress; later ones, whose signals have arrived before, are refused."""
        async with self._one_at_a_time:
            self._finished = True

    async def reload(self) -> Literal["applied", "unchanged", "refused"]:
        """Reload, and log what changed or why it was refused."""
        async with self._one_at_a_time:
            if self._finished:
                return "refused"
            try:
                after = load_settings(self._path)
                found = changes(self._settings, after)
                if stuck := needs_restart(found):
                    raise ConfigError([ConfigProblem(where, "cannot change without a restart") for where in stuck])
                await self._bound.swap(after)
            except ConfigError as error:
                self._bound.metrics.reloaded("refused")
                _log.warning("reload", outcome="refused", problems=[problem._asdict() for problem in error.problems])
                return "refused"
            self._settings = after
        configure_logging(after.telemetry.log_level, service="admin")
        outcome: Literal["applied", "unchanged"] = "applied" if found else "unchanged"
        self._bound.metrics.reloaded(outcome)
        ends = end_or_zero(after.listen.tls)
        _log.info("reload", outcome=outcome, changes=[change._asdict() for change in found], certificate_ends_ms=ends)
        return outcome
