"""Load by schedule, in a process of its own: ``python -m tests.faults.paced RATE CONNECTIONS HOST PORT KEY_ID SECRET PATH…``.

Request ``n`` is due ``n / RATE`` seconds after the start, whatever became of those before it (an open loop): it is sent on a free
connection, or waits for one; a sender that has fallen behind catches up. No connection carries two requests at a time. Each hundredth
request is told by a line on standard output. The run ends when its input ends, once everything that was due by then is answered; then
come one line for each request (:class:`Answered`) and one with how late the latest was sent.
"""

import asyncio
import sys
import time
from base64 import b64encode
from collections import deque
from hmac import digest
from typing import NamedTuple

import uvloop

from gateway.runtime import clock

TICK_SECONDS = 0.001
HUNDRED = "a hundred"


class Answered(NamedTuple):
    """One request and its answer; times are monotonic."""

    path: str
    sent_us: int
    answered_us: int
    status: int
    limit: int
    content: str


class Connection(asyncio.Protocol):
    """One connection that carries one request after another."""

    def __init__(self, sender: "Sender") -> None:
        self._sender = sender
        self._asked: tuple[str, int] | None = None
        self._buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def ask(self, path: str, data: bytes) -> None:
        self._asked = path, now_us()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, content = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines[1:])
        if len(content) < int(fields[b"content-length"]):
            return
        assert len(content) == int(fields[b"content-length"])
        assert self._asked is not None
        path, sent_us = self._asked
        self._buffer, self._asked = b"", None
        text = content.decode() if len(content) == 1 else "-"
        self._sender.seen.append(Answered(path, sent_us, now_us(), int(lines[0][9:12]), int(fields.get(b"ratelimit-limit", 0)), text))
        self._sender.idle.append(self)

    def connection_lost(self, _error) -> None:
        self._sender.lost.append("a request" if self._asked is not None else "an idle connection")


class Sender:
    """The schedule, and the connections that it is kept with."""

    def __init__(self, rate: int, paths: list[str], key_id: str, secret: bytes) -> None:
        self.seen: list[Answered] = []
        self.latest_us = 0
        """How long after it was due a request was sent, at most."""
        self.lost: list[str] = []
        self.idle: deque[Connection] = deque()
        self._rate = rate
        self._paths = paths
        self._key_id = key_id
        self._secret = secret
        self._sent = 0
        self._signed: dict[tuple[str, int], bytes] = {}

    async def run(self, address: tuple[str, int], connections: int, ended: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        made = [(await loop.create_connection(lambda: Connection(self), *address))[1] for _ in range(connections)]
        self.idle.extend(made)
        start_us = now_us()
        due = 0
        while not (ended.is_set() and self._sent == due == len(self.seen)):
            if not ended.is_set():
                due = (now_us() - start_us) * self._rate // 1_000_000
            while self._sent < due and self.idle:
                self._send(start_us)
            if self.lost:
                raise ConnectionError(f"the gate has closed {self.lost}")
            await asyncio.sleep(TICK_SECONDS)
        for connection in made:
            connection.transport.abort()

    def _send(self, start_us: int) -> None:
        path = self._paths[self._sent % len(self._paths)]
        self.latest_us = max(self.latest_us, now_us() - start_us - self._sent * 1_000_000 // self._rate)
        self._sent += 1
        self.idle.popleft().ask(path, self._request(path))
        if self._sent % 100 == 0:
            sys.stdout.write(f"{HUNDRED}\n")
            sys.stdout.flush()

    def _request(self, path: str) -> bytes:
        """Signed for the present second; every request of that second has the same bytes, as reads may."""
        second = clock.now_ms() // 1000
        request = self._signed.get((path, second))
        if request is None:
            signature = b64encode(digest(self._secret, f"GET\n{path}\n{second}".encode(), "sha256")).decode()
            lines = [f"GET {path} HTTP/1.1", "Host: gate", f"X-API-Key: {self._key_id}"]
            lines += [f"X-Request-Signature: {signature}", f"X-Request-Timestamp: {second}", "", ""]
            request = self._signed[path, second] = "\r\n".join(lines).encode()
        return request


def now_us() -> int:
    return time.monotonic_ns() // 1000


async def _main(rate: str, connections: str, *more: str) -> None:
    host, port, key_id, secret, *paths = more
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: None if sys.stdin.read(1) else ended.set())
    sender = Sender(int(rate), paths, key_id, secret.encode())
    await sender.run((host, int(port)), int(connections), ended)
    asyncio.get_running_loop().remove_reader(sys.stdin)
    sys.stdout.writelines(" ".join(map(str, one)) + "\n" for one in [*sender.seen, (sender.latest_us // 1000,)])


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
