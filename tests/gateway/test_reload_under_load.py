"""Reload while clients send without a pause: nothing is lost, and every request is decided by one version alone.

Two versions differ in everything that decides a request: routes, the limit that an answer tells, and the server behind one name. A
mixture would show as an answer of one version's server with the other's limit, or from a route that this server's version does not have.
"""

import asyncio
import sys
from base64 import b64encode
from collections import Counter
from contextlib import suppress
from hmac import digest
from typing import ClassVar

import asyncpg
import pytest

from gateway import clock
from gateway.keys.vault import Vault, new_entry
from tests.support.keys import add_key
from tests.support.running import configuration, running

RELOADS = 200
CONNECTIONS = 16
VAULT = new_entry("k1")
LIMITS = {b"a": 100_000_000, b"b": 200_000_000}


class Named(asyncio.Protocol):
    """An upstream that answers every request with its name."""

    open: ClassVar[list[asyncio.Transport]] = []

    def __init__(self, name: bytes) -> None:
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name

    def connection_made(self, transport):
        self._transport = transport
        self.open.append(transport)

    def data_received(self, data):
        self._transport.write(self._answer * data.count(b"\r\n\r\n"))


@pytest.fixture
async def servers():
    """URL by version."""
    loop = asyncio.get_running_loop()
    listening = {name: await loop.create_server(lambda name=name: Named(name), "127.0.0.1", 0) for name in LIMITS}
    yield {name: f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for name, server in listening.items()}
    for server in listening.values():
        server.close()
    for transport in Named.open:
        transport.abort()
    Named.open.clear()
    await asyncio.sleep(0)  # the loop closes what was aborted in its next turn


class Client:
    """One connection that sends the next request when it has the last one's answer, and judges every answer."""

    def __init__(self, key, outcomes: Counter[str]) -> None:
        self._key = key
        self._outcomes = outcomes
        self.stop = False

    async def run(self, address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        try:
            turn = 0
            while not self.stop:
                path = (b"/both", b"/only-a", b"/both", b"/only-b")[turn % 4]
                turn += 1
                writer.write(self._signed(path))
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields[b"content-length"]))
                self._outcomes[judge(path, int(head[9:12]), fields, body)] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            self._outcomes["lost"] += 1
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _signed(self, path: bytes) -> bytes:
        timestamp = str(clock.now_ms() // 1000).encode()
        signature = b64encode(digest(self._key.secret.reveal(), b"GET\n%b\n%b" % (path, timestamp), "sha256"))
        credentials = (
            b"X-API-Key: " + self._key.key_id.encode(),
            b"X-Request-Signature: " + signature,
            b"X-Request-Timestamp: " + timestamp,
        )
        return b"\r\n".join((b"GET %b HTTP/1.1" % path, b"Host: gate", *credentials, b"", b""))


def judge(path: bytes, status: int, fields: dict[bytes, bytes], body: bytes) -> str:
    """How an answer was decided."""
    if status == 404 and path != b"/both":
        return "not in this version"
    if status != 200 or body not in LIMITS:
        return f"wrong: {status} for {path.decode()}"
    if int(fields[b"ratelimit-limit"]) != LIMITS[body] or (path != b"/both" and path[-1:] != body):
        return "mixture"
    return "one version"


async def test_no_request_is_lost_or_decided_by_a_mixture(tmp_path, database, redis_url, servers):
    connection = await asyncpg.connect(database.owner_dsn)
    key = await add_key(connection, Vault.parse(VAULT))
    await connection.close()
    path = tmp_path / "gateway.toml"

    def write(version: bytes, *, valid: bool = True) -> None:
        scope = "read" if valid else "write"
        text = configuration(
            postgres=database.gateway_dsn,
            redis=redis_url,
            vault=VAULT,
            upstreams={"spot": servers[version]},
            routes=f"GET /both {scope} spot\nGET /only-{version.decode()} read spot",
            workers=2,
            more=f'[limits]\nper_key = "{LIMITS[version]}/minute"',
        )
        path.write_text(text)

    write(b"a")
    outcomes: Counter[str] = Counter()
    async with running(path) as gateway:
        clients = [Client(key, outcomes) for _ in range(CONNECTIONS)]
        async with asyncio.TaskGroup() as running_clients:
            for client in clients:
                running_clients.create_task(client.run(gateway.public))
            reloads: Counter[str] = Counter()
            for number in range(RELOADS):
                write((b"b", b"a")[number // 2 % 2], valid=number % 2 == 0)
                _status, report = await gateway.ask("POST", "/reload")
                reloads[report["outcome"]] += 1
            for client in clients:
                client.stop = True
    sys.stdout.write(f"{sum(outcomes.values())} requests over {RELOADS} reloads: {dict(outcomes)}\n")
    assert reloads == {"applied": RELOADS // 2, "refused": RELOADS // 2}
    assert set(outcomes) == {"one version", "not in this version"}
    assert min(outcomes.values()) > RELOADS
