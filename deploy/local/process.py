"""Child processes that end with their parent: start, stop, kill, freeze, thaw."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.errors import GerbangError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""They stop the local stack."""
_STOP_S = 10
_LAUNCH = Path(__file__).with_name("launch.py")


class StartError(GerbangError):
    """A part of the local stack did not start; ``str()`` is one line."""


class Child:
    """A program whose output goes to a file, running between :meth:`start` and its end.

    It has its own session, so that Ctrl-C in a terminal only reaches the parent, which then stops its children in order;
    if the parent is killed, the kernel sends ``death_signal`` (see ``launch.py``).
    """

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, death_signal: signal.Signals = signal.SIGKILL, user: str | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._command = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(int(death_signal)), user or "-", *command]
        self._begin = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it. Whoever stops it knows it before: a stop signal is handled once the process is known, or it would be left running."""
        with self.log.open("ab") as output, _stop_signals_wait():
            self._begin = output.tell()
            self._process = subprocess.Popen(  # noqa: S603  # the stack's own programs
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """What it has written to its log, without what earlier programs have."""
        with self.log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode(errors="replace")

    def last_words(self) -> str:
        """The last line of its output, for an error message."""
        lines = self.output().strip().splitlines()
        return lines[-1] if lines else f"{self.name} wrote nothing to {self.log}"

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end. Returns its exit status; 0 if it was not started.

        :raises subprocess.TimeoutExpired: it is still running after ``seconds``
        """
        return 0 if self._process is None else self._process.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self.running():
            self._process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM, without waiting."""
        self.send(signal.SIGTERM)

    def stop(self, *, signal_number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait; kill it if it has not ended after :data:`_STOP_S`. Returns its exit status."""
        self.send(signal.SIGCONT)
        self.send(signal_number)
        try:
            return self.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it, with its whole process group."""
        self._send_group(signal.SIGKILL)
        return self.wait()

    def freeze(self) -> None:
        """Suspend its whole process group, to simulate a hanging server."""
        self._send_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send_group(signal.SIGCONT)

    def _send_group(self, number: signal.Signals) -> None:
        if self._process is not None and self.running():
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def _stop_signals_wait() -> Iterator[None]:
    """Handlers of signals that stop the parent are called at the end of the block. Blocked signals would reach another thread."""
    come: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other one runs handlers
        before = {number: handler for number in STOP_SIGNALS if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, lambda number, _frame: come.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in come:
            signal.raise_signal(each)


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
