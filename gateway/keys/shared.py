"""Sealed key records in Redis, shared by the workers of all machines, and the tombstones that keep old ones out.

    gerbang:{<key id>}:record    a sealed record (``codec``), or a tombstone: ``changed <Unix ms>``

A change overwrites whatever is there with a tombstone, which stands longer than any record can be valid. A gate writes a record
only where no tombstone stands: a look-up that had read the old row finds it in its way, however late it comes. A tombstone
means: do not believe or write Redis for this key, ask PostgreSQL. Unknown ids are never written.
"""

import asyncio
from collections.abc import Sequence

import structlog
from redis.asyncio import Redis

from gateway.errors import StoreUnavailable
from gateway.keys.codec import DatedRecord, RecordUnreadable, open_record, seal_record
from gateway.keys.redis_client import FAILURES
from gateway.keys.trust import TOMBSTONE_TTL_MS, Shared
from gateway.keys.vault import Vault

_TOGETHER = 50
_TOMBSTONE = b"changed "
# One step in Redis, so that no tombstone comes between looking and writing.
_WRITE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 8) == 'changed ' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_log = structlog.get_logger(__name__)


class SharedRecords:
    """Reads and writes records. Every method raises :class:`StoreUnavailable` when Redis does not answer."""

    def __init__(self, redis: Redis, vault: Vault) -> None:
        self._redis = redis
        self._vault = vault

    async def read(self, key_id: str) -> Shared:
        """What is there now. A record that does not open is logged and counts as no record."""
        try:
            raw: bytes | None = await self._redis.get(record_key(key_id))  # type: ignore[assignment]  # bytes: nothing is decoded
        except FAILURES as error:
            raise _unavailable(error) from None
        if raw is None:
            return Shared()
        if raw.startswith(_TOMBSTONE):
            return Shared(raw, None, _changed_ms(raw))
        try:
            return Shared(raw, open_record(raw, self._vault, expected_key_id=key_id), None)
        except RecordUnreadable as error:
            _log.warning("shared_record_unreadable", key_id=key_id, reason=str(error))
            return Shared(raw)

    async def changed(self, key_ids: Sequence[str]) -> dict[str, int]:
        """When each key changed (Unix ms) over which a tombstone stands. One round trip; nothing is opened."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key_id in key_ids:
                    pipeline.get(record_key(key_id))
                held = await pipeline.execute()
        except FAILURES as error:
            raise _unavailable(error) from None
        return {key_id: _changed_ms(raw) for key_id, raw in zip(key_ids, held, strict=True) if raw and raw.startswith(_TOMBSTONE)}

    async def write(self, dated: DatedRecord, *, now_ms: int) -> None:
        """Put a record there until its time is up; does nothing where a tombstone stands, or after its time."""
        remaining_ms = dated.read_ms + dated.ttl_ms - now_ms
        if remaining_ms <= 0:
            return
        sealed = seal_record(dated, self._vault)
        try:
            await self._redis.eval(_WRITE, 1, record_key(dated.record.key_id), sealed, str(remaining_ms))
        except FAILURES as error:
            raise _unavailable(error) from None

    async def entomb(self, key_id: str, *, now_ms: int) -> None:
        """:func:`entomb` for one key."""
        await entomb(self._redis, [key_id], now_ms=now_ms)


async def entomb(redis: Redis, key_ids: Sequence[str], *, now_ms: int) -> None:
    """Overwrite whatever stands for these keys with a tombstone.

    :raises StoreUnavailable: Redis did not take them all
    """
    tombstone = _TOMBSTONE + str(now_ms).encode()
    for start in range(0, len(key_ids), _TOGETHER):
        some = key_ids[start : start + _TOGETHER]
        outcomes = await asyncio.gather(
            *(redis.set(record_key(key_id), tombstone, px=TOMBSTONE_TTL_MS) for key_id in some), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, FAILURES):
                raise _unavailable(outcome) from None
            if isinstance(outcome, BaseException):
                raise outcome


def record_key(key_id: str) -> str:
    """The name in Redis; the braces keep all of a key's names in one slot of a Cluster."""
    return f"gerbang:{{{key_id}}}:record"


def _changed_ms(tombstone: bytes) -> int:
    """Whoever damaged it: it is still a tombstone, of an unknown moment."""
    digits = tombstone[len(_TOMBSTONE) :]
    return int(digits) if digits.isdigit() and len(digits) < 16 else 1 << 62


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"Redis did not answer: {type(error).__name__}")
