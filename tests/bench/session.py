"""Mode ``session``: messages of WebSocket sessions a second on one core, beside REST trades and reads of the same run.

Two more programs on the load's core, both of ``session.c``: a service that answers each message with ``{}``, whatever it says, and a client
that keeps a window of messages in flight on each of its connections; for what comes from the service, nginx as a plain proxy to compare
with. Redis is there, too, as it is for trades. The share of its core that the gate used says whether it was the gate that bounded a run.
"""

import contextlib
import hmac
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gateway.runtime import clock
from gateway.websocket.frames import TEXT, frame
from tests.bench import contestants, load
from tests.bench.contestants import LOAD_CORE, Ground
from tests.bench.load import Key
from tests.bench.processes import spent
from tests.bench.rounds import Run, Running
from tests.support.ports import free_port

WINDOW = 16
"""Messages in flight on each connection."""
MOST = 150_000
"""Orders that are signed for each second; after the last comes the first, which is refused as repeated."""
ANSWER = frame(TEXT, b"{}")
EVENT = frame(TEXT, b'{"e":"depth","x":"%b"}' % (b"x" * 1_000))
FLOOD = frame(TEXT, b'{"id":1,"method":"flood"}', mask=b"mask")
STATUS = frame(TEXT, b'{"id":7,"method":"account.status"}', mask=b"mask")
HANDSHAKE = (
    b"GET /ws-api/v3 HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
)
KINDS = ("signed orders", "session messages", "from the service")


class Result(NamedTuple):
    """One run of the client. Of messages, those from the service that are whole."""

    per_second: float
    megabytes: float
    """A second."""
    messages: int
    """Until the last answer; those before it are counted for a second."""


def order(key: Key, number: int, timestamp: int) -> bytes:
    """A signed ``order.place`` as a frame."""
    signed = (
        f"apiKey={key.key_id}&newClientOrderId=o{number}&price=900000000&quantity=0.00100000&recvWindow=60000&side=BUY&symbol=BTCIDR"
        f"&timeInForce=GTC&timestamp={timestamp}&type=LIMIT"
    )
    signature = hmac.digest(key.secret.encode(), signed.encode(), "sha256").hex()
    text = (
        f'{{"id":{number},"method":"order.place","params":{{"symbol":"BTCIDR","side":"BUY","type":"LIMIT","timeInForce":"GTC",'
        f'"price":"900000000","quantity":"0.00100000","newClientOrderId":"o{number}","recvWindow":60000,"timestamp":{timestamp},'
        f'"apiKey":"{key.key_id}","signature":"{signature}"}}}}'
    )
    return frame(TEXT, text.encode(), mask=b"mask")


def log_on(key: Key, timestamp: int) -> bytes:
    """A ``session.logon`` as a frame."""
    signature = hmac.digest(key.secret.encode(), f"apiKey={key.key_id}&timestamp={timestamp}".encode(), "sha256").hex()
    params = {"apiKey": key.key_id, "timestamp": timestamp, "signature": signature}
    return frame(TEXT, json.dumps({"id": 0, "method": "session.logon", "params": params}).encode(), mask=b"mask")


@contextlib.contextmanager
def service(ground: Ground, answer: bytes = ANSWER) -> Iterator[None]:
    """Run the service behind sessions on the load's core."""
    log = ground.folder / "service.out"
    program = load.compiled("session", ground.folder)
    process = contestants.pinned(LOAD_CORE, [str(program), "service", str(ground.service), answer, EVENT], log)
    try:
        contestants.wait_for(ground.service, process, log)
        yield
    finally:
        contestants.stop(process)


def run(ground: Ground, port: int, kind: str, seconds: int, connections: int) -> Result:
    """One run of the client, on the load's core.

    :raises SystemExit: an answer was not the expected one
    """
    files = [ground.folder / "session.first", ground.folder / "session.messages"]
    for file, messages in zip(files, _signed(ground.key, kind, seconds, connections), strict=True):
        with file.open("wb") as opened:
            opened.writelines(messages)
    expected, window = (EVENT, 0) if kind == KINDS[2] else (ANSWER, WINDOW)
    program, numbers = load.compiled("session", ground.folder), map(str, (port, connections, seconds, window))
    done = subprocess.run(
        ["taskset", "-c", LOAD_CORE, program, "client", *numbers, HANDSHAKE, expected, *files],
        capture_output=True, text=True, errors="backslashreplace", check=False, timeout=seconds + 60,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{kind}: {done.stderr}")
    told = json.loads(done.stdout)
    return Result(told["answered"] / told["seconds"], told["bytes"] / told["seconds"] / 1e6, told["messages"])


def _signed(key: Key, kind: str, seconds: int, connections: int) -> tuple[list[bytes], Iterable[bytes]]:
    """What is sent when a connection is open, and what follows."""
    now_ms = clock.now_ms()
    if kind == KINDS[0]:
        return [], (order(key, now_ms * 1_000 + number, now_ms) for number in range(MOST * seconds))
    if kind == KINDS[1]:
        return [log_on(key, now_ms - number) for number in range(connections)], [STATUS] * 1_000
    return [FLOOD], []


def measure(ground: Ground, gate: Running, rounds: int, seconds: int, rest: Callable[[str], Run]) -> dict[str, object]:
    """Medians over rounds, and ratios taken round by round.

    :param rest: a mode of REST, measured now
    """
    log, plain = ground.folder / "session.log", free_port()
    proxy = contestants.pinned(contestants.GATE_CORE, contestants.nginx("nginx_session.conf", ground, plain), log)
    try:
        contestants.wait_for(plain, proxy, log)
        found = [_round(ground, gate, plain, seconds, rest) for _ in range(rounds)]
    finally:
        contestants.stop(proxy)
    return {f"session: {name}": round(statistics.median(each[name] for each in found), 2) for name in found[0]}


def _round(ground: Ground, gate: Running, plain: int, seconds: int, rest: Callable[[str], Run]) -> dict[str, float]:
    orders, order_us = _messages(ground, gate, KINDS[0], seconds)
    trade = rest("trade")
    messages, message_us = _messages(ground, gate, KINDS[1], seconds)
    read = rest("read")
    through, direct = (run(ground, at, KINDS[2], seconds, 8).megabytes for at in (gate.port, plain))
    return {
        "signed order.place, messages/s": orders,
        "… ÷ REST trades": orders / trade.load.rps,
        "… processor µs of the gate": order_us,
        "… ÷ that of a REST trade": order_us / (trade.user + trade.system),
        "… share of the gate's core": orders * order_us / 1e6,
        "unsigned account.status, messages/s": messages,
        "… ÷ REST reads": messages / read.load.rps,
        "… processor µs of the gate for each": message_us,
        "… ÷ that of a REST read": message_us / (read.user + read.system),
        "… share of the gate's core for these": messages * message_us / 1e6,
        "from the service, MB/s": through,
        "… ÷ nginx plain": through / direct,
    }


def _messages(ground: Ground, gate: Running, kind: str, seconds: int) -> tuple[float, float]:
    """Messages a second, and what the gate spent on each in microseconds of processor time."""
    before = spent(gate.pid)
    found = run(ground, gate.port, kind, seconds, 32)
    after = spent(gate.pid)
    return found.per_second, (sum(after) - sum(before)) / found.messages
