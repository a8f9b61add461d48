"""PostgreSQL and Redis as the services use them: a transaction, and what follows a commit. No SQL, no rules."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.exceptions import RedisError

from gateway.errors import StoreUnavailable
from gateway.keys import usage
from gateway.keys.postgres import COMMAND_SECONDS, Connection, Pool, translated

Publish = Callable[[Any, Sequence[str]], Awaitable[object]]
"""``gateway.keys.invalidation.publish``: tells the gateways by Redis that keys changed."""

_log = structlog.get_logger(__name__)


class Stores:
    """Both stores of one process.

    :param redis: any of redis-py's asyncio clients
    """

    def __init__(self, pool: Pool, redis: Any, publish: Publish) -> None:
        self.pool = pool
        self.redis = redis
        self._publish = publish

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        :raises StoreUnavailable: PostgreSQL did not answer; when that happens at the commit, whether it was made is not known
        """
        with translated():
            async with self.pool.acquire(timeout=COMMAND_SECONDS) as connection, connection.transaction():
                yield connection  # type: ignore[misc]  # a proxy with the connection's own methods

    async def invalidate(self, key_ids: Sequence[str]) -> None:
        """Tell the gateways, after the commit. A failure is logged, not raised: PostgreSQL notifies them by its trigger as well."""
        if not key_ids:
            return
        try:
            await self._publish(self.redis, key_ids)
        except (StoreUnavailable, RedisError, OSError) as error:
            _log.warning("invalidation_not_published", keys=len(key_ids), error=type(error).__name__)

    async def last_use(self, key_ids: Sequence[str]) -> dict[str, usage.LastUse]:
        """When and from where keys were last used; empty when Redis cannot say."""
        if not key_ids:
            return {}
        try:
            return await usage.read_last_use(self.redis, key_ids)
        except StoreUnavailable as error:
            _log.warning("last_use_unknown", error=str(error))
            return {}

    async def forget_usage(self, key_id: str, now_ms: int) -> None:
        """Drop the statistics of a deleted key; they end by themselves when Redis cannot be told."""
        try:
            await usage.forget(self.redis, key_id, now_ms=now_ms)
        except StoreUnavailable as error:
            _log.warning("usage_not_forgotten", error=str(error))
