"""Creates, lists and deletes API keys for their owner: each change in one transaction with its step-up proof and audit event.

After the commit the gateways are notified through Redis; a failure is harmless, since the database's trigger notifies them, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.config import Keys
from admin.errors import AccountIsFrozen, FactorRequired, KeyLimitReached, KycRequired, NotFound
from admin.identity import accounts
from admin.identity.accounts import Account
from admin.identity.caller import Caller, Kyc
from admin.lifecycle.policy import KeyDraft, NewKey, check
from admin.stepup.intent import Intent, delete_key
from admin.stepup.service import Attempt, Proof, StepUp
from admin.stores import Stores
from gateway.errors import Refusal
from gateway.keys import store
from gateway.keys.ids import is_key_id, new_key_id, new_secret
from gateway.keys.postgres import Connection
from gateway.keys.record import Algorithm, KeyRecord
from gateway.keys.secret import Secret
from gateway.keys.store import StoredKey
from gateway.keys.usage_store import LastUse
from gateway.keys.vault import Vault

REFUSED_CREATIONS = (KycRequired, AccountIsFrozen, FactorRequired, KeyLimitReached)
"""Refusals because of the account's state, not of mistyped or unproven input; they are audited."""

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """One key, as shown to its owner."""

    key: StoredKey
    status: str
    """``active``, ``expired``, ``suspended`` (account frozen, or identity not verified) ``revoked`` (by an operator, or leaked) or ``idle``
    (unused for so long that it ended)."""
    last_use: LastUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new key, and its secret, which is shown only once."""

    view: KeyView
    secret: Secret | None = field(repr=False)


class KeyService:
    """Manages the keys of an account.

    :param limits: ``per_account`` includes revoked and expired keys until they are deleted
    :param kyc_help_url: URL where customers can be verified
    """

    def __init__(self, stores: Stores, vault: Vault, step_up: StepUp, limits: Keys, *, kyc_help_url: str | None) -> None:
        self._stores = stores
        self._vault = vault
        self._step_up = step_up
        self.key_limit = limits.per_account
        self._unrestricted_trade_days = limits.unrestricted_trade_days
        self._kyc_help_url = kyc_help_url

    async def list_keys(self, caller: Caller, now_ms: int) -> list[KeyView]:
        """All keys, oldest first."""
        async with self._stores.transaction() as connection:
            account = await accounts.find(connection, caller.account_id)
            keys = await store.list_for_account(connection, caller.account_id)
        suspended = account is None or account.suspended
        return await views_of(self._stores, [(key, suspended) for key in keys], now_ms)

    async def show(self, caller: Caller, key_id: str, now_ms: int) -> KeyView:
        """:raises NotFound: the account has no such key"""
        views = {view.key.key_id: view for view in await self.list_keys(caller, now_ms)}
        if key_id not in views:
            raise _no_key()
        return views[key_id]

    async def check_creation(self, connection: Connection, account: Account, caller: Caller, draft: KeyDraft) -> Intent:
        """The intent of a creation, if it would be allowed with a proof.

        :raises InvalidRequest, KycRequired, AccountIsFrozen, FactorRequired, KeyLimitReached: it would not be allowed
        """
        new = check(draft, unrestricted_trade_days=self._unrestricted_trade_days)
        await self._check_account(connection, account, caller)
        return new.intent()

    async def check_deletion(self, connection: Connection, caller: Caller, key_id: str) -> Intent:
        """:raises NotFound: the account has no such key"""
        await self._own(connection, caller, key_id)
        return delete_key(key_id)

    async def create(self, caller: Caller, draft: KeyDraft, proof: Proof | None, provenance: Provenance) -> Created:
        """Create a key, in one transaction with its audit row and the use of the proof.

        :raises InvalidRequest, KycRequired, AccountIsFrozen, FactorRequired, KeyLimitReached: before any code is used up
        :raises StepUpRequired, StepUpFailed, RateLimited: no valid proof for exactly this key
        :raises StoreUnavailable: PostgreSQL did not answer
        """
        new = check(draft, unrestricted_trade_days=self._unrestricted_trade_days)
        try:
            async with self._stores.transaction() as connection:
                account = await accounts.lock(connection, caller.account_id)
                await self._check_account(connection, account, caller)
                await self._step_up.redeem(connection, account, Attempt(caller, new.intent(), proof, provenance))
                record = _record(new, account.id, provenance.now_ms)
                await store.insert(connection, record, self._vault)
                key = await self._own(connection, caller, record.key_id)
                detail = dict(new.intent().members)
                await audit.append(connection, _entry(Event.KEY_CREATED, account.id, provenance, record.key_id, **detail))
        except REFUSED_CREATIONS as refusal:
            await self.note_refusal(caller, refusal, provenance)
            raise
        await self._stores.invalidate([record.key_id])  # a gateway may have cached that it does not exist
        return Created(view=KeyView(key=key, status="active"), secret=record.secret)

    async def delete(self, caller: Caller, key_id: str, proof: Proof | None, provenance: Provenance) -> None:
        """Delete a key and notify the gateways.

        :raises NotFound, FactorRequired, StepUpRequired, StepUpFailed, RateLimited: it was not deleted
        """
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, caller.account_id)
            key = await self._own(connection, caller, key_id)
            await self._step_up.redeem(connection, account, Attempt(caller, delete_key(key_id), proof, provenance))
            await store.delete(connection, key_id, account_id=account.id)
            await audit.append(connection, _entry(Event.KEY_DELETED, account.id, provenance, key_id, label=key.label))
        await self._stores.invalidate([key_id])
        await self._stores.forget_usage(key_id, provenance.now_ms)

    async def note_refusal(self, caller: Caller, refusal: Refusal, provenance: Provenance) -> None:
        """Add a refused creation to the audit."""
        async with self._stores.transaction() as connection:
            await audit.append(connection, _entry(Event.KEY_CREATION_REFUSED, caller.account_id, provenance, None, code=refusal.code))

    async def _own(self, connection: Connection, caller: Caller, key_id: str) -> StoredKey:
        key = await store.get(connection, key_id) if is_key_id(key_id) else None
        if key is None or key.account_id != caller.account_id:
            raise _no_key()
        return key

    async def _check_account(self, connection: Connection, account: Account, caller: Caller) -> None:
        kyc = account.kyc_for(caller)
        if kyc is not Kyc.VERIFIED:
            where = f" at {self._kyc_help_url}" if self._kyc_help_url else ""
            help_url = {"help_url": self._kyc_help_url} if self._kyc_help_url else {}
            revoked = "Your identity verification was withdrawn: contact support" if kyc is Kyc.REVOKED else None
            raise KycRequired(
                f"{revoked or 'API keys are for customers whose identity is verified. Verify yours'}{where}, then log in again.",
                extras={"kyc": kyc.value, **help_url},
            )
        if account.frozen:
            raise AccountIsFrozen("This account is frozen: contact support.")
        await self._step_up.owned(connection, account)
        count = await store.count(connection, account.id)
        if count >= self.key_limit:
            raise KeyLimitReached(
                f"An account has at most {self.key_limit} keys, and this one has {count}. Delete one that you no longer use.",
                extras={"key_limit": self.key_limit},
            )


def status_of(key: StoredKey, *, suspended: bool, now_ms: int) -> str:
    """The status of a key, the most permanent reason first."""
    if key.revoked_ms is not None:
        return "idle" if key.ended_idle else "revoked"
    if key.expires_ms is not None and key.expires_ms <= now_ms:
        return "expired"
    return "suspended" if suspended else "active"


async def views_of(stores: Stores, keys: Sequence[tuple[StoredKey, bool]], now_ms: int) -> list[KeyView]:
    """Keys with their status and last use.

    :param keys: each with whether its account is suspended
    """
    used = await stores.last_use([key.key_id for key, _ in keys])
    return [
        KeyView(key=key, status=status_of(key, suspended=suspended, now_ms=now_ms), last_use=used.get(key.key_id))
        for key, suspended in keys
    ]


def _record(new: NewKey, account_id: str, now_ms: int) -> KeyRecord:
    return KeyRecord(
        key_id=new_key_id(),
        account_id=account_id,
        label=new.label,
        scopes=new.scopes,
        algorithm=new.algorithm,
        secret=new_secret() if new.algorithm is Algorithm.HMAC_SHA256 else None,
        public_key=new.public_key,
        ip_allowlist=new.ip_allowlist,
        created_ms=now_ms,
        expires_ms=None if new.expires_in_days is None else now_ms + new.expires_in_days * _DAY_MS,
        frozen=False,
    )


def _entry(event: Event, account_id: str, provenance: Provenance, key_id: str | None, **detail: object) -> Entry:
    return Entry(provenance=provenance, event=event, actor=Actor.ACCOUNT, account_id=account_id, key_id=key_id, detail=detail)


def _no_key() -> NotFound:
    return NotFound("This account has no such key.")
