"""The data plane without sockets: bytes in, bytes out, at once. For the inputs that only a search finds.

The gate is the real one. Its routes are answered by itself or refused, so nothing waits for an upstream, and what comes out is all
that ever would.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from deploy.signing import DIALECTS, SigningKey, sign
from gateway.admission.gate import Gate
from gateway.forward.tunnel import Tunnels
from gateway.net.tally import Owners
from gateway.runtime import clock
from gateway.runtime.outbox import Outbox
from gateway.runtime.ticker import Ticker
from gateway.server.connection import ClientConnection
from gateway.server.fair_scheduler import FairScheduler
from gateway.server.plane import Plane
from gateway.server.serving import Serving
from gateway.telemetry import AccessLog, Metrics
from tests.support.keys import NOW_MS, a_record
from tests.support.signed import a_gate

RECORD = a_record()
ROUTES = [
    {"match": f"{method} /{path}", "scope": scope, "upstream": "spot", "replay": "off"}
    for method, path, scope in (
        ("GET", "v1/wallets", "read"),
        ("POST", "v1/orders", "trade"),
        ("DELETE", "v1/orders/{id}", "trade"),
        ("GET", "files/{path...}", "read"),
    )
]
STATUSES = {200, 400, 401, 403, 404, 405, 413, 417, 429, 431}
"""What the gate may answer here. 500 is a defect; the others need an upstream or a store."""
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%", b"%2f", b"%00", b"//", b"/../", b";", b"?", b"#", b"&", b"=", b'"', b"(", b")",
    b"HTTP/1.0", b"HTTP/2.0", b"Host: x\r\n", b"Content-Length: 3\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"X-API-Key: a\r\n", b"X-MBX-APIKEY: a\r\n", b"Signature: sig=:AA==:\r\n",
    b'Signature-Input: sig=("@method");created=1;keyid="a"\r\n', b"Content-Digest: sha-256=:AA==:\r\n",
    b"X-Request-Timestamp: 99999999999999999999\r\n", b"signature=", b"timestamp=", b"&recvWindow=1e9",
    b"X-Forwarded-For: \xff\r\n", b"\xc3\xa9", b"A" * 5_000, b"0\r\n\r\n", b"ffffffffffffffff\r\n",
]  # fmt: skip
"""What to put into requests: words that mean something somewhere, or break something."""
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]*\r\n")


class AtOnce(Outbox):
    """Without an event loop there are no turns to wait for the end of."""

    def put(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        transport.write(data)


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.ended = False

    def get_extra_info(self, name: str) -> object:
        return ("203.0.113.7", 4711) if name == "peername" else None

    def write(self, data: bytes) -> None:
        assert not self.ended, "written after the end"
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    close = abort = write_eof

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        """There is nothing to pause: what a connection does not take, it holds."""

    resume_reading = pause_reading


class Told(NamedTuple):
    """What a connection answered."""

    statuses: list[int]
    ended: bool
    """The gate closed it."""

    def in_kind(self) -> list[int]:
        """The statuses; a head that is both malformed and too large may be either, whichever is seen first."""
        return [400 if status == 431 else status for status in self.statuses]


class NoQueue(FairScheduler):
    """Everybody may go on at once, without an event loop."""

    def may_run(self, size: int = 0) -> bool:
        return True

    def measure(self) -> None: ...

    def schedule(self, owners: Owners, item: Callable[[], None]) -> None:
        item()


class InMemory:
    """One plane; each conversation is a connection of its own.

    :param set_clock: is handed the clock that the signed requests were signed by
    """

    def __init__(self, set_clock: Callable[[Callable[[], int]], None]) -> None:
        set_clock(lambda: NOW_MS)
        limits = {"per_ip_failures": "900000000/second", "max_body_bytes": 4_096, "max_header_bytes": 4_096}
        self._gate: Gate = a_gate(RECORD, routes=ROUTES, limits=limits)
        for route in self._gate.routes.routes:
            route.replay_off = True  # the gate's own, too: nobody waits for a claim here
        self.metrics = Metrics()
        settings = self._gate.settings
        self._plane = Plane(
            settings,
            Serving(settings, self._gate, {}, access=AccessLog(0.0)),
            outbox=AtOnce(),
            tunnels=Tunnels(_never, self.metrics),
            ticker=Ticker(),
            metrics=self.metrics,
        )
        self._plane.worker.scheduler = NoQueue()

    def talk(self, chunks: Iterable[bytes]) -> Told:
        """Send these bytes, read all the answers.

        :raises AssertionError: an answer is none, or the gate failed, or closed without a word
        """
        chunks = list(chunks)
        wire, connection = Wire(), ClientConnection(self._plane.worker, self._plane)
        connection.connection_made(wire)  # type: ignore[arg-type]
        sent = False
        for chunk in chunks:
            if wire.ended:
                break
            if chunk:
                sent = True
                connection.data_received(chunk)
        statuses = answers(wire.written, some_bare=b"HEAD" in b"".join(chunks))
        ended = wire.ended
        connection.connection_lost(None)
        assert set(statuses) <= STATUSES, statuses
        assert statuses or not (ended and sent), "closed without an answer"
        return Told(statuses, ended)


async def _never(_key_id: str) -> bool:
    return False


def answers(written: bytes, *, some_bare: bool) -> list[int]:
    """The statuses of the answers in what was written, framed as a client would.

    :param some_bare: there may be answers to HEAD, which come without their content
    """
    statuses, position = [], 0
    while position < len(written):
        match = _STATUS_LINE.match(written, position)
        assert match is not None, written[position : position + 80]
        end = written.index(b"\r\n\r\n", position) + 4
        if int(match[1]) == 100:
            position = end
            continue
        head = written[position:end].lower()
        assert b"\r\ndate: " in head, head
        (length,) = re.findall(rb"\r\ncontent-length: (\d+)\r\n", head)
        bare = some_bare and written[end : end + 9] in (b"", b"HTTP/1.1 ")
        position = end if bare else end + int(length)
        assert position <= len(written), "cut off"
        statuses.append(int(match[1]))
    return statuses


def seeds() -> list[bytes]:
    """Requests to begin from: signed in every dialect, and of every shape that is read in a way of its own."""
    key = SigningKey(RECORD.key_id, RECORD.secret.reveal().decode() if RECORD.secret else "")
    wrong = SigningKey(RECORD.key_id, "not the secret")
    found = [
        b"GET /gateway/v1/time HTTP/1.1\r\nHost: gate\r\n\r\n",
        b"GET /gateway/v1/ip HTTP/1.0\r\nForwarded: for=192.0.2.1\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
        b"GET /v1/%77allets?a=%zz HTTP/1.1\r\nHost: gate\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n\r\n",
        b"PUT /v1/orders/1 HTTP/1.1\r\nHost: gate\r\n\r\n",
    ]
    for dialect in DIALECTS:
        for signer, method, target, body in (
            (key, "GET", "/gateway/v1/key?a=%20b", b""),
            (wrong, "POST", "/v1/orders", b'{"side":"buy"}'),
            (wrong, "GET", "/files/a/b?c=d", b""),
        ):
            content = b"side=buy" if body and dialect == "binance" else body
            sent = sign(dialect, signer, method, target, content, now_ms=NOW_MS, nonce="n")
            length = {"Content-Length": str(len(sent.body))} if sent.body else {}
            lines = [
                f"{method} {sent.target} HTTP/1.1",
                "Host: gate",
                *(f"{name}: {value}" for name, value in (sent.headers | length).items()),
            ]
            found.append("\r\n".join([*lines, "", ""]).encode() + sent.body)
    return found


def stop_clock(now_ms: Callable[[], int]) -> None:
    """For a process that does nothing else."""
    clock.now_ms = now_ms
