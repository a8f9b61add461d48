"""``gerbang up`` as a child of the tests: started, asked, stopped, killed, and searched for what it left behind."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.support import wheel

GERBANG = wheel.program("gerbang")
START_SECONDS = 120


class System:
    """One ``gerbang up``. Its processes are known by a mark in their environment, or by where they live.

    :param cwd: the folder that it is started in (default: that of the tests)
    """

    def __init__(self, folder: Path, port: int, *, cwd: Path | None = None) -> None:
        self.folder = folder
        self.port = port
        self._cwd = cwd
        self.mark = f"GERBANG_TEST_MARK={secrets.token_hex(8)}"
        self.output: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    gateway_url = property(lambda self: f"http://127.0.0.1:{self.port}")
    ops_url = property(lambda self: f"http://127.0.0.1:{self.port + 1}")
    admin_url = property(lambda self: f"http://127.0.0.1:{self.port + 10}")
    identity_url = property(lambda self: f"http://127.0.0.1:{self.port + 11}")
    exchange_url = property(lambda self: f"http://127.0.0.1:{self.port + 12}")
    internal_url = property(lambda self: f"http://127.0.0.1:{self.port + 13}")

    @property
    def demo_key(self) -> dict[str, str]:
        return json.loads((self.folder / "demo-key.json").read_text())

    @property
    def environment(self) -> dict[str, str]:
        name, value = self.mark.split("=")
        return os.environ | {name: value}

    def start(self) -> list[str]:
        """Start and wait for the ``ready:`` line; returns what was printed up to it."""
        command = [GERBANG, "up", "--data", self.folder, "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment, cwd=self._cwd
        )
        self.output = []
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready))
        self._reader.start()
        assert ready.wait(START_SECONDS), self.output
        assert any(line.startswith("ready: ") for line in self.output), self.output
        return self.output

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        for line in process.stdout:
            self.output.append(line.rstrip("\n"))
            if line.startswith("ready: "):
                ready.set()
        ready.set()  # it has ended without

    def says(self, words: str, *, seconds: float = 60) -> str:
        """The first line of its output that begins with ``words``, waited for."""
        deadline = time.monotonic() + seconds
        while True:
            for line in list(self.output):
                if line.startswith(words):
                    return line
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 90) -> int:
        """Send a signal and wait; returns the exit status."""
        self._process.send_signal(number)
        status = self._process.wait(seconds)
        self._reader.join()
        self._process.stdout.close()
        return status

    def processes(self) -> dict[int, str]:
        """Every living process of this system, whoever its parent is by now, by id, with its command line.

        PostgreSQL and Redis write their titles over their environment, but they live in their folders.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    marked = self.mark.encode() in (entry / "environ").read_bytes().split(b"\0")
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if command and (marked or self.folder in (entry / "cwd").readlink().parents):
                        found[int(entry.name)] = command
        return found

    def process(self, words: str) -> int:
        """The one process whose command line holds ``words``."""
        (pid,) = [pid for pid, command in self.processes().items() if words in command]
        return pid
