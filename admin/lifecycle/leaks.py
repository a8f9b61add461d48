"""Leaked secrets: finds the key by a keyed hash and revokes it."""

from collections.abc import Sequence
from typing import NamedTuple

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.identity import accounts
from admin.stores import Stores
from gateway.keys import store
from gateway.keys.vault import Vault

LEAKED = "leaked"
"""The reason shown to the key's owner."""


class Found(NamedTuple):
    """A token and where it was found."""

    token: str
    url: str | None


class Leaks:
    """Recognizes secrets by keyed digests; secrets are never looked up in the clear."""

    def __init__(self, stores: Stores, vault: Vault) -> None:
        self._stores = stores
        self._vault = vault

    async def revoke(self, found: Sequence[Found], now_ms: int) -> list[bool]:
        """Revoke the keys with these secrets and notify the gateways. Returns which of the tokens are secrets of keys.

        One look-up for all of them. A key that was revoked before is unchanged, but its secret counts as one.

        :raises StoreUnavailable: PostgreSQL did not answer; the report should be sent again
        """
        digests = [self._vault.digests(item.token.encode("utf-8", "surrogatepass")) for item in found]
        async with self._stores.transaction() as connection:
            known = await store.find_secrets(connection, [digest for each in digests for digest in each])
        owners = [next((known[digest] for digest in each if digest in known), None) for each in digests]
        for item, owner in zip(found, owners, strict=True):
            if owner is not None:
                await self._revoke(item, *owner, now_ms)
        return [owner is not None for owner in owners]

    async def _revoke(self, item: Found, key_id: str, account_id: str, label: str, now_ms: int) -> None:
        found_at = item.url if item.url is not None and item.token not in item.url else None
        async with self._stores.transaction() as connection:
            await accounts.lock(connection, account_id)
            if not await store.revoke(connection, key_id, reason=LEAKED, now_ms=now_ms):
                return
            entry = Entry(
                provenance=Provenance(now_ms, None),
                event=Event.KEY_REVOKED,
                actor=Actor.SYSTEM,
                account_id=account_id,
                key_id=key_id,
                detail={"label": label, "reason": LEAKED} | ({"found_at": found_at} if found_at else {}),
            )
            await audit.append(connection, entry)
        await self._stores.invalidate([key_id])
