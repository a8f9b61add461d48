"""Mode ``session``: messages of WebSocket sessions a second on one core, beside REST trades and reads of the same run.

Three more programs on the load's core: a service that answers each message with ``{}``, whatever it says; a client that keeps a window of
messages in flight on each of its connections; and, for what comes from the service, nginx as a plain proxy to compare with. They share that
core with Redis, so the gate's processor time stands beside what it passed: that holds whatever bounds the run.

    python -m tests.bench.session service PORT
    python -m tests.bench.session client PORT KIND SECONDS CONNECTIONS KEY_ID SECRET
"""

import asyncio
import hmac
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

import uvloop

from gateway.net.descriptors import raise_limit
from gateway.runtime import clock
from gateway.websocket.frames import TEXT, frame, head_size, payload_size
from tests.bench import contestants
from tests.bench.contestants import LOAD_CORE, Ground, of_checkout
from tests.bench.load import Key
from tests.bench.processes import spent
from tests.bench.rounds import Run, Running
from tests.support.ports import free_port

WINDOW = 16
"""Messages in flight on each connection."""
ANSWER = frame(TEXT, b"{}")
FLOOD = frame(TEXT, b'{"e":"depth","x":"%b"}' % (b"x" * 1_000)) * 64
PUBLIC = frame(TEXT, b'{"id":1,"method":"flood"}', mask=b"mask")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"
HANDSHAKE = (
    b"GET /ws-api/v3 HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
)
KINDS = ("signed orders", "session messages", "from the service")


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


