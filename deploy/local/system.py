"""Starts all parts of the local stack in order, waits until each is ready, and stops them in reverse order."""

import asyncio
import contextlib
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from deploy.client import Unanswered, ask
from deploy.local import demo_key
from deploy.local.files import write_private
from deploy.local.folder import DataFolder, Ports
from deploy.local.postgres import PostgresServer
from deploy.local.process import Child, StartError
from deploy.local.redis import RedisServer

DATABASE = "gerbang"
_READY_S = 90
_NAMES = {
    "gateway": "the gateway",
    "ops": "the gateway's ops port",
    "admin": "the admin service",
    "identity": "the demo identity provider",
    "exchange": "the demo exchange",
    "internal": "the internal API",
    "mailbox": "the mailbox",
    "smtp": "the mailbox's mail server",
}


class System:
    """PostgreSQL, Redis, demo identity provider, demo exchange, admin, gateway."""

    def __init__(self, folder: DataFolder, ports: Ports) -> None:
        self._folder = folder
        self._ports = ports
        self._postgres = PostgresServer(folder.path / "postgres")
        self._redis = RedisServer(folder.path / "redis")
        self._services: list[Child] = []

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._ports.gateway}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self._ports.admin}"

    @property
    def mailbox_url(self) -> str:
        return f"http://127.0.0.1:{self._ports.mailbox}"

    def await_free_ports(self, patience_s: float) -> None:
        """:raises StartError: one is busy, and still so after that time; names it"""
        deadline = time.monotonic() + patience_s
        for name, port in self._ports._asdict().items():
            while (problem := _port_problem(port)) is not None:
                if time.monotonic() >= deadline:
                    first = self._ports.gateway
                    raise StartError(f"port {port} for {_NAMES[name]} cannot be used: {problem}; choose others with --port (now {first})")
                time.sleep(0.05)

    def start(self, *, patience_s: float) -> None:
        """Start everything, and return when all of it answers.

        :param patience_s: how long to wait for a busy port, since processes of a killed run may still be ending
        :raises StartError: parts may still be running; :meth:`stop` ends them
        """
        self.await_free_ports(patience_s)
        existed = (self._postgres.data / "PG_VERSION").exists()
        identity_url = f"http://127.0.0.1:{self._ports.identity}"
        jwks_url = f"http://127.0.0.1:{self._ports.ops}/.well-known/jwks.json"
        self._folder.write_secrets(
            database_exists=existed,
            stores={
                "postgres-gateway": self._postgres.dsn(DATABASE, "gerbang_gateway"),
                "postgres-admin": self._postgres.dsn(DATABASE, "gerbang_admin"),
                "postgres-owner": self._postgres.dsn(DATABASE),
                "redis": self._redis.url,
            },
        )
        self._folder.write_configurations(self._ports)
        self._serve("identity", "deploy.local.identity_provider", f"--port={self._ports.identity}", f"--key={self._key}")
        self._serve("exchange", "deploy.local.exchange.app", f"--port={self._ports.exchange}", f"--jwks={jwks_url}")
        secret = f"--secret={self._folder.secret('webhook-secret')}"
        self._serve("mailbox", "deploy.local.mailbox", f"--port={self._ports.mailbox}", f"--smtp={self._ports.smtp}", secret)
        self._redis.start()
        self._postgres.start()
        schema, noted = _schema_digest(), self._folder.path / "schema"
        migrated = existed and noted.exists() and noted.read_text() == schema
        if not migrated:
            self._prepare_database()
        self._serve("admin", "deploy.cli", "admin", f"--config={self._folder.admin_config}")
        self._serve("gateway", "deploy.cli", "gateway", f"--config={self._folder.gateway_config}")
        if migrated:  # usually there is nothing to do: check while the services start
            self._prepare_database()
        write_private(noted, schema)
        self._await_answers(identity_url)
        if not self._folder.demo_key.exists():
            demo_key.make(self._folder, identity_url=identity_url, admin_url=self.admin_url)

    def stop(self) -> None:
        """End everything, in reverse order of dependency."""
        for child in reversed(self._services):
            child.terminate()
        for child in reversed(self._services):
            child.stop()
        self._redis.stop()
        self._postgres.stop()

    def ended(self) -> Iterator[tuple[str, str]]:
        """Each part that has ended by itself: its name and the last line of its log."""
        for child in self._services:
            if not child.running():
                yield _NAMES[child.name], f"status {child.wait()}: {child.last_words()}"
        for name, server in (("PostgreSQL", self._postgres), ("Redis", self._redis)):
            if not server.running():
                yield name, f"its log is {server.log}"

    @property
    def _key(self) -> str:
        return str(self._folder.secret("identity-provider.pem"))

    def _serve(self, name: str, module: str, *arguments: str) -> None:
        # -P: do not import from the current folder.
        self._services.append(Child(name, [sys.executable, "-P", "-m", module, *arguments], log=self._folder.log(name)))
        self._services[-1].start()

    def _prepare_database(self) -> None:
        from gateway.keys.migrate import upgrade  # noqa: PLC0415  # half a second of imports, spent while the services start

        asyncio.run(_create_database(self._postgres.dsn()))
        upgrade(self._postgres.dsn(DATABASE))

    def _await_answers(self, identity_url: str) -> None:
        urls = {
            "identity": [f"{identity_url}/health"],
            "exchange": [f"http://127.0.0.1:{self._ports.exchange}/health"],
            "mailbox": [f"{self.mailbox_url}/health"],
            "admin": [f"{self.admin_url}/openapi.json"],
            "gateway": [f"http://127.0.0.1:{self._ports.ops}/ready", f"{self.gateway_url}/v1/markets/BTC-IDR/summary"],
        }
        deadline = time.monotonic() + _READY_S
        for name, needed in urls.items():
            while not all(map(_answers, needed)):
                for part, words in self.ended():
                    raise StartError(f"{part} has ended ({words})")
                if time.monotonic() > deadline:
                    raise StartError(f"{_NAMES[name]} does not answer after {_READY_S} s; the logs are in {self._folder.path / 'logs'}")
                time.sleep(0.03)


def _schema_digest() -> str:
    """A digest of all migrations, to detect new ones."""
    steps = sorted((Path(str(files("gateway.keys"))) / "migrations" / "versions").glob("*.py"))
    return hashlib.sha256(b"".join(step.read_bytes() for step in steps)).hexdigest()


async def _create_database(dsn: str) -> None:
    import asyncpg  # noqa: PLC0415  # see _prepare_database

    connection = await asyncpg.connect(dsn)
    try:
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
    finally:
        await connection.close()


def _port_problem(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None


def _answers(url: str) -> bool:
    with contextlib.suppress(Unanswered):
        return ask("GET", url, seconds=2).status == 200
    return False
