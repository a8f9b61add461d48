"""Detects events that no admin request causes: first use, a refusal from a new address, expiry.

Uses and refusals are read from Redis (:mod:`gateway.keys.usage_store`), which is not trusted: ids are looked up, addresses
parsed, times bounded. What must survive a loss of Redis is recorded in PostgreSQL. Each event is notified once, whenever detected.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from admin import audit, outbox
from admin.audit import Actor, Entry, Event, Provenance
from admin.config import Keys
from admin.identity import accounts
from admin.notices import activity
from admin.notices.activity import Ending, Known
from admin.notices.delivery import DAY_MS
from admin.outbox import Notice, Topic
from admin.stores import Stores
from gateway.keys import store, usage_store
from gateway.keys.ids import is_key_id
from gateway.keys.postgres import Connection, translated
from gateway.keys.usage import Refused
from gateway.keys.usage_store import LastUse
from gateway.net.addresses import canonical

IDLE_REASON: Final = "idle"
"""The reason shown to the owner of a key that ended because it was unused."""

_CHUNK = 200
_OVERLAP_MS = 300_000
_CLOCKS_DIFFER_MS = 300_000
_NOTED_EVERY_MS = 3_600_000
_MAX_REFUSAL_NOTICES_A_DAY = 10
"""Maximum notices per key: an attacker with a secret and many addresses must not fill the owner's mailbox."""
_log = structlog.get_logger(__name__)


