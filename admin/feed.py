"""Maintains the change feed: writes markers, and deletes entries that every reader has passed. Removes outdated key records from Redis."""

import asyncio

import structlog

from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import sql
from gateway.keys.shared import TOGETHER, forget

MARK_SECONDS = 10.0
KEPT_SECONDS = 900.0
"""Longer than the validity of any record in Redis (``trust.MAX_RECORD_TTL_MS``). A gate that has not read the feed for longer has a gap."""
OUTDATED_SECONDS = 310.0
"""How long after a change a record from before may be in Redis: a little more than that validity."""

_log = structlog.get_logger(__name__)


async def maintain(stores: Stores) -> None:
    """Mark, prune and remove records, then wait until it is due again. Safe to run in several services, which share one mark."""
    try:
        await mark_and_prune(stores)
        await remove_outdated(stores)
    except StoreUnavailable as error:
        _log.warning("key_feed_not_tended", reason=str(error))
    await asyncio.sleep(MARK_SECONDS)


async def mark_and_prune(stores: Stores, *, marked_s: float = MARK_SECONDS / 2, kept_s: float = KEPT_SECONDS) -> None:
    """Mark and prune once.

    :param marked_s: no mark is made if there is one younger than this
    :param kept_s: changes of this time stay in the feed
    :raises StoreUnavailable: PostgreSQL did not answer
    """
    async with stores.transaction() as connection:
        for statement in sql.DROP_FOREIGN:
            await connection.execute(statement)
        await connection.execute(sql.MARK_FEED, marked_s)
        await connection.execute(sql.PRUNE_FEED, kept_s)


async def remove_outdated(stores: Stores) -> None:
    """Remove from Redis whatever it holds of keys that have changed of late.

    Each change removes its record when it is announced. Redis may have been away then, a failover may have brought the record back, or a
    gate may have written it late. Gates that read the feed do not use it (``trust``); those that cannot might.

    :raises StoreUnavailable: PostgreSQL or Redis did not answer
    """
    async with stores.transaction() as connection:  # by a cursor: 200,000 rows at once would take a quarter of a second of the event loop
        key_ids = [row["key_id"] async for row in connection.cursor(sql.CHANGED_KEYS, OUTDATED_SECONDS, prefetch=TOGETHER)]
    await forget(stores.redis, key_ids)
