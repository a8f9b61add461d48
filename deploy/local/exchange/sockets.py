"""The demo exchange's WebSockets: limits, backpressure, broadcasting."""

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from deploy.local.exchange.feed import Feed, Listener, Topic
from deploy.local.exchange.orders import OrderRefused
from gateway.runtime import tasks

MAX_SOCKETS = 2_000
MAX_MESSAGE_BYTES = 65_536 + 4_096
"""The gateway's default maximum message size, plus its own member."""
MAX_SUBSCRIPTIONS = 1_024
"""Maximum subscriptions of one socket."""
MAX_WAITING_CHARACTERS = 1_048_576
"""Unsent output per client; a client that is further behind is disconnected."""
HEARTBEAT_S = 20


class Socket:
    """One client's WebSocket. Sending never blocks."""

    def __init__(self, feed: Feed, response: web.WebSocketResponse, request: web.Request) -> None:
        self._feed = feed
        self._response = response
        self._transport = request.transport
        self._outbox: asyncio.Queue[str] = asyncio.Queue()
        self._waiting = 0
        self._topics: set[tuple[Topic, object]] = set()

    def send(self, message: object, write: Callable[[object], str] = json.dumps) -> None:
        """Queue a message; abort the connection when too much is queued already."""
        text = write(message)
        self._waiting += len(text)
        if self._waiting > MAX_WAITING_CHARACTERS:
            if self._transport is not None:
                self._transport.abort()  # a Close frame would be queued behind the unread output
            return
        self._outbox.put_nowait(text)

    def listen(self, topic: Topic, name: str, listener: Listener) -> None:
        """Subscribe to a topic until :meth:`leave` or the end.

        :param name: distinguishes several listeners of one socket
        :raises OrderRefused: there are too many
        """
        owner = (id(self), name)
        if len(self._topics) >= MAX_SUBSCRIPTIONS:
            raise OrderRefused("too_many_subscriptions", f"at most {MAX_SUBSCRIPTIONS} subscriptions of a connection")
        self._feed.listen(topic, owner, listener)
        self._topics.add((topic, owner))

    def leave(self, topic: Topic, name: str) -> None:
        owner = (id(self), name)
        self._feed.leave(topic, owner)
        self._topics.discard((topic, owner))

    def leave_all(self) -> None:
        for topic, owner in self._topics:
            self._feed.leave(topic, owner)
        self._topics.clear()

    async def write(self) -> None:
        """Send what is queued, until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while True:
                text = await self._outbox.get()
                await self._response.send_str(text)
                self._waiting -= len(text)


class Session(ABC):
    """One API's handling of one socket."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    def opened(self) -> None:  # noqa: B027  # most begin with a message of the client
        """The handshake is complete."""

    @abstractmethod
    async def received(self, text: str) -> None:
        """Handle a client's message. Answers are sent on the socket; never raises."""


class Sockets:
    """All WebSockets of this process."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._open: set[web.WebSocketResponse] = set()

    async def serve(self, request: web.Request, session_on: Callable[[Socket], Session]) -> web.StreamResponse:
        """Answer a handshake and run the session until either end closes it."""
        if len(self._open) >= MAX_SOCKETS:
            return web.json_response({"error": {"code": "too_many_connections", "message": "too many WebSockets"}}, status=503)
        response = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE_BYTES, compress=False)
        if "Upgrade" not in request.headers:
            wanted = {"error": {"code": "websocket_required", "message": "open this path as a WebSocket: ws:// or wss://"}}
            return web.json_response(wanted, status=426, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        await response.prepare(request)
        socket = Socket(self._feed, response, request)
        self._open.add(response)
        writer = tasks.spawn(socket.write(), name="socket writer")
        try:
            session = session_on(socket)
            session.opened()
            async for message in response:
                if message.type is not WSMsgType.TEXT:
                    await response.close(code=WSCloseCode.UNSUPPORTED_DATA)
                    break
                await session.received(message.data)
        finally:
            socket.leave_all()
            self._open.discard(response)
            await tasks.cancel(writer)
        return response

    async def close(self, _app: web.Application) -> None:
        """Notify every client that the service is stopping."""
        for response in tuple(self._open):
            with contextlib.suppress(ConnectionError):
                await response.close(code=WSCloseCode.GOING_AWAY)


def json_object(data: str | bytes, **how: Any) -> dict[str, Any] | None:
    """Parse a message or body as a JSON object; ``None``: it is not one.

    :param how: options of :func:`json.loads`
    """
    try:
        found = json.loads(data, **how)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
