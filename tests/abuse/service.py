"""The trading service behind the gate, in a process of its own: what an attack makes it do takes nothing from the bot.

Prints its port, and serves until it is killed. Slow where it is asked to be; its WebSockets read and say nothing.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, cast

import uvloop

from tests.support.session import switching
from tests.support.wire import OK, Received

SLOW_SECONDS = 5


class Side(asyncio.Protocol):
    """One connection of the gate's."""

    def __init__(self) -> None:
        self._data = b""
        self._tunnel = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._tunnel:
            return
        self._data += data
        while not self._tunnel and (request := self._next()) is not None:
            self._answer(request)

    def _next(self) -> Received | None:
        """The next whole request; all of its content comes with a length."""
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return None
        line, *fields = head.split(b"\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (field.partition(b":") for field in fields)]
        length = int(dict(headers).get(b"content-length", b"0"))
        if len(rest) < length:
            return None
        self._data = rest[length:]
        return Received(line, headers, rest[:length], b"")

    def _late(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(OK)

    def _answer(self, request: Received) -> None:
        assert self._transport is not None
        if b"/silent" in request.line or request.values(b"transfer-encoding"):  # of which it does not see the end
            self._tunnel = True
        elif request.values(b"upgrade"):
            self._tunnel = True
            self._transport.write(switching(request))
        elif b"/slow" in request.line:
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._late)
        else:
            self._transport.write(OK)


class Service(NamedTuple):
    """That process."""

    url: str
    pid: int


@asynccontextmanager
async def trading_service() -> AsyncIterator[Service]:
    """It serves."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.abuse.service", stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Service(f"http://127.0.0.1:{int(await process.stdout.readline())}", process.pid)
    finally:
        process.kill()
        await process.wait()


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Side, "127.0.0.1", 0, backlog=4_096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(serve())
