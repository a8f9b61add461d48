"""Sealed key records in Redis, shared by the workers of all machines, and the tombstones that keep old ones out.

    gerbang:{<key id>}:record    a sealed record (``codec``), or a tombstone: ``changed <Unix ms>``

A change overwrites whatever is there with a tombstone, which stands longer than any record can be valid. A gate writes a record
only where no tombstone stands: a look-up that had read the old row finds it in its way, however late it comes. A tombstone
means: do not believe or write Redis for this key, ask PostgreSQL. Unknown ids are never written.
"""

from collections.abc import Iterable
from typing import NamedTuple

import structlog
from redis.asyncio import Redis

from gateway.errors import StoreUnavailable
from gateway.keys.codec import DatedRecord, RecordUnreadable, open_record, seal_record
from gateway.keys.redis_client import FAILURES
from gateway.keys.vault import Vault

MAX_RECORD_TTL_MS = 300_000
"""No record is valid for longer (``cache.redis_ttl_ms``)."""
TOMBSTONE_TTL_MS = MAX_RECORD_TTL_MS + 60_000
"""Longer than any record that was read before the change, whatever held up its writer; the minute is for clocks that differ."""

_TOMBSTONE = b"changed "
# One step in Redis, so that no tombstone comes between looking and writing.
_WRITE = """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 8) == 'changed ' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_log = structlog.get_logger(__name__)


class Shared(NamedTuple):
    """What Redis holds for a key."""

    raw: bytes | None = None
    """The bytes themselves; ``None`` when there is nothing."""
    dated: DatedRecord | None = None
    """The record, when the bytes are one that opens."""
    changed_ms: int | None = None
    """When a tombstone stands there: the Unix ms at which the key changed."""

    @property
    def kind(self) -> str:
        """In one word, for the metrics."""
        if self.changed_ms is not None:
            return "changed"
        if self.dated is not None:
            return "found"
        return "none" if self.raw is None else "unreadable"


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
            digits = raw[len(_TOMBSTONE) :]
            # Whoever damaged it: it is still a tombstone, of an unknown moment.
            return Shared(raw, None, int(digits) if digits.isdigit() and len(digits) < 16 else 1 << 62)
        try:
            return Shared(raw, open_record(raw, self._vault, expected_key_id=key_id), None)
        except RecordUnreadable as error:
            _log.warning("shared_record_unreadable", key_id=key_id, reason=str(error))
            return Shared(raw)

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


async def entomb(redis: Redis, key_ids: Iterable[str], *, now_ms: int) -> None:
    """Overwrite whatever stands for these keys with a tombstone; tries every one.

    :raises StoreUnavailable: Redis did not take them all
    """
    failure: Exception | None = None
    for key_id in key_ids:
        try:
            await redis.set(record_key(key_id), _TOMBSTONE + str(now_ms).encode(), px=TOMBSTONE_TTL_MS)
        except FAILURES as error:
            failure = error
    if failure is not None:
        raise _unavailable(failure) from None


def record_key(key_id: str) -> str:
    """The name in Redis; the braces keep all of a key's names in one slot of a Cluster."""
    return f"gerbang:{{{key_id}}}:record"


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"Redis did not answer: {type(error).__name__}")