class Watch:
    """Three checks, each called every few seconds by one process at a time. Times are Unix milliseconds."""

    def __init__(self, stores: Stores, keys: Keys) -> None:
        self._stores = stores
        self._idle_ms = keys.idle_days * DAY_MS
        self._seen_ms = 0

    async def uses(self, now_ms: int) -> None:
        """Detect first uses and refused addresses since the last check; at the first check, of the last week.

        :raises StoreUnavailable: PostgreSQL or Redis did not answer; the next check repeats it
        """
        redis = self._stores.redis
        seen_ms = min(self._seen_ms, now_ms)  # later: the clock has been set back
        found = await usage_store.read_active(redis, since_ms=max(0, seen_ms - _OVERLAP_MS), now_ms=now_ms)
        for chunk in _chunks([key_id for key_id in found if is_key_id(key_id)]):
            async with self._stores.transaction() as connection:
                known = await activity.known(connection, chunk)
            key_ids = [key.key_id for key in known]
            last = await usage_store.read_last_use(redis, key_ids)
            refused = await usage_store.read_refusals_of(redis, key_ids)
            await self._note_uses(known, last, now_ms)
            for key in known:
                await self._note_refusals(key, refused[key.key_id], now_ms)
        self._seen_ms = now_ms

    async def expiries(self, now_ms: int) -> None:
        """Detect keys that expire within a week, within a day, or have expired; none while this machine's clock is ahead.

        :raises StoreUnavailable: PostgreSQL did not answer
        """
        while not await self._is_ahead(now_ms):
            async with self._stores.transaction() as connection:
                found = await activity.expiring(connection, now_ms=now_ms, limit=_CHUNK)
            for ending in found:
                await self._notify_expiry(ending, now_ms)
            if len(found) < _CHUNK:
                return

    async def unused(self, now_ms: int) -> None:
        """End unused keys, after warnings; none while this machine's clock is ahead.

        :raises StoreUnavailable: PostgreSQL or Redis did not answer; without Redis no key ends
        """
        while self._idle_ms and not await self._is_ahead(now_ms):
            async with self._stores.transaction() as connection:
                found = await activity.unused(connection, idle_ms=self._idle_ms, now_ms=now_ms, limit=_CHUNK)
            last = await usage_store.read_last_use(self._stores.redis, [ending.key_id for ending in found])
            used = {ending.key_id for ending in found if _used_ms(last.get(ending.key_id), now_ms) > ending.ends_ms - self._idle_ms}
            if used:
                async with self._stores.transaction() as connection:
                    await activity.note_uses(connection, {key_id: _used_ms(last[key_id], now_ms) for key_id in used})
            for ending in found:
                if ending.key_id not in used:
                    await self._notify_unused(ending, now_ms)
            if len(found) < _CHUNK:
                return

    async def _is_ahead(self, now_ms: int) -> bool:
        """Whether this machine's clock is ahead of PostgreSQL's: a wrong one would end every key, which cannot be undone."""
        async with self._stores.transaction() as connection:
            with translated():
                ahead_ms = now_ms - await connection.fetchval(_DATABASE_MS)
        if ahead_ms <= _CLOCKS_DIFFER_MS:
            return False
        _log.error("clock_ahead", by_ms=ahead_ms, advice="no key ends, and no expiry is notified, until this machine's clock is set")
        return True

    async def _note_uses(self, known: Sequence[Known], last: dict[str, LastUse], now_ms: int) -> None:
        first = [key for key in known if key.key_id in last and key.first_ms is None]
        for key in first:
            await self._notify_first_use(key, last[key.key_id], now_ms)
        again = {
            key.key_id: _used_ms(last[key.key_id], now_ms)
            for key in known
            if key.key_id in last and key.first_ms is not None and _used_ms(last[key.key_id], now_ms) - (key.last_ms or 0) > _NOTED_EVERY_MS
        }
        if again:
            async with self._stores.transaction() as connection:
                await activity.note_uses(connection, again)

    async def _notify_first_use(self, key: Known, use: LastUse, now_ms: int) -> None:
        at_ms = _used_ms(use, now_ms)
        async with self._stores.transaction() as connection:
            await accounts.lock(connection, key.account_id)
            await activity.note_uses(connection, {key.key_id: at_ms})
            detail = {"label": key.label, "client_ip": canonical(use.client_ip)}
            await outbox.add(connection, _notice(Topic.KEY_FIRST_USED, key, at_ms, detail, once=f"{Topic.KEY_FIRST_USED}:{key.key_id}"))

    async def _note_refusals(self, key: Known, refused: Iterable[Refused], now_ms: int) -> None:
        """At most one notice for a key, an address and a day (UTC)."""
        latest: dict[str, Refused] = {}
        for refusal in sorted(refused):
            address = canonical(refusal.client_ip)
            if refusal.code == "ip_not_allowed" and address is not None and now_ms - DAY_MS < refusal.at_ms <= now_ms + _OVERLAP_MS:
                latest.setdefault(f"{Topic.KEY_REFUSED_NEW_ADDRESS}:{key.key_id}:{address}:{refusal.at_ms // DAY_MS}", refusal)
        if not latest:
            return
        async with self._stores.transaction() as connection:
            with translated():
                old = {row["once"] for row in await connection.fetch(_NOTIFIED_BEFORE, list(latest))}
        for once, refusal in latest.items():
            if once not in old:
                await self._notify_refusal(key, refusal, once)

    async def _notify_refusal(self, key: Known, refusal: Refused, once: str) -> None:
        async with self._stores.transaction() as connection:
            await accounts.lock(connection, key.account_id)
            with translated():
                today = await connection.fetchval(
                    _NOTIFIED_TODAY, key.key_id, Topic.KEY_REFUSED_NEW_ADDRESS, refusal.at_ms // DAY_MS * DAY_MS
                )
            if today < _MAX_REFUSAL_NOTICES_A_DAY:
                detail = {"label": key.label, "client_ip": canonical(refusal.client_ip)}
                await outbox.add(connection, _notice(Topic.KEY_REFUSED_NEW_ADDRESS, key, refusal.at_ms, detail, once=once))

    async def _notify_expiry(self, ending: Ending, now_ms: int) -> None:
        async with self._stores.transaction() as connection:
            await accounts.lock(connection, ending.account_id)
            if await activity.mark_notified(connection, ending.key_id, stage=ending.stage, idle=False):
                topic = Topic.KEY_EXPIRING if ending.stage else Topic.KEY_EXPIRED
                detail: dict[str, object] = {"label": ending.label, "expires_at_ms": ending.ends_ms}
                if ending.stage:
                    detail |= {"cause": "expiry", "days_left": _days(ending.ends_ms - now_ms)}
                notice = _notice(topic, ending, now_ms if ending.stage else ending.ends_ms, detail)
                await outbox.add(connection, replace(notice, mailed=not ending.at_creation))

    async def _notify_unused(self, ending: Ending, now_ms: int) -> None:
        ended = False
        async with self._stores.transaction() as connection:
            await accounts.lock(connection, ending.account_id)
            if await activity.mark_notified(connection, ending.key_id, stage=ending.stage, idle=True):
                if ending.stage == 0:
                    ended = await self._end(connection, ending, now_ms)
                else:
                    days = _days(ending.ends_ms - now_ms)
                    detail = {"label": ending.label, "ends_at_ms": ending.ends_ms, "cause": "idle", "days_left": days}
                    await outbox.add(connection, _notice(Topic.KEY_EXPIRING, ending, now_ms, detail))
        if ended:
            _log.info("key_ended_unused", key_id=ending.key_id)
            await self._stores.invalidate([ending.key_id])

    async def _end(self, connection: Connection, ending: Ending, now_ms: int) -> bool:
        if not await store.revoke(connection, ending.key_id, reason=IDLE_REASON, now_ms=now_ms, idle=True):
            return False
        entry = Entry(
            provenance=Provenance(now_ms, None),
            event=Event.KEY_IDLE,
            actor=Actor.SYSTEM,
            account_id=ending.account_id,
            key_id=ending.key_id,
            detail={"label": ending.label, "unused_days": self._idle_ms // DAY_MS},
        )
        await audit.append(connection, entry)
        return True


def _used_ms(use: LastUse | None, now_ms: int) -> int:
    """The time of use; a time in the future, from a wrong clock or manipulation of Redis, counts as now."""
    return 0 if use is None else min(use.at_ms, now_ms)


def _days(milliseconds: int) -> int:
    return -(-milliseconds // DAY_MS)


def _notice(topic: Topic, key: Known | Ending, at_ms: int, detail: Mapping[str, object], *, once: str | None = None) -> Notice:
    return Notice(topic=topic, account_id=key.account_id, at_ms=at_ms, key_id=key.key_id, detail=detail, once=once)


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


_DATABASE_MS = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_NOTIFIED_BEFORE = "SELECT once FROM notices WHERE once = ANY ($1::text[])"
_NOTIFIED_TODAY = "SELECT count(*) FROM notices WHERE key_id = $1 AND topic = $2 AND at_ms >= $3"
