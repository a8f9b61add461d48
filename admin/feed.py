"""Maintains the change feed: writes markers, and deletes entries that every reader has passed."""

import asyncio

import structlog

from admin.stores import Stores
from gateway.errors import StoreUnavailable
from gateway.keys import sql

MARK_SECONDS = 10.0
KEPT_SECONDS = 900.0
"""Longer than the validity of any record in Redis (``trust.MAX_RECORD_TTL_MS``). A gate that has not read the feed for longer has a gap."""

_log = structlog.get_logger(__name__)


async def maintain(stores: Stores) -> None:
    """Mark and prune, then wait until it is due again. Safe to run in several services, which share one mark."""
    try:
        await mark_and_prune(stores)
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
