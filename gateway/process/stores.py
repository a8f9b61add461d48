"""A worker's PostgreSQL and Redis connections and its vault: opened, checked at the start, probed for readiness."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, NamedTuple, Self

import structlog
from redis.asyncio import Redis

from gateway.errors import ConfigError, ConfigProblem, StoreUnavailable
from gateway.keys import postgres, redis_client, ring
from gateway.keys.invalidation import WHOLE_FEED_SECONDS, read_feed
from gateway.keys.trust import Now
from gateway.keys.vault import Vault
from gateway.runtime.tasks import StallTolerantTimeout

if TYPE_CHECKING:
    from gateway.config.settings import GatewaySettings

_log = structlog.get_logger(__name__)

PROBE_SECONDS = 1.0


class Stores(NamedTuple):
    """See the module."""

    pool: postgres.Pool
    redis: Redis
    timed: Redis
    """The same Redis, for callers that limit a round trip themselves (``StallTolerantTimeout``)."""
    vault: Vault

    @classmethod
    async def open(cls, settings: "GatewaySettings") -> Self:
        """Create the clients, which connect on first use.

        :raises ConfigError: a URL or a key is malformed
        """
        vault = Vault.parse(settings.vault.keys.get_secret_value())
        url = settings.stores.redis.get_secret_value()
        redis, timed = redis_client.connect(url), redis_client.connect(url, time_each_reply=False)
        return cls(await postgres.create_pool(settings.stores.postgres.get_secret_value()), redis, timed, vault)

    async def check(self) -> None:
        """Check at start-up that all stores can be used.

        :raises ConfigError: names the setting and the error
        """
        problems = []
        for where, check in (("stores.postgres", self._check_keys()), ("stores.redis", self._check_redis())):
            try:
                await check
            except StoreUnavailable as error:
                problems.append(ConfigProblem(where, str(error)))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)

    async def _check_keys(self) -> None:
        await ring.check(self.pool, self.vault)
        with ring.migrated():
            await read_feed(self.pool, None, Now(0, 0), seconds=WHOLE_FEED_SECONDS)
            if await self.pool.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
                _log.warning("postgres_role_is_superuser", advice="use gerbang_gateway, which can only read keys")

    async def _check_redis(self) -> None:
        """Fail if Redis refuses the connection; if it is unavailable, the gateway starts without it."""
        try:
            with redis_client.translated():
                await self.redis.ping()
        except redis_client.RedisRefused:
            raise
        except StoreUnavailable as error:
            _log.warning(
                "starts_degraded",
                away="redis",
                reason=str(error),
                advice="until Redis is back, replay_outage decides on requests that need the replay guard",
            )

    async def unavailable(self) -> list[str]:
        """The unavailable ones of ``postgres`` and ``redis``."""
        names = ("postgres", "redis")
        answers = await asyncio.gather(
            *(_in_time(probe) for probe in (self.pool.fetchval("SELECT 1"), self.timed.ping())), return_exceptions=True
        )
        return [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, BaseException)]

    async def close(self) -> None:
        """Close every connection."""
        self.pool.terminate()
        await self.redis.aclose()
        await self.timed.aclose()


async def _in_time(probe: Awaitable[object]) -> None:
    async with StallTolerantTimeout(PROBE_SECONDS):
        await probe
