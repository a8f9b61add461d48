"""PostgreSQL and Redis for the services: transactions, and actions after a commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from admin.errors import StepUpFailed
from gateway.errors import GerbangError, StoreUnavailable
from gateway.keys import redis_client, usage_store
from gateway.keys.invalidation import publish
from gateway.keys.postgres import COMMAND_SECONDS, Connection, Pool, translated
from gateway.runtime import clock
from gateway.telemetry import AccessLog

_log = structlog.get_logger(__name__)


_RETRY_S = 0.5
NEEDED = """
    SELECT seq, tier, login, first_ms, horizon, secret_digest
      FROM audit_events, accounts, login_failures, key_activity, key_feed_marks, api_keys LIMIT 0
"""
"""Fails unless the database has the latest migrations that this service needs."""


class SchemaOutdated(GerbangError):
    """The database lacks what this version needs."""


class Stores:
    """Both stores of one process.

    :param redis: any of redis-py's asyncio clients
    """

    def __init__(self, pool: Pool, redis: Any) -> None:
        self.pool = pool
        self.redis = redis
        self._budget = AccessLog(0.0)
        """Of unready answers in the log: anyone can ask."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """One transaction: committed at the end of the block, rolled back when it raises.

        It is also committed when the block raises ``StepUpFailed``, so that no wrong proof remains uncounted and unaudited.

        :raises StoreUnavailable: PostgreSQL did not answer; if the commit was sent, its outcome is unknown
        """
        failed: StepUpFailed | None = None
        with translated():
            async with self.pool.acquire(timeout=COMMAND_SECONDS) as connection, connection.transaction():
                try:
                    yield connection  # type: ignore[misc]  # a proxy with the connection's own methods
                except StepUpFailed as error:
                    failed = error
        if failed is not None:
            raise failed

    async def wait(self, seconds: float) -> None:
        """Wait until PostgreSQL answers and its schema is up to date.

        :raises StoreUnavailable: it did not answer in time; says why
        :raises SchemaOutdated: it was not migrated
        """
        deadline_ms = clock.monotonic_ms() + int(seconds * 1000)
        while True:
            try:
                await self._check_schema()
            except StoreUnavailable as error:
                if clock.monotonic_ms() >= deadline_ms:
                    raise
                _log.warning("waiting_for_postgres", reason=str(error))
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def missing(self) -> list[str]:
        """The names of the unavailable stores."""
        missing = []
        try:
            await self._check_schema()
        except (StoreUnavailable, SchemaOutdated) as error:
            missing.append("postgres")
            self._note_missing("postgres", error)
        try:
            with redis_client.translated():
                await self.redis.ping()
        except StoreUnavailable as error:
            missing.append("redis")
            self._note_missing("redis", error)
        return missing

    def _note_missing(self, store: str, error: Exception) -> None:
        if self._budget.takes(clock.monotonic_ms()):
            _log.warning("not_ready", store=store, reason=str(error))

    async def _check_schema(self) -> None:
        try:
            with translated():
                await self.pool.fetch(NEEDED)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InsufficientPrivilegeError) as error:
            raise SchemaOutdated(f"the database's schema is not up to date ({error.args[0]}): run `gerbang migrate`") from None

    async def invalidate(self, key_ids: Sequence[str]) -> None:
        """Notify the gateways, after the commit. A failure is logged, not raised: the change feed also has the change."""
        if not key_ids:
            return
        try:
            await publish(self.redis, key_ids, now_ms=clock.now_ms())
        except StoreUnavailable as error:
            _log.warning("invalidation_not_published", keys=len(key_ids), error=str(error))

    async def last_use(self, key_ids: Sequence[str]) -> dict[str, usage_store.LastUse]:
        """When and from where keys were last used; empty if Redis is unavailable."""
        if not key_ids:
            return {}
        try:
            return await usage_store.read_last_use(self.redis, key_ids)
        except StoreUnavailable as error:
            _log.warning("last_use_unknown", error=str(error))
            return {}

    async def forget_usage(self, key_id: str, now_ms: int) -> None:
        """Remove the statistics of a deleted key; they expire by themselves if Redis is unavailable."""
        try:
            await usage_store.forget(self.redis, key_id, now_ms=now_ms)
        except StoreUnavailable as error:
            _log.warning("usage_not_forgotten", error=str(error))
