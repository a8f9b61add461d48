"""Watches Redis's ``maxmemory-policy``: eviction would let a replayed request pass. Uses Redis.

With any ``maxmemory-policy`` other than ``noeviction`` a full Redis evicts claims, and the same signature passes again. With ``noeviction``
a full Redis refuses writes: trades are answered 503, and nothing passes twice.
"""

import asyncio
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from gateway.errors import StoreUnavailable
from gateway.keys.redis_client import translated
from gateway.runtime.tasks import StallTolerantTimeout, cancel, repeat
from gateway.telemetry.metrics import Metrics

PERIOD_SECONDS: Final = 60.0
TIMEOUT_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class RedisPolicy:
    """The policy, read at start-up and every minute; in a cluster, from every node that answers."""

    def __init__(self, redis: Redis, *, metrics: Metrics) -> None:
        self._redis = redis
        self._task: asyncio.Task[None] | None = None
        self.evicting = ""
        """The eviction policy; ``""`` if Redis does not evict, or does not tell."""
        self._metrics = metrics

    async def start(self) -> None:
        """Read it once, then periodically in the background."""
        await self.read()
        self._task = repeat(self._watch, name="redis-policy")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            await cancel(self._task)

    async def read(self) -> None:
        """Query Redis. Without an answer the last known policy is kept."""
        try:
            with translated():
                async with StallTolerantTimeout(TIMEOUT_SECONDS):
                    info = await self._redis.info("memory")
        except StoreUnavailable:
            return
        evicting = ", ".join(sorted(set(_policies(info)) - {"noeviction"}))
        if evicting and evicting != self.evicting:
            _log.error("redis_evicts", policy=evicting, advice="set maxmemory-policy noeviction: an evicted claim allows a replay")
        self.evicting = evicting
        self._metrics.redis_evicts = int(bool(evicting))

    async def _watch(self) -> None:
        await asyncio.sleep(PERIOD_SECONDS)
        await self.read()


def _policies(info: dict[str, Any]) -> list[str]:
    """A cluster answers with one dict for each of its nodes."""
    nodes = [info] if "maxmemory_policy" in info else [node for node in info.values() if isinstance(node, dict)]
    return [str(node["maxmemory_policy"]) for node in nodes if "maxmemory_policy" in node]
