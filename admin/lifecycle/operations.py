"""Operators' actions on keys: show, search, revoke one or many."""

from collections import Counter
from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple

import structlog

from admin import audit, search
from admin.audit import Actor, Entry, Event, OfficeEvent, Provenance
from admin.errors import CountChanged, FieldError, InvalidRequest, NotFound
from admin.identity import accounts
from admin.lifecycle.service import KeyView, views_of
from admin.search import Filters, Found, Page
from admin.stores import Stores
from gateway.keys import store, usage_store
from gateway.keys.ids import is_key_id
from gateway.keys.postgres import Connection
from gateway.keys.store import StoredKey

MOST_AT_ONCE = 10_000
"""Maximum keys revoked by one call, within one transaction's time limit."""

_log = structlog.get_logger(__name__)


class RefusedRequest(NamedTuple):
    """One refused request of a key; ``number`` distinguishes otherwise equal ones."""

    at_ms: int
    key_id: str
    code: str
    client_ip: str
    number: int
    account_id: str
    call: str


class KeyOperations:
    """Operations on the keys of any account, for the back office."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def show(self, key_id: str, now_ms: int) -> KeyView:
        """:raises NotFound: there is no such key"""
        async with self._stores.transaction() as connection:
            key = await _find(connection, key_id)
            account = await accounts.find(connection, key.account_id)
        return (await views_of(self._stores, [(key, account is None or account.suspended)], now_ms))[0]

    async def search(self, filters: Filters, page: Page, now_ms: int) -> Found[KeyView]:
        """:raises StoreUnavailable, InvalidRequest: see :func:`admin.search.keys`"""
        async with self._stores.transaction() as connection:
            found, count, cursor = await search.keys(connection, self._stores, filters, page)
        return Found(await views_of(self._stores, found, now_ms), count, cursor)

    async def refusals(self, filters: Filters, page: Page, *, key_id: str | None, code: str | None) -> Found[RefusedRequest]:
        """Refused requests of the keys that match, latest first, from the usage data: the latest fifty of each key, for seven days.

        ``ip``, ``since_ms`` and ``until_ms`` are of the request, not of the key.

        :raises StoreUnavailable: PostgreSQL or Redis did not answer
        """
        of_keys = Filters(account=filters.account, email=filters.email, label=filters.label, scope=filters.scope)
        async with self._stores.transaction() as connection:
            owners = await search.key_ids(connection, self._stores, of_keys)
        if key_id is not None:
            owners = {key_id: owners[key_id]} if key_id in owners else {}
        found = sorted((each for each in await self._refused(owners) if _fits(each, filters, code)), reverse=True)
        left = found
        if page.cursor is not None:
            after = tuple(search.from_cursor(page.cursor, int, str, str, str, int))
            left = [each for each in found if each[:5] < after]
        shown = left[: page.limit]
        return Found(shown, len(found), search.to_cursor(*shown[-1][:5]) if len(left) > page.limit else None)

    async def _refused(self, owners: Mapping[str, str]) -> list[RefusedRequest]:
        alike: Counter[tuple[object, ...]] = Counter()
        found = []
        for chunk in search.chunks(list(owners)):
            for key_id, refused in (await usage_store.read_refusals_of(self._stores.redis, chunk)).items():
                for each in refused:
                    same = each.at_ms, key_id, each.code, each.client_ip
                    alike[same] += 1
                    found.append(RefusedRequest(*same, alike[same], owners[key_id], each.call))
        return found

    async def revoke(self, key_id: str, reason: str, provenance: Provenance) -> bool:
        """Revoke a key at once and wipe its secret. Its owner sees it, with the reason, until they delete it.

        Idempotent; a different reason is added to the audit.

        :returns: whether it was revoked now, not before
        :raises NotFound: there is no such key
        """
        async with self._stores.transaction() as connection:
            key = await _find(connection, key_id)
            await accounts.lock(connection, key.account_id)
            changed = await store.revoke(connection, key_id, reason=reason, now_ms=provenance.now_ms)
            if changed:
                await audit.append(connection, _revoked(key.key_id, key.account_id, key.label, reason, provenance))
            elif reason != key.revoked_reason:
                noted = audit.note(Event.KEY_REVOKED, reason, provenance, account_id=key.account_id, key_id=key_id)
                await audit.append(connection, noted)
        await self._stores.invalidate([key_id])
        return changed

    async def would_revoke(self, filters: Filters) -> list[str]:
        """Ids of the keys that :meth:`revoke_matching` would revoke now."""
        async with self._stores.transaction() as connection:
            return list(await search.key_ids(connection, self._stores, filters, live=True))

    async def revoke_matching(
        self, filters: Filters, reason: str, provenance: Provenance, *, expected_count: int, where: Mapping[str, object]
    ) -> list[str]:
        """Revoke every matching key that was not revoked before; if their number is not the expected one, none.

        :param where: the operator's filters, for the audit
        :returns: their ids
        :raises CountChanged: the number of matches has changed
        :raises InvalidRequest: more than :data:`MOST_AT_ONCE`
        """
        if expected_count > MOST_AT_ONCE:
            raise InvalidRequest([FieldError("expected_count", "out_of_range", f"At most {MOST_AT_ONCE} at once: narrow the filters.")])
        async with self._stores.transaction() as connection:
            owners = await search.key_ids(connection, self._stores, filters, live=True)
            if len(owners) != expected_count:
                raise _count_changed(len(owners), expected_count)
            await accounts.lock_all(connection, set(owners.values()))
            revoked = await store.revoke_many(connection, list(owners), reason=reason, now_ms=provenance.now_ms)
            if len(revoked) != expected_count:
                raise _count_changed(len(revoked), expected_count)
            if revoked:
                entries = [_revoked(*each, reason, provenance) for each in revoked]
                await audit.append(connection, *entries, _revoked_many(len(revoked), where, reason, provenance))
        key_ids = [key_id for key_id, _, _ in revoked]
        _log.warning("keys_revoked", actor=provenance.operator, count=len(key_ids), where=dict(where), reason=reason)
        await self._stores.invalidate(key_ids)
        return key_ids


def _fits(refused: RefusedRequest, filters: Filters, code: str | None) -> bool:
    if filters.ip is not None:
        try:
            if ip_address(refused.client_ip) not in filters.ip:
                return False
        except ValueError:  # the address could not be determined then
            return False
    return (
        (code is None or refused.code == code)
        and (filters.since_ms is None or refused.at_ms >= filters.since_ms)
        and (filters.until_ms is None or refused.at_ms < filters.until_ms)
    )


def _revoked(key_id: str, account_id: str, label: str, reason: str, provenance: Provenance) -> Entry:
    return Entry(
        provenance=provenance,
        event=Event.KEY_REVOKED,
        actor=Actor.OPERATOR,
        account_id=account_id,
        key_id=key_id,
        detail={"label": label, "reason": reason},
    )


def _revoked_many(count: int, where: Mapping[str, object], reason: str, provenance: Provenance) -> Entry:
    detail = {"count": count, "where": dict(where), "reason": reason}
    return Entry(provenance=provenance, event=OfficeEvent.KEYS_REVOKED, actor=Actor.OPERATOR, account_id=None, detail=detail)


def _count_changed(count: int, expected: int) -> CountChanged:
    return CountChanged(
        f"{'1 key matches' if count == 1 else f'{count} keys match'} now, not {expected}. Nothing was revoked: review them again.",
        extras={"count": count, "expected_count": expected},
    )


async def _find(connection: Connection, key_id: str) -> StoredKey:
    """:raises NotFound: there is no such key"""
    key = await store.get(connection, key_id) if is_key_id(key_id) else None
    if key is None:
        raise NotFound("There is no such key.")
    return key