class Service(asyncio.Protocol):
    """Answers each frame with ``{}``; from the first message of ``flood`` on it sends as fast as it is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._held = b""
        self._open = self._flooding = False

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        if not self._open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._held = head
                return
            if b"\r\nupgrade: websocket" not in head.lower():  # whoever waits for the proxy to serve
                self._transport.write(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                self._transport.close()
                return
            self._open = True
            self._transport.write(SWITCHING)
        count, self._held = _frames(data)
        if count and not self._flooding and len(data) < 1_000 and b"flood" in _unmasked(data):
            self._flooding = True
            self.resume_writing()
        elif count:
            self._transport.write(ANSWER * count)

    def resume_writing(self) -> None:
        self._paused = False
        self._flood()

    def _flood(self) -> None:
        if self._flooding and not self._paused and not self._transport.is_closing():
            self._transport.write(FLOOD)
            asyncio.get_running_loop().call_soon(self._flood)

    def pause_writing(self) -> None:
        self._paused = True


def _frames(data: bytes) -> tuple[int, bytes]:
    """How many whole masked frames of less than 64 KiB these are, and what is left."""
    at = count = 0
    end = len(data) - 8
    while at <= end:
        size = data[at + 1] & 0x7F
        after = at + 8 + (data[at + 2] << 8 | data[at + 3]) if size == 126 else at + 6 + size
        if after > end + 8:
            break
        at = after
        count += 1
    return count, data[at:]


def _unmasked(data: bytes) -> bytes:
    size = head_size(data[:14])
    mask = data[size - 4 : size]
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data[size : size + payload_size(data[:14])]))


class Client(asyncio.Protocol):
    """One connection of the load: ``WINDOW`` messages in flight, each answered by :data:`ANSWER` and nothing else."""

    def __init__(self, first: bytes, following: Callable[[int], bytes], window: int) -> None:
        self._first, self._following, self._window = first, following, window
        self.answered = self.bytes = 0
        self.wrong = b""
        self._rest = b""
        self._open = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        transport.write(HANDSHAKE)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self._open:
            head, end, data = (self._rest + data).partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.wrong = head
            self._open, self._rest = True, b""
            self.opened.set_result(None)
            self.transport.write(self._first)
        self.bytes += len(data)
        if not self._window:
            return
        data = self._rest + data
        count = len(data) // len(ANSWER)
        if data[: count * len(ANSWER)] != ANSWER * count:
            self.wrong = self.wrong or data
        self._rest = data[count * len(ANSWER) :]
        self.answered += count
        if count:
            self.transport.write(self._following(count))

    def begin(self) -> None:
        """The window opens."""
        self.transport.write(self._following(self._window))


async def _client(port: int, kind: str, seconds: int, connections: int, key: Key) -> dict[str, object]:
    """One run of the load."""
    now_ms = clock.now_ms()
    stream = iter([order(key, now_ms * 1_000 + number, now_ms) for number in range(40_000 * seconds if kind == KINDS[0] else 0)])
    status = frame(TEXT, b'{"id":7,"method":"account.status"}', mask=b"mask")
    following = {KINDS[0]: lambda count: b"".join(islice(stream, count)), KINDS[1]: lambda count: status * count, KINDS[2]: bytes}[kind]
    loop = asyncio.get_running_loop()
    clients = []
    for number in range(connections):
        first = log_on(key, clock.now_ms() - number % 4_000) if kind == KINDS[1] else PUBLIC if kind == KINDS[2] else b""
        client = Client(first, following, 0 if kind == KINDS[2] else WINDOW)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
        await client.opened
        clients.append(client)
    await asyncio.sleep(0.3)
    if wrong := next((client.wrong for client in clients if client.wrong), b""):
        return {"per_second": 0, "messages": 0, "megabytes": 0, "wrong": wrong[:300].decode("latin-1")}
    for client in clients:
        client.begin()
    answered, received, began = (sum(c.answered for c in clients), sum(c.bytes for c in clients), time.perf_counter())
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    rate = (sum(client.answered for client in clients) - answered) / elapsed
    megabytes = (sum(client.bytes for client in clients) - received) / elapsed / 1e6
    said = next((client.wrong[:300].decode("latin-1") for client in clients if client.wrong), "")
    for client in clients:
        client.transport.abort()
    return {"per_second": rate, "messages": sum(client.answered for client in clients), "megabytes": megabytes, "wrong": said}


async def _serve(port: int) -> None:
    raise_limit()
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", port, backlog=2_048)
    await server.serve_forever()


def run(port: int, kind: str, seconds: int, connections: int, key: Key) -> dict[str, Any]:
    """One run of the client, on the load's core.

    :raises SystemExit: an answer was not the expected one
    """
    command = of_checkout(sys.executable, "-m", "tests.bench.session", "client", str(port), kind, str(seconds), str(connections), *key)
    done = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, check=True, timeout=seconds + 60)
    result: dict[str, Any] = json.loads(done.stdout)
    if result["wrong"]:
        sys.exit(f"{kind}: an answer was not the expected one: {result['wrong']}")
    return result


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
    through, direct = (run(at, KINDS[2], seconds, 8, ground.key)["megabytes"] for at in (gate.port, plain))
    return {
        "signed order.place, messages/s": orders,
        "… ÷ REST trades": orders / trade.load.rps,
        "… processor µs of the gate": order_us,
        "… ÷ that of a REST trade": order_us / (trade.user + trade.system),
        "unsigned account.status, messages/s": messages,
        "… ÷ REST reads": messages / read.load.rps,
        "… processor µs of the gate for each": message_us,
        "… ÷ that of a REST read": message_us / (read.user + read.system),
        "from the service, MB/s": through,
        "… ÷ nginx plain": through / direct,
    }


def _messages(ground: Ground, gate: Running, kind: str, seconds: int) -> tuple[float, float]:
    """Messages a second, and what the gate spent on each in microseconds of processor time."""
    before = spent(gate.pid)
    found = run(gate.port, kind, seconds, 32, ground.key)
    after = spent(gate.pid)
    return found["per_second"], (sum(after) - sum(before)) / max(1, found["messages"])


if __name__ == "__main__":
    what, number, *rest_of = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if what == "service":
            runner.run(_serve(int(number)))
        else:
            kind_, seconds_, connections_, *key_ = rest_of
            told = runner.run(_client(int(number), kind_, int(seconds_), int(connections_), Key(*key_)))
            print(json.dumps(told))
