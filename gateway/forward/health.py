"""Active health checks of upstream servers."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from gateway.forward.upstream_server import UpstreamServer
from gateway.runtime.tasks import StallTolerantTimeout

if TYPE_CHECKING:
    from gateway.config.settings import Health

_log = structlog.get_logger(__name__)


async def watch(server: UpstreamServer, health: "Health") -> None:
    """Check one server, then wait for the check interval."""
    up = await is_up(server, health)
    if up is not server.condition.up:
        _log.warning("upstream_server_up" if up else "upstream_server_down", upstream=server.upstream, server=server.url)
    server.condition.checked(up=up)
    await asyncio.sleep(health.interval_ms / 1000)


async def is_up(server: UpstreamServer, health: "Health") -> bool:
    """Whether a GET of the health path, on a separate connection, is answered 2xx in time."""
    request = f"GET {health.path} HTTP/1.1\r\nhost: {server.authority}\r\nuser-agent: gerbang-health\r\nconnection: close\r\n\r\n"
    writer: asyncio.StreamWriter | None = None
    try:
        async with StallTolerantTimeout(health.timeout_ms / 1000):
            reader, writer = await asyncio.open_connection(
                server.host, server.port, ssl=server.tls, server_hostname=server.server_name, limit=4_096
            )
            writer.write(request.encode())
            line = await reader.readuntil(b"\r\n")
            return line.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2"))
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()
