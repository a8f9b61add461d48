"""A worker process, as managed by the parent: its listening socket, channel, and restart back-off."""

import asyncio
import socket
import sys
from typing import Any

from gateway.process.channel import Caller, Frames, WorkerFailed
from gateway.runtime import clock
from gateway.telemetry import Snapshot, merge

HEALTHY_MS = 10_000
"""A worker that ran for this long is restarted at once when it ends."""
BACK_OFF_MS = (0, 200, 500, 1_000, 2_000, 5_000)
"""Delays before the next restarts of a worker that keeps ending early."""


class BackOff:
    """How long to wait before restarting a worker. Pure: time is an argument."""

    def __init__(self) -> None:
        self._early_deaths = 0

    def after(self, lived_ms: int) -> int:
        """Milliseconds to wait before restarting a worker that ran for this long."""
        if lived_ms >= HEALTHY_MS:
            self._early_deaths = 0
        delay_ms = BACK_OFF_MS[min(self._early_deaths, len(BACK_OFF_MS) - 1)]
        self._early_deaths += 1
        return delay_ms


class WorkerProcess:
    """A child process that serves one listening socket.

    The parent keeps the socket open, so that connections in its backlog are served by the next child if this one ends.
    """

    def __init__(self, number: int, listening: socket.socket) -> None:
        self.number = number
        self.ready = False
        """Whether it accepts connections."""
        self.started_ms = 0
        self.last_message_ms = 0
        """When it last answered, in monotonic milliseconds."""
        self.back_off = BackOff()
        self._listening = listening
        self._process: asyncio.subprocess.Process | None = None
        self._caller: Caller | None = None
        self._retired: Snapshot = {}
        self._last: Snapshot = {}

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    async def spawn(self, now_ms: int) -> None:
        """Start the child as a new process, not a fork, which shares only two sockets with the parent."""
        self.started_ms = now_ms  # first: a start that fails counts as an early end, however long the one before it lived
        control, inherited = socket.socketpair()
        # -P: do not import from the current directory.
        command = (sys.executable, "-P", "-m", "gateway.process.worker", str(inherited.fileno()), str(self._listening.fileno()))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(inherited.fileno(), self._listening.fileno()),
                process_group=0,  # only the parent receives Ctrl-C; it drains the workers
            )
        except BaseException:
            control.close()
            raise
        finally:
            inherited.close()
        self._caller = Caller(await Frames.over(control))

    async def call(self, do: str, *, timeout_ms: int, **values: Any) -> Any:
        """See :meth:`gateway.process.channel.Caller.call`; failures name the worker.

        :raises WorkerFailed: …
        """
        if self._caller is None:
            raise WorkerFailed(f"{self.name} is not running")
        try:
            answered = await self._caller.call(do, timeout_ms=timeout_ms, **values)
        except WorkerFailed as error:
            raise WorkerFailed(f"{self.name}: {error}") from None
        self.last_message_ms = clock.monotonic_ms()
        return answered

    async def snapshot(self) -> Snapshot:
        """Its metrics, plus the counts of its predecessors. If it does not answer, its last known ones."""
        try:
            self._last = await self.call("metrics", timeout_ms=2_000)
        except WorkerFailed:
            if not self.ready:
                self._last = merge([self._last], counters_only=True)
        return merge([self._retired, self._last])

    async def wait(self) -> int:
        """Wait until the child has ended. Returns its exit status (negative: the signal that ended it)."""
        if self._process is None:
            return 0
        status = await self._process.wait()
        self.ready = False
        self._retired = merge([self._retired, self._last], counters_only=True)
        self._last = {}
        if self._caller is not None:
            await self._caller.close()
            self._caller = None
        return status

    async def hang_up(self, *, within_ms: int) -> None:
        """Close the channel, which ends the child; kill it if it does not end."""
        if self._caller is not None:
            await self._caller.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(within_ms / 1000):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
