"""Child processes that end with their parent: start, stop, kill, freeze, thaw."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import GerbangError

_STOP_S = 10
_LAUNCH = Path(__file__).with_name("launch.py")


class StartError(GerbangError):
    """A part of the local stack did not start; ``str()`` is one line."""


class Child:
    """A running program whose output goes to a file.

    It has its own session, so that Ctrl-C in a terminal only reaches the parent, which then stops its children in order;
    if the parent is killed, the kernel sends ``death_signal`` (see ``launch.py``).
    """

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, death_signal: signal.Signals = signal.SIGKILL, user: str | None = None
    ) -> None:
        self.name = name
        self.log = log
        wrapped = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(int(death_signal)), user or "-", *command]
        with log.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(  # noqa: S603  # the stack's own programs
                wrapped, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        """What it has written to its log, without what earlier programs have."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """The last line of its output, for an error message."""
        lines = self.output().strip().splitlines()
        return lines[-1] if lines else f"{self.name} wrote nothing to {self.log}"

    def wait(self) -> int:
        """Wait for its end. Returns its exit status."""
        return self._process.wait()

    def send(self, number: signal.Signals) -> None:
        if self.running():
            self._process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM, without waiting."""
        self.send(signal.SIGTERM)

    def stop(self, *, signal_number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait; kill it if it has not ended after :data:`_STOP_S`. Returns its exit status."""
        self.send(signal.SIGCONT)
        self.send(signal_number)
        try:
            return self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it, with its whole process group."""
        self._send_group(signal.SIGKILL)
        return self._process.wait()

    def freeze(self) -> None:
        """Suspend its whole process group, to simulate a hanging server."""
        self._send_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send_group(signal.SIGCONT)

    def _send_group(self, number: signal.Signals) -> None:
        if self.running():
            os.killpg(self._process.pid, number)


class Server:
    """A server with its files in ``data`` and its log beside them.

    :param durable: False: the files need not survive a crash of the machine, as in tests
    """

    stop_signal = signal.SIGTERM
    """Ends it cleanly."""

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        self.data = data.resolve()
        self.durable = durable
        self._child: Child | None = None

    @property
    def log(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    def running(self) -> bool:
        return self._child is not None and self._child.running()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(signal_number=self.stop_signal)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
