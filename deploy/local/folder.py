"""The data directory of ``gerbang up``: its lock, secrets, and the two configuration files."""

import base64
import contextlib
import fcntl
import json
import os
import secrets
import tomllib
from pathlib import Path
from string import Template
from typing import NamedTuple

from deploy.local.files import write_private
from deploy.local.process import StartError
from gateway.keys.vault import new_entry

_TEMPLATES = Path(__file__).with_name("templates")
_SINCE = {
    "gateway.toml": ("gateway", '\n# The URL that a refusal\'s "type" points to.\n[gateway]\ndocs_url = "http://localhost:$admin/docs"\n'),
    "admin.toml": ("docs", '\n# The guide for developers.\n[docs]\ngateway_config = "$folder/gateway.toml"\n'),
}
"""Sections that earlier versions did not write; added once to their configurations."""


class Ports(NamedTuple):
    """The ports on 127.0.0.1."""

    gateway: int
    ops: int
    admin: int
    identity: int
    exchange: int
    internal: int
    mailbox: int
    smtp: int

    @classmethod
    def after(cls, first: int) -> "Ports":
        return cls(first, first + 1, first + 10, first + 11, first + 12, first + 13, first + 2, first + 3)


class DataFolder:
    """The data folder, locked by one ``gerbang up`` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def hold(self) -> bool:
        """Create the folder if necessary, and lock it until this process ends.

        :returns: whether the previous holder ended normally, instead of being killed
        :raises StartError: it cannot be used, or another instance uses it
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(f"the data folder {self.path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "?"
            raise StartError(f"the data folder {self.path} is used by another gerbang up (process {holder})") from None
        clean = not os.pread(self._lock, 32, 0)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        return clean

    def release(self) -> None:
        """Unlock the folder, after everything has ended."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def log(self, name: str) -> Path:
        """The path of a new log file; the previous run's is kept beside it."""
        path = self.path / "logs" / f"{name}.log"
        if path.exists():
            path.replace(path.with_name(f"{name}.previous.log"))
        return path

    @property
    def demo_key(self) -> Path:
        return self.path / "demo-key.json"

    @property
    def gateway_config(self) -> Path:
        return self.path / "gateway.toml"

    @property
    def admin_config(self) -> Path:
        return self.path / "admin.toml"

    def secret(self, name: str) -> Path:
        return self.path / "secrets" / name

    def write_secrets(self, *, database_exists: bool, stores: dict[str, str]) -> None:
        """Create missing secrets, and write the stores' current addresses.

        :param stores: file name to DSN or URL; written at each start, since the folder may have been moved
        :raises StartError: the vault's keys are missing although there is a database, whose secrets could not be opened
        """
        vault = self.secret("vault-keys")
        if not vault.exists():
            if database_exists:
                raise StartError(f"{vault} is missing, and no key in the database can be used without it: restore it")
            write_private(vault, new_entry("first") + "\n")
        if not self.secret("internal-token").exists():
            write_private(self.secret("internal-token"), secrets.token_urlsafe(32) + "\n")
        if not self.secret("webhook-secret").exists():
            write_private(self.secret("webhook-secret"), f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
        for name, value in stores.items():
            write_private(self.secret(name), value + "\n")

    def write_configurations(self, ports: Ports) -> None:
        """Write both configurations on the first start; later only update a changed port or folder, or add new sections."""
        state = self.path / "state.json"
        now = {"port": ports.gateway, "folder": str(self.path), "docs": True}
        for path in (self.gateway_config, self.admin_config):
            if not path.exists():
                self._write(path, (_TEMPLATES / path.name).read_text(), ports)
            elif (then := _state(state)) and then != now:
                self._update(path, then, ports)
                section, text = _SINCE[path.name]
                if "docs" not in then and section not in tomllib.loads(path.read_text()):
                    self._write(path, path.read_text().replace("$", "$$") + text, ports)
        write_private(state, json.dumps(now))

    def _write(self, path: Path, template: str, ports: Ports) -> None:
        values = {"folder": json.dumps(str(self.path))[1:-1]} | {name: str(port) for name, port in ports._asdict().items()}
        write_private(path, Template(template).substitute(values))

    def _update(self, path: Path, then: dict[str, object], ports: Ports) -> None:
        """Replace the addresses and the folder that an earlier start wrote; everything else is the user's to edit."""
        text = path.read_text()
        for old, new in zip(Ports.after(int(str(then["port"]))), ports, strict=True):
            for host in ("127.0.0.1", "localhost"):
                text = text.replace(f"{host}:{old}", f"{host}:new-{new}")
        text = text.replace(":new-", ":")
        write_private(path, text.replace(str(then["folder"]), str(self.path)))


def _state(path: Path) -> dict[str, object] | None:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and isinstance(found.get("port"), int) and isinstance(found.get("folder"), str):
            return found
    return None
