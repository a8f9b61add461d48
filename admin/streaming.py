"""Streams the audit log to a file or syslog, as JSON lines with the chain's hash.

A line is an event as ``gerbang audit list --json`` shows it: ``id``, ``at``, ``event``, ``actor``, ``account_id``, ``key_id``,
``client_ip``, ``detail``, ``hash``. Delivered at least once and in order. The resume point is the last line of the file or, for syslog,
of the file ``resume``. If the event at the resume point is missing or different, the database was restored or tampered with: streaming
stops until an operator intervenes, and the log and a metric report it.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import structlog

from admin import audit
from admin.audit import Recorded
from admin.config import AuditStream
from admin.metrics import AdminMetrics
from admin.stores import Stores
from gateway.errors import GerbangError, StoreUnavailable
from gateway.keys.postgres import Connection
from gateway.runtime.tasks import cancel, repeat

_BATCH = 500
_TAIL = 65_536
_FACILITY_AUDIT_NOTICE = 13 * 8 + 5
"""RFC 5424 §6.2.1: log audit, notice."""
_SYSLOG_S = 5.0
_TAKE_TURNS = "SELECT pg_try_advisory_xact_lock(hashtextextended('audit stream ' || $1, 0))"
"""Processes that share a file write one at a time."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class Diverged(GerbangError):
    """The audit log is not the one that was streamed before."""


class SinkFailed(GerbangError):
    """The file or syslog could not be read or written. Raised within a transaction, an ``OSError`` would count as PostgreSQL's."""


class Point(NamedTuple):
    """A position in the stream: number and hash of the last event; number 0: the beginning."""

    seq: int
    hash: bytes


def line(event: Recorded, digest: bytes) -> str:
    """An event as one line of JSON."""
    return json.dumps({**event.as_json(), "hash": digest.hex()}, ensure_ascii=False)


def point_of(path: Path) -> Point:
    """The resume point in the last complete line of a stream's file.

    :raises Diverged: that line is not an event
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            text = file.read()
    except FileNotFoundError:
        return Point(0, audit.GENESIS)
    lines = text[: text.rfind(b"\n") + 1].splitlines()
    if not lines:
        return Point(0, audit.GENESIS)
    try:
        last = json.loads(lines[-1])
        return Point(int(last["id"]), bytes.fromhex(last["hash"]))
    except (ValueError, KeyError, TypeError):
        raise Diverged(f"{path} does not end with an audit event: move it away to start a new file") from None


class FileSink:
    """Appends to a file, with fsync. An incomplete last line, left by a crash, is removed."""

    def __init__(self, path: Path) -> None:
        self.place = path
        """The file with the resume point."""
        self.name = str(path)

    def point(self) -> Point:
        return point_of(self.place)

    def write(self, lines: list[str]) -> None:
        descriptor = os.open(self.place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL))
            tail = file.read()
            whole = end - len(tail) + tail.rfind(b"\n") + 1
            file.truncate(whole)
            file.seek(whole)
            file.write("".join(f"{each}\n" for each in lines).encode())
            file.flush()
            os.fsync(file.fileno())


class SyslogSink:
    """Sends RFC 5424 messages; the resume point is written to a separate file after each batch."""

    def __init__(self, url: str, resume: Path) -> None:
        self._url = self.name = url
        self.place = resume
        """The file with the resume point."""

    def point(self) -> Point:
        return point_of(self.place)

    def write(self, lines: list[str]) -> None:
        parts = urlsplit(self._url)
        stream = parts.scheme == "tcp"
        with _connected(self._url) as connection:
            for each in lines:
                message = f"<{_FACILITY_AUDIT_NOTICE}>1 {json.loads(each)['at']} - gerbang-admin - audit - {each}".encode()
                # RFC 6587 §3.4.1: octet counting, so that no content can end a message.
                connection.sendall(b"%d %b" % (len(message), message) if stream else message)
        beside = self.place.with_name(f".{self.place.name}.new")
        FileSink(beside).write(lines[-1:])
        beside.replace(self.place)


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "tcp":
        return socket.create_connection((parts.hostname or "", parts.port or 601), _SYSLOG_S)
    if parts.scheme == "unix":
        connection, target = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), parts.path
    else:
        family, kind, protocol, _, target = socket.getaddrinfo(parts.hostname, parts.port or 514, type=socket.SOCK_DGRAM)[0]  # type: ignore[assignment]
        connection = socket.socket(family, kind, protocol)
    try:
        connection.settimeout(_SYSLOG_S)
        connection.connect(target)
    except OSError:
        connection.close()
        raise
    return connection


Sink = FileSink | SyslogSink


async def advance(stores: Stores, sink: Sink, metrics: AdminMetrics) -> None:
    """Write all events after the resume point, unless another process is doing so.

    :raises Diverged, SinkFailed, StoreUnavailable: events written before the error remain written
    """
    async with stores.transaction() as connection:
        if await connection.fetchval(_TAKE_TURNS, str(sink.place)):
            await _advance(connection, sink, metrics)


async def _advance(connection: Connection, sink: Sink, metrics: AdminMetrics) -> None:
    point = await _of_sink(sink, sink.point)
    while True:
        events = await audit.since(connection, point.seq, limit=_BATCH)
        if point.seq and (not events or events[0][0].seq != point.seq or events[0][1] != point.hash):
            raise Diverged(f"event {point.seq} is missing or differs from the streamed one: was a backup restored?")
        fresh = [event for event in events if event[0].seq > point.seq]
        if fresh:
            await _of_sink(sink, partial(sink.write, [line(*event) for event in fresh]))
            point = Point(fresh[-1][0].seq, fresh[-1][1])
        metrics.streamed(sink.name, point.seq)
        if len(events) < _BATCH:
            return


async def _of_sink(sink: Sink, call: Callable[[], T]) -> T:
    """:raises SinkFailed: names the sink and the error"""
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise SinkFailed(f"{sink.name}: {error.strerror or error}") from None


@asynccontextmanager
async def streaming(settings: AuditStream, stores: Stores, metrics: AdminMetrics) -> AsyncIterator[None]:
    """Stream in the background until the end of the block, if a stream is configured."""
    sinks = sinks_of(settings)
    metrics.streams_begin()
    tasks = [repeat(partial(_run, stores, sink, metrics, settings.interval_ms / 1000), name="audit-stream") for sink in sinks]
    try:
        yield
    finally:
        await cancel(*tasks)


def sinks_of(settings: AuditStream) -> list[Sink]:
    """The configured sinks."""
    sinks: list[Sink] = [] if settings.file is None else [FileSink(settings.file)]
    if settings.syslog is not None and settings.resume is not None:
        sinks.append(SyslogSink(settings.syslog, settings.resume))
    return sinks


async def _run(stores: Stores, sink: Sink, metrics: AdminMetrics, interval_s: float) -> None:
    try:
        await advance(stores, sink, metrics)
    except (Diverged, SinkFailed, StoreUnavailable) as error:
        metrics.not_streamed(sink.name)
        _log.error("audit_not_streamed", reason=str(error))
    await asyncio.sleep(interval_s)
