"""The load: validly signed requests, written as a script for wrk, and what wrk says of a run.

wrk's LuaJIT cannot sign, so every request is signed beforehand: reads once per second of the run (any number of
times within its window), trades one by one, since the replay guard admits each signature once.
"""

import base64
import hmac
import json
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from gateway.runtime import clock

READ_PATH = "/v1/wallets"
TRADE_PATH = "/v1/orders"
PUBLIC_PATH = "/v1/markets/summary"
BIG_PATH = "/v1/history"

MODES = ("read", "trade", "public", "refusal", "64 KiB", "connect")
"""Signed read; signed trade under the strict replay guard; no credentials; wrong signature; 64 KiB answer; new connection per request."""


class Key(NamedTuple):
    """The one key of the load."""

    key_id: str
    secret: str


class Result(NamedTuple):
    """One run of wrk: requests per second, latencies in milliseconds, answers that were not the expected ones, and how many there were."""

    rps: float
    p50: float
    p99: float
    wrong: int
    requests: int


def compiled(name: str, folder: Path) -> Path:
    """A generator of load that is written in C: ``name.c`` beside this file, compiled into the folder unless it is there.

    :raises subprocess.CalledProcessError: it does not compile
    """
    made, source = folder / name, Path(__file__).with_name(f"{name}.c")
    if not made.exists():
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", made, source], check=True)
    return made


def sign(key: Key, method: str, path: str, timestamp: int, body: bytes = b"") -> str:
    """The ``mobee`` dialect's signature (Base64)."""
    message = f"{method}\n{path}\n{timestamp}".encode() + (b"\n" + body if body else b"")
    return base64.b64encode(hmac.digest(key.secret.encode(), message, "sha256")).decode()


def request(key: Key, mode: str, timestamp: int, number: int) -> str:
    """One request of a mode, as it is sent; ``number`` makes trades differ."""
    path = {"trade": TRADE_PATH, "public": PUBLIC_PATH, "64 KiB": BIG_PATH}.get(mode, READ_PATH)
    method, body = ("POST", f'{{"symbol":"BTC-IDR","n":{number}}}'.encode()) if mode == "trade" else ("GET", b"")
    lines = [f"{method} {path} HTTP/1.1", "Host: gate.test", "User-Agent: bench", "Accept: */*"]
    if mode != "public":
        signature = sign(key, method, path, timestamp, body)
        if mode == "refusal":
            signature = base64.b64encode(bytes(32)).decode()
        lines += [f"X-API-Key: {key.key_id}", f"X-Request-Timestamp: {timestamp}", f"X-Request-Signature: {signature}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if mode == "connect":
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", body.decode()])


def expected(mode: str) -> tuple[int, str]:
    """The status of the right answer, and what stands in its body."""
    return (401, "invalid_credentials") if mode == "refusal" else (200, "BTC-IDR")


SCRIPT = """
local handle = io.open(wrk_requests)
local text = handle:read("*a")
handle:close()
local requests, at = {}, 1
for size in io.lines(wrk_requests .. ".sizes") do
  requests[#requests + 1] = text:sub(at, at + tonumber(size) - 1)
  at = at + tonumber(size)
end
local turn = 0
wrong = 0
if wrk_by_second then
  request = function() return requests[os.time() - wrk_start + 1] end
else
  request = function() turn = turn + 1; return requests[turn] or requests[#requests] end
end
if wrk_check then
  response = function(status, headers, body)
    if status ~= wrk_status or not body:find(wrk_marker, 1, true) then wrong = wrong + 1 end
  end
end
local threads = {}
setup = function(thread) threads[#threads + 1] = thread end
done = function(summary, latency)
  local refused = wrk_check and 0 or math.abs(summary.errors.status - (wrk_status < 400 and 0 or summary.requests))
  local bad = refused + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  for _, thread in ipairs(threads) do bad = bad + thread:get("wrong") end
  print(string.format('RESULT {"requests":%d,"us":%d,"p50":%d,"p99":%d,"wrong":%d}', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), bad))
end
"""


def _signing_seconds(key: Key) -> float:
    """How long it takes to sign one trade now."""
    began = time.perf_counter()
    for number in range(2_000):
        request(key, "trade", 0, number)
    return (time.perf_counter() - began) / 2_000


def run(key: Key, mode: str, *, port: int, connections: int, seconds: int, folder: Path, trades: int, core: str, check: bool) -> Result:
    """One run of wrk against ``127.0.0.1:port``.

    :param trades: how many distinct trade requests to prepare
    :param check: look at the status and body of every answer, which costs the load's core as much as an answer does;
        otherwise wrk itself counts the statuses and broken exchanges
    """
    start = clock.now_ms() // 1000
    # Trades are dated for when all of them are signed; a second ahead of that is within the window.
    dated = start + 1 + int(trades * _signing_seconds(key)) if mode == "trade" else start
    if mode == "trade":
        requests = [request(key, mode, dated, start * 10_000_000 + number) for number in range(trades)]
    else:
        requests = [request(key, mode, start + second, 0) for second in range(seconds + 10)]
    source = folder / "requests"
    source.write_text("".join(requests))
    (folder / "requests.sizes").write_text("\n".join(str(len(request)) for request in requests))
    script = folder / "load.lua"
    settings = {
        "wrk_requests": str(source),
        "wrk_start": start,
        "wrk_check": check,
        "wrk_by_second": mode != "trade",
        "wrk_status": expected(mode)[0],
        "wrk_marker": expected(mode)[1],
    }
    script.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()) + SCRIPT)
    time.sleep(max(0.0, dated - 0.95 - clock.now_ms() / 1000))
    command = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"wrk ended with {done.returncode} and said nothing of its run:\n{done.stdout}{done.stderr}")
    figures = json.loads(line.removeprefix("RESULT "))
    rate = figures["requests"] / figures["us"] * 1e6
    return Result(rate, figures["p50"] / 1e3, figures["p99"] / 1e3, figures["wrong"], figures["requests"])
