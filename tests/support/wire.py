"""Raw sockets on both sides of the data plane: a client that sends exact bytes, and an upstream that records the bytes it gets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

TIMEOUT = 30.0
"""Seconds after which a test that waits has failed. Nothing here sleeps."""


class Response(NamedTuple):
    """One response as the client read it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The one value, or None; a repeated field is a failure."""
        values = [value for field, value in self.headers if field == name]
        assert len(values) < 2, f"{name} is repeated"
        return values[0] if values else None


class Pausable:
    """An end of a connection that can stop reading."""

    writer: asyncio.StreamWriter

    def pause_reading(self) -> None:
        """Read no more: the kernel's buffers fill."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    @property
    def _transport(self) -> Any:  # uvloop's are no subclasses of asyncio.Transport
        return self.writer.transport


class RawClient(Pausable):
    """A TCP connection to the gate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        return cls(*await asyncio.open_connection(host, port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        async with asyncio.timeout(TIMEOUT):
            raw = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = raw[:-4].split("\r\n")
        pairs = [field.split(":", 1) for field in fields]
        return int(line.split(" ")[1]), [(name.lower(), value.strip()) for name, value in pairs]

    async def response(self, *, head_only: bool = False) -> Response:
        """The next final response, decoded."""
        status, headers = await self.head()
        fields = dict(headers)
        if head_only or status in (204, 304) or status < 200:
            return Response(status, headers, b"")
        async with asyncio.timeout(TIMEOUT):
            if "transfer-encoding" in fields:
                return Response(status, headers, await self._chunks())
            if "content-length" in fields:
                return Response(status, headers, await self.reader.readexactly(int(fields["content-length"])))
            return Response(status, headers, await self.reader.read())

    async def ask(self, data: bytes) -> Response:
        self.send(data)
        return await self.response(head_only=data.startswith(b"HEAD "))

    async def rest(self) -> bytes:
        """What still comes until the gate closes, or resets the connection."""
        return (await self.end())[0]

    async def end(self) -> tuple[bytes, bool]:
        """What still comes, and whether the connection was reset behind it."""
        data = b""
        async with asyncio.timeout(TIMEOUT):
            try:
                while piece := await self.reader.read(1 << 16):
                    data += piece
            except ConnectionResetError:
                return data + bytes(self.reader._buffer), True  # type: ignore[attr-defined]  # noqa: SLF001  # what came before the reset
        return data, False

    async def close(self) -> None:
        self.writer.transport.abort()

    async def _chunks(self) -> bytes:
        content = b""
        while size := int(await self.reader.readline(), 16):
            content += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return content


class Received(NamedTuple):
    """One request as the upstream read it."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    raw: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.headers if field == name]


class UpstreamSide(Pausable):
    """One connection as the upstream sees it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.raw = b""
        self.gone = asyncio.Event()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self) -> None:
        self.writer.close()

    async def request(self) -> Received:
        """:raises asyncio.IncompleteReadError: the gate closed instead"""
        head = await self.take(self.reader.readuntil(b"\r\n\r\n"))
        line, *fields = head[:-4].split(b"\r\n")
        headers = [(name.lower(), value.strip()) for name, value in (field.split(b":", 1) for field in fields)]
        known = dict(headers)
        body = b""
        if b"transfer-encoding" in known:
            while size := int(await self.take(self.reader.readuntil(b"\r\n")), 16):
                body += (await self.take(self.reader.readexactly(size + 2)))[:-2]
            await self.take(self.reader.readexactly(2))
        elif b"content-length" in known:
            body = await self.take(self.reader.readexactly(int(known[b"content-length"])))
        return Received(line, headers, body, self.raw)

    async def take(self, reading: Awaitable[bytes]) -> bytes:
        data = await reading
        self.raw += data
        return data


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[UpstreamSide, Received], Awaitable[None]]


async def answer_ok(side: UpstreamSide, _request: Received) -> None:
    side.send(OK)


def answering(data: bytes, *, close: bool = False) -> Script:
    """A script that sends these bytes to every request."""

    async def script(side: UpstreamSide, _request: Received) -> None:
        side.send(data)
        if close:
            side.close()

    return script


class RecordingUpstream:
    """A server that keeps every request it got and every byte, and answers by its script."""

    def __init__(self) -> None:
        self.script: Script = answer_ok
        self.requests: list[Received] = []
        self.sides: list[UpstreamSide] = []
        self.arrived = asyncio.Condition()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def raw(self) -> bytes:
        return b"".join(side.raw for side in self.sides)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, ssl: object = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=ssl, backlog=4_096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for side in self.sides:
            side.writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def got(self, count: int) -> None:
        """Wait until that many requests have come."""
        async with asyncio.timeout(TIMEOUT), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        side = UpstreamSide(len(self.sides), reader, writer)
        self.sides.append(side)
        try:
            while not writer.is_closing():
                request = await side.request()
                self.requests.append(request)
                async with self.arrived:
                    self.arrived.notify_all()
                await self.script(side, request)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            side.gone.set()
            writer.transport.abort()


@asynccontextmanager
async def recording_upstream(script: Script = answer_ok, *, ssl: object = None) -> AsyncIterator[RecordingUpstream]:
    upstream = RecordingUpstream()
    upstream.script = script
    await upstream.start(ssl)
    try:
        yield upstream
    finally:
        await upstream.stop()
