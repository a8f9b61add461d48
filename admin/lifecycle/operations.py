"""What an operator may do to a key: look, and revoke. Accounts are in ``identity.accounts``."""

from admin import audit
from admin.audit import Actor, Entry, Event, Occasion
from admin.errors import NotFound
from admin.identity import accounts
from admin.identity.caller import Kyc
from admin.lifecycle.service import KeyView, status_of
from admin.stores import Stores
from gateway.keys import store
from gateway.keys.ids import is_key_id
from gateway.keys.store import StoredKey


class KeyOperations:
    """Any account's keys, for the back office."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def show(self, key_id: str, now_ms: int) -> KeyView:
        """:raises NotFound: there is no such key"""
        async with self._stores.transaction() as connection:
            key = await store.get(connection, key_id) if is_key_id(key_id) else None
            if key is None:
                raise _no_key()
            account = await accounts.find(connection, key.account_id)
        suspended = account is None or account.frozen or account.kyc is not Kyc.VERIFIED
        used = await self._stores.last_use([key_id])
        return KeyView(key=key, status=status_of(key, suspended=suspended, now_ms=now_ms), last_use=used.get(key_id))

    async def revoke(self, key_id: str, reason: str, occasion: Occasion) -> None:
        """Stop a key at once and wipe its secret. Its owner sees it, with the reason, until they delete it. Again changes nothing.

        :raises NotFound: there is no such key
        """
        async with self._stores.transaction() as connection:
            key = await store.get(connection, key_id) if is_key_id(key_id) else None
            if key is None:
                raise _no_key()
            await accounts.lock(connection, key.account_id)
            if await store.revoke(connection, key_id, reason=reason, now_ms=occasion.now_ms):
                await audit.append(connection, _revoked(key, reason, occasion))
        await self._stores.invalidate([key_id])


def _revoked(key: StoredKey, reason: str, occasion: Occasion) -> Entry:
    return Entry(
        occasion=occasion,
        event=Event.KEY_REVOKED,
        actor=Actor.OPERATOR,
        account_id=key.account_id,
        key_id=key.key_id,
        detail={"label": key.label, "reason": reason},
    )


def _no_key() -> NotFound:
    return NotFound("There is no such key.")
