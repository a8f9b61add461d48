"""The shared key cache in Redis: sealed key records for all workers and machines.

    gerbang:{<key id>}:record    a sealed record (``codec``), until its validity ends

An outdated record does no harm: its seal binds the position in the change feed at which it was true, and a reader uses it only if it
has seen all later changes (``trust``). A change removes the record as well, for gateways that cannot read the feed. Unknown ids are never
written.
"""

from collections.abc import Iterable, Sequence

import structlog
from redis.asyncio import Redis, RedisCluster

from gateway.keys.codec import DatedRecord, RecordUnreadable, open_record, seal_record
from gateway.keys.redis_client import translated
from gateway.keys.vault import Vault

TOGETHER = 500
"""Records that one command removes."""
_log = structlog.get_logger(__name__)


class SharedRecords:
    """Reads and writes records. Every method raises :class:`StoreUnavailable` when Redis does not answer."""

    def __init__(self, redis: Redis, vault: Vault) -> None:
        self._redis = redis
        self._vault = vault

    async def read(self, key_ids: Sequence[str]) -> dict[str, DatedRecord]:
        """The stored records, in one round trip. One that does not open is logged and treated as missing."""
        names = [record_key(key_id) for key_id in key_ids]
        with translated():
            held: list[bytes | None]
            if isinstance(self._redis, RedisCluster):
                held = await self._redis.mget_nonatomic(names)
            else:
                held = await self._redis.mget(names)  # type: ignore[assignment]  # bytes: nothing is decoded
        found = {}
        for key_id, sealed in zip(key_ids, held, strict=True):
            if sealed is not None:
                try:
                    found[key_id] = open_record(sealed, self._vault, expected_key_id=key_id)
                except RecordUnreadable as error:
                    _log.warning("shared_record_unreadable", key_id=key_id, reason=str(error))
        return found

    async def write(self, records: Iterable[DatedRecord], *, now_ms: int) -> None:
        """Store records, each until its validity ends, in one round trip."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for dated in records:
                remaining_ms = dated.read_ms + dated.ttl_ms - now_ms
                if remaining_ms > 0:
                    pipeline.set(record_key(dated.record.key_id), seal_record(dated, self._vault), px=remaining_ms)
            with translated():
                await pipeline.execute()

    async def forget(self, key_ids: Sequence[str]) -> None:
        """:func:`forget`."""
        await forget(self._redis, key_ids)


async def forget(redis: Redis, key_ids: Sequence[str]) -> None:
    """Remove the records of these keys.

    :raises StoreUnavailable: Redis did not accept all of it
    """
    with translated():
        for start in range(0, len(key_ids), TOGETHER):
            await redis.unlink(*map(record_key, key_ids[start : start + TOGETHER]))  # of a Cluster: one for each slot, in one round trip


def record_key(key_id: str) -> str:
    """The name in Redis; the braces keep all of a key's names in one slot of a Cluster."""
    return f"gerbang:{{{key_id}}}:record"
