"""A real gateway: parent, workers and ops port as processes, watched by what it logs."""

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import aiohttp

from tests.support import wheel

PATIENCE = 60
"""Seconds to wait for what must happen; only a broken gateway uses them up."""
_RUN = "import pathlib, sys; from gateway.process.supervisor import run; sys.exit(run(pathlib.Path(sys.argv[1])))"


class RunningGateway:
    """One gateway, started from a configuration file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[dict[str, Any]] = []
        """Every line it logged; what is not JSON stands under ``text``."""
        self.public = self.ops = ("", 0)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._more = asyncio.Condition()
        self._session: aiohttp.ClientSession | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *, environment: dict[str, str] | None = None, log: IO[bytes] | None = None, program: Path | None = None) -> None:
        """Start it and read its log, without waiting for anything.

        :param log: where it logs to instead; then nothing is read, and :meth:`serving` waits for it
        """
        command = (str(program or wheel.program("python")), "-P", "-c", _RUN, str(self.path))
        self._process = await asyncio.create_subprocess_exec(
            *command, stderr=log or asyncio.subprocess.PIPE, env={**os.environ, **(environment or {})}
        )
        if log is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        self._session = aiohttp.ClientSession()

    async def ready(self) -> None:
        """Wait until it serves."""
        told = await self.event("ready")
        self.public, self.ops = (_address(told[name]) for name in ("public", "ops"))

    async def serving(self, public: int, ops: int) -> None:
        """Wait until it serves on ports of the loopback that its configuration names: what it does when nobody reads its log."""
        self.public, self.ops = ("127.0.0.1", public), ("127.0.0.1", ops)
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    if (await self.ask("GET", "/ready"))[0] == 200:
                        return
                await asyncio.sleep(0.02)

    async def event(self, name: str, *, after: int = 0, **values: Any) -> dict[str, Any]:
        """Wait for a line of the log.

        :param after: number of lines to leave out
        """

        def found() -> dict[str, Any] | None:
            for line in self.log[after:]:
                if line.get("event") == name and values.items() <= line.items():
                    return line
            return None

        await self.until(lambda: found() is not None, f"{name} {values}")
        line = found()
        assert line is not None
        return line

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until what was logged makes something true."""
        async with asyncio.timeout(PATIENCE), self._more:
            while not true():
                assert self._reading is not None
                assert not self._reading.done(), f"the gateway ended before: {what}\n{self.told()}"
                await self._more.wait()

    def told(self) -> str:
        """The log as text, for a failure's message."""
        return "\n".join(json.dumps(line) for line in self.log)

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        """One call to the ops port: status, and JSON or text."""
        assert self._session is not None
        async with self._session.request(method, f"http://{self.ops[0]}:{self.ops[1]}{path}") as response:
            text = await response.text()
            return response.status, json.loads(text) if "json" in response.content_type else text

    async def metric(self, sample: str) -> float:
        """One sample of ``/metrics``, e.g. ``gerbang_reloads_total{outcome="applied"}``; 0 when it is not there."""
        _status, text = await self.ask("GET", "/metrics")
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == sample]
        return float(values[0]) if values else 0.0

    async def worker_pids(self) -> list[int]:
        """Process ids of the workers, by their number."""
        _status, ready = await self.ask("GET", "/ready")
        return [worker["pid"] for worker in ready["workers"]]

    def leave_log(self) -> None:
        """Take the other end of its log away: every line fails from now on, as on a full disk."""
        assert self._process is not None
        pipe = self._process._transport.get_pipe_transport(2)  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio has no other way
        assert pipe is not None
        pipe.close()

    def signal(self, number: signal.Signals) -> None:
        """Send the parent a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            status = await self._process.wait()
            if self._reading is not None:
                await self._reading
        return status

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._session is not None:
            await self._session.close()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            async with self._more:
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.log.append({"text": line.decode(errors="replace").rstrip("\n")})
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def running(
    path: Path, *, environment: dict[str, str] | None = None, program: Path | None = None, descriptors: int | None = None
) -> AsyncIterator[RunningGateway]:
    """A gateway that serves; killed at the end if it still runs.

    :param program: the Python of another environment than the wheel's
    :param descriptors: how many each of its processes may have, if not as many as this one
    """
    gateway = RunningGateway(path)
    await gateway.start(environment=environment, program=program)
    if descriptors is not None:
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))  # it looks once it has imported its modules
    try:
        await gateway.ready()
        yield gateway
    finally:
        await gateway.close()


def configuration(
    *,
    postgres: str,
    redis: str,
    vault: str,
    upstreams: dict[str, str],
    routes: str,
    workers: int = 1,
    more: str = "",
    of_upstreams: str = "",
) -> str:
    """The text of a configuration on free ports of the loopback.

    :param upstreams: server URL by name
    :param routes: lines ``METHOD /path scope upstream``
    :param more: further TOML: whole tables
    :param of_upstreams: further lines of every upstream
    """
    lines = [
        f'[listen]\npublic = "127.0.0.1:0"\nops = "127.0.0.1:0"\nworkers = {workers}\ndrain_timeout_ms = 5000',
        f'[stores]\npostgres = "{postgres}"\nredis = "{redis}"',
        f'[vault]\nkeys = "{vault}"',
        more,
        *(f'[upstreams.{name}]\nservers = ["{url}"]\n{of_upstreams}' for name, url in upstreams.items()),
    ]
    for line in routes.strip().splitlines():
        method, path, scope, upstream = line.split()
        lines.append(f'[[routes]]\nmatch = "{method} {path}"\nscope = "{scope}"\nupstream = "{upstream}"')
    return "\n".join(lines) + "\n"
