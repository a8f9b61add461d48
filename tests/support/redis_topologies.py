"""Redis by Sentinel, by Cluster and behind TLS, as real processes on loopback, for tests. All of them end with the test."""

import asyncio
import contextlib
import datetime as dt
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.local.redis import server_binary
from tests.support.ports import free_port, free_row

SECONDS = 60
"""What a scenario waits for comes within so many; only a broken one uses them up."""


class RedisProcess:
    """One ``redis-server`` on a port of loopback."""

    def __init__(self, folder: Path, port: int, *options: str, sentinel: str = "") -> None:
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "redis.conf"
        configuration.write_text(sentinel)
        command = [str(server_binary()), str(configuration), *(["--sentinel"] if sentinel else [])]
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def command(self, *arguments: object) -> Any:
        """The answer as it came, not as redis-py would dress it up."""
        with redis.Redis(port=self.port, socket_timeout=5, protocol=2) as client:
            connection = client.connection_pool.get_connection()
            try:
                connection.send_command(*arguments)
                return connection.read_response()
            finally:
                client.connection_pool.release(connection)

    def ready(self) -> bool:
        with contextlib.suppress(redis.RedisError, OSError):
            return bool(self.command("PING"))
        return False

    def replicating(self) -> bool:
        return b"master_link_status:up" in self.command("INFO", "replication")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll, outside any event loop, until ``condition()`` holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


class SentinelTopology:
    """A primary, a replica, three Sentinels that fail over within a second or two."""

    SERVICE = "gerbang"

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(5)]
        self.primary = RedisProcess(folder / "primary", ports[0])
        self.replica = RedisProcess(folder / "replica", ports[1], "--replicaof", "127.0.0.1", str(ports[0]))
        watch = (
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {ports[0]} 2\nsentinel down-after-milliseconds {self.SERVICE} 500\n"
            f"sentinel failover-timeout {self.SERVICE} 3000\n"
        )
        self.sentinels = [RedisProcess(folder / f"sentinel{port}", port, sentinel=watch) for port in ports[2:]]
        self.processes = [self.primary, self.replica, *self.sentinels]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.SERVICE}"

    def settle(self) -> None:
        wait_for(lambda: all(process.ready() for process in self.processes), "Redis did not start")
        wait_for(self.replica.replicating, "no replication")
        wait_for(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels), "the Sentinels did not meet")

    def owner_of(self, _key: str) -> RedisProcess:
        """The primary in the beginning."""
        return self.primary

    def successor_of(self, _owner: RedisProcess) -> RedisProcess:
        return self.replica

    def has_taken_over(self, successor: RedisProcess) -> bool:
        """Whether a Sentinel announces it as the primary."""
        addresses = [sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE) for sentinel in self.sentinels]
        return any(int(port) == successor.port for _host, port in addresses)

    def _knows_all(self, sentinel: RedisProcess) -> bool:
        state = sentinel.command("SENTINEL", "MASTER", self.SERVICE)
        fields = dict(zip(state[::2], state[1::2], strict=True))
        return fields[b"num-other-sentinels"] == b"2" and fields[b"num-slaves"] == b"1"


NODES, BUS = 6, 10
"""Nodes of a Cluster, and how far its port for the others is from a node's own."""


class ClusterTopology:
    """Three primaries with a replica each."""

    def __init__(self, folder: Path) -> None:
        options: tuple[str, ...] = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000")
        options += ("--cluster-replica-validity-factor", "0")
        first = free_row()
        self.processes = [
            RedisProcess(folder / f"node{port}", port, *options, "--cluster-port", str(port + BUS)) for port in range(first, first + NODES)
        ]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{process.port}' for process in self.processes)}"

    def settle(self) -> None:
        wait_for(lambda: all(process.ready() for process in self.processes), "Redis did not start")
        primaries, replicas = self.processes[:3], self.processes[3:]
        for start, end, node in zip((0, 5461, 10923), (5460, 10922, 16383), primaries, strict=True):
            node.command("CLUSTER", "ADDSLOTS", *range(start, end + 1))
        for number, node in enumerate(self.processes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "MEET", "127.0.0.1", primaries[0].port, primaries[0].port + BUS)
        wait_for(lambda: all(b"cluster_known_nodes:6" in node.command("CLUSTER", "INFO") for node in self.processes), "no meeting")
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.command("CLUSTER", "REPLICATE", primary.command("CLUSTER", "MYID"))
        wait_for(lambda: all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.processes), "not whole")
        wait_for(lambda: all(node.replicating() for node in replicas), "no replication")

    def owner_of(self, key: str) -> RedisProcess:
        """The primary that held the slot of ``key`` in the beginning."""
        slot = self.processes[0].command("CLUSTER", "KEYSLOT", key)
        return self.processes[(slot > 5460) + (slot > 10922)]

    def successor_of(self, owner: RedisProcess) -> RedisProcess:
        return self.processes[self.processes.index(owner) + 3]

    def has_taken_over(self, successor: RedisProcess) -> bool:
        """Whether it was elected."""
        return b"role:master" in successor.command("INFO", "replication")


T = TypeVar("T", SentinelTopology, ClusterTopology)


@contextlib.contextmanager
def running(topology: T) -> Iterator[T]:
    """The topology, whole; its processes end with the block."""
    try:
        topology.settle()
        yield topology
    finally:
        for process in topology.processes:
            process.kill()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "redis.crt", folder / "redis.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return paths


@contextlib.asynccontextmanager
async def tls_in_front_of(unix_socket: Path, certificate: Path, key: Path) -> AsyncIterator[int]:
    """A port of loopback that speaks TLS and passes the bytes on to a Unix socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(unix_socket))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
