"""The channel between the parent and a worker: requests and replies as JSON frames over a socket pair.

A frame is four bytes of length, big-endian, and a JSON object. The parent sends ``{"id": 1, "do": "prepare", …}``; the worker answers
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
"""Maximum frame: a configuration with tens of thousands of routes is a few megabytes."""
MAX_CONTENT = MAX_FRAME // 8
"""Maximum content in a frame: JSON writes a control byte with six."""

Message = dict[str, Any]


class WorkerFailed(GerbangError):
    """A worker's call failed: it reported an error, did not answer in time, or has ended."""


class MessageTooLong(WorkerFailed):
    """A message was not sent, because the other end would take its frame for the end of the channel."""


class Frames:
    """JSON objects over a stream socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connected: socket.socket) -> "Frames":
        """Wrap one end of a socket pair."""
        connected.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connected))

    async def send(self, message: Message) -> None:
        """Send one message. :meth:`receive` detects a peer that has ended.

        :raises MessageTooLong: …
        """
        body = json.dumps(message).encode()
        if len(body) > MAX_FRAME:
            raise MessageTooLong(f"a message of {len(body)} bytes is too long for the channel")
        if self._writer.is_closing():  # after a lost connection uvloop's transport would raise RuntimeError
            return
        self._writer.write(len(body).to_bytes(4, "big") + body)
        try:
            await self._writer.drain()
        except OSError:
            return

    async def receive(self) -> Message | None:
        """The next message; ``None``: the peer has ended."""
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
    """The parent's end: sends requests and matches the replies."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._last_id = 0
        self._reading = spawn(self._read(), name="control-caller")
        self.gone = False

    async def call(self, do: str, *, timeout_ms: int, **values: Any) -> Any:
        """Call a method of the worker and return its result.

        :raises WorkerFailed: with the worker's own error, or because it has ended or did not answer in time
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
        """Close the channel, which ends the worker at once."""
        self._frames.close()
        await asyncio.wait([self._reading])


async def answer(frames: Frames, handle: Callable[[str, Message], Awaitable[object]]) -> None:
    """The worker's end: handle each request in a separate task until the parent closes the channel.

    :param handle: performs a request and returns a JSON-serializable result; exceptions are reported to the parent
    """

    async def one(message: Message) -> None:
        try:
            reply = {"ok": await handle(message["do"], message)}
        except GerbangError as error:
            reply = {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - the parent decides what a defect of a worker means
            reply = {"error": f"{type(error).__name__}: {error}"}
        try:
            await frames.send({"id": message["id"], **reply})
        except MessageTooLong as error:
            await frames.send({"id": message["id"], "error": str(error)})

    while (message := await frames.receive()) is not None:
        spawn(one(message), name=f"control-{message['do']}")
