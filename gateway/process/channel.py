"""The channel between the parent and a worker: requests and replies as JSON frames over a socket pair.

A frame is four bytes of length, big-endian, and a JSON object. The parent asks, ``{"id": 1, "do": "prepare", …}``; the worker answers
``{"id": 1, "ok": {…}}`` or ``{"id": 1, "error": "…"}``. Either end signals its exit by closing.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.errors import GerbangError
from gateway.runtime.tasks import StallTolerantTimeout, spawn

MAX_FRAME = 64 * 1024 * 1024
"""A configuration with tens of thousands of routes is a few megabytes."""

Message = dict[str, Any]


class WorkerFailed(GerbangError):
    """A worker did not do what it was asked: it said why, it did not answer in time, or it is gone."""


class Frames:
    """Whole JSON objects over a stream socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connected: socket.socket) -> "Frames":
        """Take over one end of a socket pair."""
        connected.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connected))

    async def send(self, message: Message) -> None:
        """Send one message. A peer that is gone is noticed by :meth:`receive`."""
        body = json.dumps(message).encode()
        self._writer.write(len(body).to_bytes(4, "big") + body)
        try:
            await self._writer.drain()
        except OSError:
            return

    async def receive(self) -> Message | None:
        """The next message, or ``None`` when the peer is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            if length > MAX_FRAME:
                return None
            message: Message = json.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return message

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


class Caller:
    """The parent's end: asks, and matches replies to questions."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0
        self._reading = spawn(self._read(), name="control-caller")
        self.gone = False

    async def call(self, do: str, *, timeout_ms: int, **values: Any) -> Any:
        """Ask the worker to do something and return what it answers.

        :raises WorkerFailed: with the worker's own reason, or that it is gone or did not answer in time
        """
        if self.gone:
            raise WorkerFailed("is gone")
        self._last_id += 1
        number = self._last_id
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with StallTolerantTimeout(timeout_ms / 1000):
                await self._frames.send({"id": number, "do": do, **values})
                answer = await reply
        except TimeoutError:
            raise WorkerFailed(f"did not answer {do} within {timeout_ms} ms") from None
        finally:
            del self._waiting[number]
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["ok"]

    async def _read(self) -> None:
        while (message := await self._frames.receive()) is not None:
            reply = self._waiting.get(message["id"])
            if reply is not None and not reply.done():
                reply.set_result(message)
        self.gone = True
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_result({"error": "is gone"})
        self._frames.close()

    async def close(self) -> None:
        """Hang up: the worker ends at once."""
        self._frames.close()
        await asyncio.wait([self._reading])


async def answer(frames: Frames, handle: Callable[[str, Message], Awaitable[object]]) -> None:
    """The worker's end: do what is asked, each in a task of its own, until the parent is gone.

    :param handle: does one thing and returns what JSON can carry; what it raises is reported to the parent
    """

    async def one(message: Message) -> None:
        try:
            reply = {"ok": await handle(message["do"], message)}
        except GerbangError as error:
            reply = {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - the parent decides what a defect of a worker means
            reply = {"error": f"{type(error).__name__}: {error}"}
        await frames.send({"id": message["id"], **reply})

    while (message := await frames.receive()) is not None:
        spawn(one(message), name=f"control-{message['do']}")
