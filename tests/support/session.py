"""WebSocket sessions through a real gate: messages that are signed, a client that sends frames, a service that reads them."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.admission.gate import Gate
from gateway.admission.replay import Answered
from gateway.admission.sessions import SESSIONS, Shape
from gateway.errors import Refusal, ReplayedRequest
from gateway.http1.message import Request
from gateway.keys.record import KeyRecord
from gateway.runtime import clock
from gateway.websocket.frames import CLOSE, TEXT, frame, masked
from tests.support.plane import Served, serving
from tests.support.signed import a_gate
from tests.support.wire import TIMEOUT, RawClient, Received, RecordingUpstream, UpstreamSide, recording_upstream

ROUTES = [
    {"match": "GET /ws", "scope": "public", "upstream": "spot", "websocket": "mobee", "methods": "mobee"},
    {"match": "GET /ws-api/v3", "scope": "public", "upstream": "spot", "websocket": "binance", "methods": "binance"},
    {"match": "POST /api/v3/order", "scope": "trade", "upstream": "spot"},
]
METHODS = {
    "mobee": {
        "subscribe MK": {"scope": "public"},
        "subscribe BL": {"scope": "read"},
        "subscribe PO": {"scope": "read", "weight": 5},
        "subscribe TR": {"scope": "trade"},
        "order": {"scope": "trade"},
    },
    "binance": {
        "time": {"scope": "public"},
        "account.status": {"scope": "read"},
        "order.place": {"scope": "trade"},
        "strict.read": {"scope": "read", "replay": "strict"},
    },
}
PATHS = {"mobee": b"/ws", "binance": b"/ws-api/v3"}


def switching(request: Received) -> bytes:
    """The service's answer to a handshake (RFC 6455 §4.2.2); it takes an extension that was not offered to it."""
    (key,) = request.values(b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n" % accept
    )


class Guard:
    """The replay guard, in memory; a test says when it answers."""

    def __init__(self) -> None:
        self.used: set[tuple[str, bytes]] = set()
        self.held: list[Answered] | None = None

    def ask(self, key_id: str, signature: bytes, answered: Answered, *, ttl_ms: int, outage: str, shared: bool = False) -> None:
        assert ttl_ms > 0
        assert outage
        if (key_id, signature) in self.used:
            self._answer(answered, ReplayedRequest("again"))
        elif self.held is not None:
            self.held.append(answered)
        else:
            self._answer(answered, None)
        self.used.add((key_id, signature))

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        for answered in held:
            self._answer(answered, None)

    @staticmethod
    def _answer(answered: Answered, refusal: Refusal | None) -> None:
        asyncio.get_running_loop().call_soon(answered, refusal)


def session_gate(
    *records: KeyRecord, methods: dict[str, Any] | None = None, every_route: dict[str, Any] | None = None, **sections: Any
) -> Gate:
    """A gate with these keys, both sessions, and a replay guard in memory (``gate.guard``).

    :param every_route: further members of each route
    """
    gate = a_gate(*records, routes=[route | (every_route or {}) for route in ROUTES], methods=methods or METHODS, **sections)
    services = gate.services._replace(replay=Guard())  # type: ignore[arg-type]
    return Gate(gate.settings, gate.routes, services)


def log_in(record: KeyRecord, dialect: str, *, now_ms: int | None = None, secret: bytes | None = None) -> bytes:
    """The message that logs a key in."""
    now_ms = clock.now_ms() if now_ms is None else now_ms
    if dialect == "binance":
        return binance(record, "session.logon", {}, now_ms=now_ms, secret=secret)
    api = json.dumps({"public_key": record.key_id, "timestamp": now_ms})
    return f'{{"method":"login","api":{api},"hmac":"{_hmac(record, api, secret).hex()}"}}'.encode()


def binance(
    record: KeyRecord, method: str, params: dict[str, object], *, now_ms: int | None = None, secret: bytes | None = None, own_id: object = 1
) -> bytes:
    """A signed message in the dialect binance."""
    params = {**params, "apiKey": record.key_id, "timestamp": clock.now_ms() if now_ms is None else now_ms}
    signed = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    return json.dumps({"id": own_id, "method": method, "params": {**params, "signature": _hmac(record, signed, secret).hex()}}).encode()


def _hmac(record: KeyRecord, message: str, secret: bytes | None) -> bytes:
    key = secret or (record.secret.reveal() if record.secret is not None else b"")
    return hmac.digest(key, message.encode(), "sha256")


