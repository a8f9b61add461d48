"""Entry point of a worker process: ``python -m gateway.process.worker CONTROL_FD LISTENING_FD``, started by the supervisor.

It runs :class:`gateway.process.app.App`, performs the parent's requests from the control channel, and ends when that closes.
"""

from gateway.process import lean  # isort: skip  # before all others

import asyncio
import ctypes
import gc
import signal
import socket
import sys
from typing import Any

import uvloop

from gateway.admission.verdict import CheckRequest, Verdict
from gateway.assertion import SigningKey
from gateway.errors import GerbangError
from gateway.net import descriptors
from gateway.process.app import App, Prepared
from gateway.process.channel import Frames, Message, answer
from gateway.process.version import Configuration
from gateway.telemetry import Snapshot, configure_logging

_PR_SET_PDEATHSIG = 1
_YOUNG_PER_MIDDLE = 2
"""Collections of the youngest generation for each of the middle one; Python's default is 10, and such a collection takes up to 5 ms."""
_MIDDLE_PER_FULL = 5_000
"""Collections of the middle generation for each full one; Python's default is 10. With 8,000 keys that meant seven full ones a minute."""


class NotPossible(GerbangError):
    """The parent's request is not valid in the current state."""


class Worker:
    """The requests of the parent: each verb of the channel is a method, its values are the keyword arguments."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._app: App | None = None
        self._prepared: Prepared | None = None

    async def handle(self, do: str, message: Message) -> object:
        """Perform a request.

        :raises GerbangError: it cannot be performed
        """
        return await getattr(self, do)(**{name: value for name, value in message.items() if name not in ("id", "do")})

    @property
    def app(self) -> App:
        """The application.

        :raises NotPossible: it is not started
        """
        if self._app is None:
            raise NotPossible("is not started")
        return self._app

    async def start(self, *, worker: int, settings: dict[str, Any], version: str, signing: dict[str, Any], require_stores: bool) -> None:
        """Prepare to serve; with ``require_stores``, fail if a store cannot be reached.

        :raises GerbangError: the configuration cannot be used, or a store cannot be reached
        """
        configuration = _received(settings, version)
        configure_logging(configuration.settings.telemetry.log_level, service="gateway", worker=worker)
        self._app = await App.create(configuration, signing=SigningKey.from_pem(**signing), worker=worker, require_stores=require_stores)

    async def serve(self) -> None:
        """Accept connections."""
        settle_memory()
        await self.app.serve(self._listening)

    async def prepare(self, *, settings: dict[str, Any], version: str) -> None:
        """Prepare a new version without using it.

        :raises ConfigError: it cannot be used here
        """
        await self.abort()
        self._prepared = self.app.prepare(_received(settings, version))

    async def commit(self, *, version: str) -> None:
        """Use the prepared version from the next request on.

        :raises NotPossible: this version is not prepared
        """
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared.configuration.version != version:
            raise NotPossible(f"has not prepared version {version}")
        self.app.commit(prepared)

    async def abort(self) -> None:
        """Discard the prepared version, if any."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self.app.discard(prepared)

    async def sign(self, *, signing: dict[str, Any]) -> None:
        """Sign assertions with this key from now on."""
        self.app.signer.use(SigningKey.from_pem(**signing))

    async def status(self) -> dict[str, Any]:
        """See :meth:`gateway.process.app.App.status`."""
        return await self.app.status()

    async def metrics(self) -> Snapshot:
        """Everything counted."""
        return self.app.metrics.snapshot()

    async def recent(self) -> dict[str, Any]:
        """Recent decisions."""
        return self.app.recent()

    async def decide(self, *, check: list[Any]) -> Verdict:
        """See :mod:`gateway.admission.verdict`."""
        return await self.app.decide(CheckRequest(*check))

    async def drain(self, *, limit_ms: int) -> None:
        """Accept no more connections, and finish requests in flight."""
        await self.app.drain(limit_ms)


def settle_memory() -> None:
    """Keep the garbage collector from scanning long-lived objects, which would pause all requests for tens of milliseconds.

    What exists now is permanent. Later it is mostly keys, and hardly anything is found among them: neither requests nor connections leave
    cycles behind.
    """
    gc.collect()
    gc.freeze()
    young, increment, _ = gc.get_threshold()
    # Since Python 3.14 the second one is for how many of the old objects an increment leaves to the next ones.
    gc.set_threshold(young, _YOUNG_PER_MIDDLE if sys.version_info < (3, 14) else increment, _MIDDLE_PER_FULL)


def _received(settings: dict[str, Any], version: str) -> Configuration:
    configuration = Configuration.received(settings)
    if configuration.version != version:
        # A certificate file was replaced after the parent had read it.
        raise NotPossible(f"read version {configuration.version} where the parent read {version}: a file is being changed, try again")
    return configuration


async def _serve(control: socket.socket, listening: socket.socket) -> None:
    worker = Worker(listening)
    await answer(await Frames.over(control), worker.handle)
    # The parent has closed the channel: it has drained this worker, or has died.


def main() -> None:
    """Serve until the parent closes the channel."""
    lean.allow_imports()
    _die_with_the_parent()
    descriptors.raise_limit()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the parent handles them; some service managers signal every process
    control, listening = (socket.socket(fileno=int(descriptor)) for descriptor in sys.argv[1:3])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(control, listening))


def _die_with_the_parent() -> None:
    """Ensure that even a hanging worker does not outlive a killed parent (prctl(2), Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
