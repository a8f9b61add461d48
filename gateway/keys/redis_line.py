"""A minimal Redis client on hiredis, for callers that send many commands of one kind.

redis-py opens the connection (TLS, login, Sentinel discovery) and keeps it in its pool as in use; commands are written and replies
read here. Each round trip has a connection to itself. A connection that failed, was cancelled, or reported that its server is no longer the
primary is dropped, so that no late reply can be mistaken for another and the next round trip discovers the server again.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import hiredis
from redis.asyncio import ConnectionPool, Redis

from gateway.runtime.tasks import spawn

_ELSEWHERE: Final = ("READONLY", "LOADING", "MASTERDOWN")
"""Errors of a server that currently refuses writes, while another may accept them."""

Command = bytes | tuple[str | bytes | int, ...]
"""Packed, or as redis-py's arguments."""

_SET: Final = b"*6\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nPX\r\n$%d\r\n%b\r\n$2\r\nNX\r\n"


class _Connection:
    """Has the methods of :class:`asyncio.Protocol`, and replaces redis-py's own protocol."""

    __slots__ = ("_closed", "_expected", "_pool", "_reader", "_replaced", "_replied", "_replies", "_source", "_transport", "usable")

    def __init__(self, pool: Any, source: Any) -> None:
        self._pool = pool
        self._source = source
        self._transport: asyncio.Transport = source._writer.transport  # noqa: SLF001 - redis-py has no name for it
        self._replaced = cast("asyncio.Protocol", self._transport.get_protocol())
        self._reader = hiredis.Reader()
        self._replies: list[object] = []
        self._expected = 0
        self._replied: asyncio.Future[None] | None = None
        self._closed = False
        self.usable = True
        self._transport.set_protocol(cast("asyncio.Protocol", self))

    async def ask(self, commands: bytes, expected: int) -> list[object]:
        """See :meth:`RedisLine.ask`."""
        self._replies = []
        self._expected = expected
        self._replied = asyncio.get_running_loop().create_future()
        self._transport.write(commands)
        try:
            await self._replied
        except BaseException:
            self.usable = False
            raise
        return self._replies

    def drop(self) -> None:
        """Close it, and return it to redis-py, which will reconnect it."""
        self.usable = False
        if not self._closed:
            self._closed = True
            self._transport.abort()
            spawn(self._give_back(), name="return a connection to Redis")

    async def _give_back(self) -> None:
        await self._source.disconnect(nowait=True)
        await self._pool.release(self._source)

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            reply: object = self._reader.gets()
            while reply is not False:
                self._replies.append(reply)
                if isinstance(reply, hiredis.ReplyError) and str(reply).startswith(_ELSEWHERE):
                    self.usable = False
                reply = self._reader.gets()
        except hiredis.HiredisError as error:
            self._fail(ConnectionError(f"not the Redis protocol: {error}"))
            self._transport.abort()
            return
        if len(self._replies) > self._expected:
            self._fail(ConnectionError("an unsolicited reply"))
            self._transport.abort()
        elif len(self._replies) == self._expected and self._replied is not None and not self._replied.done():
            self._replied.set_result(None)

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"the connection was lost: {exc or 'closed by the server'}"))
        self._replaced.connection_lost(exc)  # redis-py waits for this when it closes

    def pause_writing(self) -> None:
        """Nothing to do: a batch is small, and the next one waits for its replies."""

    def resume_writing(self) -> None:
        """See :meth:`pause_writing`."""

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._replied is not None and not self._replied.done():
            self._replied.set_exception(error)


class RedisLine:
    """Round trips to one server. Sequential ones reuse a connection; concurrent ones have one each."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._idle: list[_Connection] = []

    @classmethod
    def of(cls, redis: object) -> "RedisLine | None":
        """Use the connections of this client; ``None`` for a Cluster client, which has several servers."""
        pool = redis.connection_pool if isinstance(redis, Redis) else None
        return cls(pool) if isinstance(pool, ConnectionPool) else None

    async def ask(self, commands: bytes, replies: int) -> list[object]:
        """Send commands in one write and await their replies: bytes, numbers, ``None``; a :class:`hiredis.ReplyError` for an error.

        :param commands: packed (:func:`packed`)
        :param replies: expected number of replies
        :raises OSError: no connection, or it was lost (whether the commands were executed is not known); redis-py's errors, too
        """
        connection = self._take()
        if connection is None:
            connection = _Connection(self._pool, await self._pool.get_connection())
        try:
            return await connection.ask(commands, replies)
        finally:
            if connection.usable:
                self._idle.append(connection)
            else:
                connection.drop()

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.drop()
        return None


async def ask_all(redis: Any, line: RedisLine | None, commands: Sequence[Command]) -> Sequence[object]:
    """Send commands, whose keys may be on several servers, and await their replies; an exception for an error.

    :param line: of ``redis``; ``None`` for a Cluster, whose client takes no packed commands
    :raises OSError: see :meth:`RedisLine.ask`
    """
    if line is not None:
        return await line.ask(b"".join([command if isinstance(command, bytes) else packed(command) for command in commands]), len(commands))
    pipeline = redis.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    replies: Sequence[object] = await pipeline.execute(raise_on_error=False)
    return replies


def packed(command: Iterable[Any]) -> bytes:
    """One command in the Redis protocol."""
    made: bytes = hiredis.pack_command(tuple(command))
    return made


def packed_set(name: bytes, value: bytes, ttl_ms: int) -> bytes:
    """``SET name value PX ttl NX`` as :func:`packed` makes it, in a third of the time."""
    ttl = b"%d" % ttl_ms
    return _SET % (len(name), name, len(value), value, len(ttl), ttl)