class Service:
    """The service's end of one session."""

    def __init__(self, side: UpstreamSide) -> None:
        self.side = side

    async def frame(self) -> tuple[int, bytes]:
        """The next frame, unmasked; it must be masked and whole."""
        async with asyncio.timeout(TIMEOUT):
            return await read_frame(self.side.reader, is_masked=True)

    async def message(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == TEXT
        return json.loads(payload)

    def send(self, text: bytes) -> None:
        self.side.send(frame(TEXT, text))


class Client:
    """The client's end."""

    def __init__(self, raw: RawClient) -> None:
        self.raw = raw

    def send(self, *texts: bytes, mask: bytes = b"\x11\x22\x33\x44") -> None:
        self.raw.send(b"".join(frame(TEXT, text, mask=mask) for text in texts))

    async def frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(TIMEOUT):
            return await read_frame(self.raw.reader, is_masked=False)

    async def message(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def closed(self) -> tuple[int, str]:
        """The code and reason of the Close frame that is all that still comes."""
        opcode, payload = await self.frame()
        assert opcode == CLOSE, (opcode, payload)
        assert await self.raw.rest() == b""
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()


async def read_frame(reader: asyncio.StreamReader, *, is_masked: bool) -> tuple[int, bytes]:
    """A whole frame: opcode and payload."""
    first, second = await reader.readexactly(2)
    assert first & 0x80
    assert bool(second & 0x80) is is_masked
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    mask = await reader.readexactly(4) if is_masked else b""
    payload = await reader.readexactly(size)
    return first & 0x0F, masked(payload, mask) if is_masked else payload


def handshake(dialect: str, more: str = "") -> bytes:
    key = base64.b64encode(b"x" * 16).decode()
    return (
        b"GET %b HTTP/1.1\r\nHost: gate.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Key: %b\r\n%b\r\n" % (PATHS[dialect], key.encode(), more.encode())
    )


class Conversation:
    """A session that is open, and another one through the same gate when asked."""

    def __init__(self, served: Served, upstream: RecordingUpstream, gate: Gate) -> None:
        self.served = served
        self.upstream = upstream
        self.gate = gate
        self.guard: Guard = gate.services.replay  # type: ignore[assignment]

    async def open(self, dialect: str, more: str = "") -> tuple[Client, Service]:
        raw = await self.served.client()
        raw.send(handshake(dialect, more))
        assert (await raw.head())[0] == 101
        return Client(raw), Service(self.upstream.sides[-1])


@asynccontextmanager
async def conversation(*records: KeyRecord, script: Any = None, gate: Gate | None = None, **sections: Any) -> AsyncIterator[Conversation]:
    """A plane with a session gate, before a service that switches and then leaves reading and writing to the test."""

    async def switch(side: UpstreamSide, request: Received) -> None:
        side.send(switching(request))
        await asyncio.Event().wait()

    gate = gate or session_gate(*records, **sections)
    async with recording_upstream(script or switch) as upstream, serving(upstream, gate=gate, **sections) as served:  # type: ignore[arg-type]
        served.valid_keys.update(record.key_id for record in records)
        yield Conversation(served, upstream, gate)


HANDSHAKE = Request(b"GET", b"/ws", b"/ws", None, (), b"", "192.0.2.1", False, 0, "request-1")
PROBLEM = {"type": "urn:x", "title": "X", "status": 403, "code": "scope_not_granted", "detail": "why", "request_id": "r"}


def made_of(dialect_name: str, text: bytes, shapes: list[Shape] | None) -> list[object]:
    """Everything that is made of a message, or why it is refused: the same whether it is read by a shape or scanned.

    :param shapes: those of earlier messages; ``None``: it is scanned
    """
    dialect = SESSIONS[dialect_name]
    found: list[object] = []
    try:
        message = dialect.read(text, HANDSHAKE, "gbk_x", 7, "request-1", shapes)
        found += [message.wrong, message.act, message.names, message.rest, message.forwarded(b'"gateway":{}')]
        found.append(dialect.refusal(PROBLEM, message))
        credentials = dialect.credentials(message, 60_000)
        if credentials is not None:
            found.append([getattr(credentials, name) for name in type(credentials).__slots__])
            found.append(list(dialect.mistakes(message, credentials)))
    except Refusal as refusal:
        found.append((type(refusal), refusal.detail))
    return found
