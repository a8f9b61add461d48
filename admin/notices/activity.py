"""Observed key activity (``key_activity`` table): SQL on the caller's connection."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.keys.postgres import AnyConnection, translated


class Known(NamedTuple):
    """The recorded activity of a key that is not revoked. Times are Unix milliseconds."""

    key_id: str
    account_id: str
    label: str
    first_ms: int | None
    last_ms: int | None


class Ending(NamedTuple):
    """A key whose end is near or past: its time, and the stage of the notice in days before it (0: the end)."""

    key_id: str
    account_id: str
    label: str
    ends_ms: int
    stage: int
    at_creation: bool = False
    """Whether the key's whole lifetime is within this stage, so that the notice of its creation covers it."""


async def known(connection: AnyConnection, key_ids: Sequence[str]) -> list[Known]:
    """Those of these keys that exist and are not revoked."""
    with translated():
        return [Known(*row) for row in await connection.fetch(_KNOWN, key_ids)]


async def note_uses(connection: AnyConnection, uses: Mapping[str, int]) -> None:
    """Record the last use of keys, and reset the warnings that they are unused."""
    with translated():
        await connection.execute(_NOTE_USES, list(uses), list(uses.values()))


async def expiring(connection: AnyConnection, *, now_ms: int, limit: int) -> list[Ending]:
    """Keys whose expiry must be notified: a week before, a day before, and at the time."""
    with translated():
        return [Ending(*row) for row in await connection.fetch(_EXPIRING, now_ms, limit)]


async def unused(connection: AnyConnection, *, idle_ms: int, now_ms: int, limit: int) -> list[Ending]:
    """The same for keys that end ``idle_ms`` after their last use. No notice is sent before half of the time has passed."""
    with translated():
        return [Ending(*row) for row in await connection.fetch(_UNUSED, idle_ms, now_ms, limit)]


async def mark_notified(connection: AnyConnection, key_id: str, *, stage: int, idle: bool) -> bool:
    """Record that the owner was notified. False: it was recorded before."""
    with translated():
        return await connection.fetchval(_MARK_IDLE if idle else _MARK_EXPIRY, key_id, stage) is not None


_KNOWN = """
    SELECT k.id, k.account_id, k.label, a.first_ms, a.last_ms FROM api_keys k LEFT JOIN key_activity a ON a.key_id = k.id
     WHERE k.id = ANY ($1::text[]) AND k.revoked_at IS NULL
"""
_NOTE_USES = """
    INSERT INTO key_activity (key_id, first_ms, last_ms)
    SELECT used.key_id, used.at_ms, used.at_ms FROM unnest($1::text[], $2::bigint[]) AS used (key_id, at_ms)
      JOIN api_keys k ON k.id = used.key_id
    ON CONFLICT (key_id) DO UPDATE SET
        first_ms = COALESCE(key_activity.first_ms, EXCLUDED.first_ms),
        last_ms = GREATEST(key_activity.last_ms, EXCLUDED.last_ms),
        idle_told = NULL
"""
_EXPIRING = """
    WITH soon AS (
        SELECT k.id, k.account_id, k.label, (extract(epoch FROM k.expires_at) * 1000)::bigint AS ends_ms,
               (extract(epoch FROM k.expires_at - k.created_at) * 1000)::bigint AS life_ms
          FROM api_keys k WHERE k.revoked_at IS NULL AND k.expires_at <= to_timestamp(($1::bigint + 604800000) / 1000.0)
    ), staged AS (
        SELECT *, CASE WHEN ends_ms <= $1::bigint THEN 0 WHEN ends_ms <= $1::bigint + 86400000 THEN 1 ELSE 7 END AS stage FROM soon
    )
    SELECT s.id, s.account_id, s.label, s.ends_ms, s.stage, s.stage > 0 AND s.life_ms <= s.stage * 86400000::bigint + 3600000
      FROM staged s LEFT JOIN key_activity a ON a.key_id = s.id
     WHERE COALESCE(a.expiry_told, 32767) > s.stage ORDER BY s.ends_ms LIMIT $2
"""
_UNUSED = """
    WITH standing AS (
        SELECT k.id, k.account_id, k.label, a.idle_told, $1::bigint
               + GREATEST((extract(epoch FROM k.created_at) * 1000)::bigint, COALESCE(a.last_ms, 0), COALESCE(a.counted_ms, 0)) AS ends_ms
          FROM api_keys k LEFT JOIN key_activity a ON a.key_id = k.id
         WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > to_timestamp($2::bigint / 1000.0))
    ), staged AS (
        SELECT *, CASE WHEN ends_ms <= $2::bigint THEN 0
                       WHEN ends_ms <= $2::bigint + 86400000 AND $1::bigint > 2 * 86400000::bigint THEN 1
                       WHEN ends_ms <= $2::bigint + 604800000 AND $1::bigint > 2 * 604800000::bigint THEN 7 END AS stage
          FROM standing
    )
    SELECT id, account_id, label, ends_ms, stage FROM staged
     WHERE stage IS NOT NULL AND COALESCE(idle_told, 32767) > stage ORDER BY ends_ms LIMIT $3
"""
_MARK_NOTIFIED = """
    INSERT INTO key_activity AS a (key_id, {column}) SELECT id, $2 FROM api_keys WHERE id = $1
    ON CONFLICT (key_id) DO UPDATE SET {column} = EXCLUDED.{column} WHERE COALESCE(a.{column}, 32767) > EXCLUDED.{column}
    RETURNING key_id
"""
_MARK_EXPIRY, _MARK_IDLE = _MARK_NOTIFIED.format(column="expiry_told"), _MARK_NOTIFIED.format(column="idle_told")
