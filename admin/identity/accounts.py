"""Accounts in PostgreSQL: the provider's claims combined with the back office's decisions; the stricter one applies.

Changes that stop or release keys are audited in their own transaction and announced to the gateways after it.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.errors import NotFound, Unauthenticated
from admin.identity.caller import Caller, Kyc
from admin.stores import Stores
from gateway.keys import store
from gateway.keys.postgres import Connection, translated


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account as stored."""

    id: str
    email: str | None
    kyc: Kyc
    """The stricter of the provider's last claim and the back office's decision, which the gateways apply."""
    kyc_claim: Kyc
    frozen: bool
    claims_ms: int
    proof_failures: int
    locked_until_ms: int
    logins_after_ms: int
    """Logins made up to then are no longer valid; 0: all are."""
    tier: str | None
    """The tier whose limits the gateways apply to its keys; ``None``: no tier."""

    @property
    def suspended(self) -> bool:
        """Whether the gateways refuse its keys."""
        return self.frozen or self.kyc is not Kyc.VERIFIED

    def kyc_for(self, caller: Caller) -> Kyc:
        """The stricter of the stored state and the caller's own claims, which may be older."""
        return self.kyc if self.kyc is not Kyc.VERIFIED else caller.kyc


async def find(connection: Connection, account_id: str) -> Account | None:
    """:raises StoreUnavailable: PostgreSQL did not answer"""
    return await _fetch(connection, _FIND, account_id)


async def lock(connection: Connection, account_id: str) -> Account:
    """The account, locked until the transaction ends, which serializes changes to the account.

    The lock excludes other writers of this account, but neither the gateways' reads nor foreign key checks.

    :raises NotFound: there is no such account
    :raises StoreUnavailable: PostgreSQL did not answer
    """
    account = await _fetch(connection, _FIND + " FOR NO KEY UPDATE", account_id)
    if account is None:
        raise _no_account()
    return account


async def lock_all(connection: Connection, account_ids: Collection[str]) -> None:
    """Lock several accounts, always in the same order, so that no deadlock can occur."""
    with translated():
        await connection.execute(_LOCK_ALL, sorted(account_ids))


async def set_frozen(connection: Connection, before: Account, frozen: bool, reason: str | None, provenance: Provenance) -> list[str]:
    """Freeze or thaw with its audit row; does nothing if the state is the same.

    :param before: the account as returned by :func:`lock`
    :param reason: for the audit; ``None``: none was given
    :returns: ids of the affected keys, to announce to the gateways after the commit
    """
    if before.frozen == frozen:
        return []
    await connection.execute("UPDATE accounts SET frozen = $2 WHERE id = $1", before.id, frozen)
    event = Event.ACCOUNT_FROZEN if frozen else Event.ACCOUNT_THAWED
    detail = {} if reason is None else {"reason": reason}
    if not frozen and before.kyc is not Kyc.VERIFIED:
        detail["kyc"] = before.kyc.value  # its keys are still refused, so the notice must not say that they work
    await audit.append(connection, Entry(provenance=provenance, event=event, actor=Actor.OPERATOR, account_id=before.id, detail=detail))
    return await _key_ids(connection, before.id)


async def end_logins(connection: Connection, account_id: str, now_ms: int, *, forget_failures: bool) -> None:
    """Invalidate all tokens and sessions issued until now.

    :param forget_failures: reset the failed proofs, too: never at the holder's own request, or a thief of the password could guess for ever
    """
    with translated():
        await connection.execute("UPDATE accounts SET logins_after_ms = $2 WHERE id = $1", account_id, now_ms)
        if forget_failures:
            await connection.execute("UPDATE accounts SET proof_failures = 0, locked_until_ms = 0 WHERE id = $1", account_id)
            await connection.execute("DELETE FROM login_failures WHERE account_id = $1", account_id)


class Accounts:
    """Manages accounts, with audit entries and announcements to the gateways."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def for_caller(self, caller: Caller, provenance: Provenance) -> Account:
        """The caller's account, created on the first call and updated with newer claims. ``kyc`` is the stricter state.

        :raises Unauthenticated: the back office has ended the caller's login
        :raises StoreUnavailable: PostgreSQL did not answer
        """
        touched: list[str] = []
        async with self._stores.transaction() as connection:
            account = await find(connection, caller.account_id)
            _check_login(account, caller)
            if account is None or _is_newer(account, caller):
                account, touched = await _store_claims(connection, caller, provenance)
        await self._stores.invalidate(touched)
        return replace(account, kyc=account.kyc_for(caller))

    async def end_logins(self, account_id: str, provenance: Provenance, *, others: bool = False) -> None:
        """End every login of the account, at its holder's request.

        :param others: the current session continues (:meth:`admin.identity.sessions.SessionStore.keep`)
        """
        event = Event.OTHER_LOGINS_ENDED if others else Event.LOGINS_ENDED
        async with self._stores.transaction() as connection:
            await lock(connection, account_id)
            await end_logins(connection, account_id, provenance.now_ms, forget_failures=False)
            await audit.append(connection, Entry(provenance=provenance, event=event, actor=Actor.ACCOUNT, account_id=account_id))

    async def get(self, account_id: str) -> tuple[Account, list[store.StoredKey]]:
        """:raises NotFound: there is no such account"""
        async with self._stores.transaction() as connection:
            account = await find(connection, account_id)
            if account is None:
                raise _no_account()
            return account, await store.list_for_account(connection, account_id)

    async def set_kyc(self, account_id: str, decision: Kyc, provenance: Provenance) -> None:
        """Record the back office's decision: ``REVOKED``, or ``VERIFIED``, after which the provider's claim applies again.

        An unknown account is created, so that a revocation also applies to its first login.
        """
        async with self._stores.transaction() as connection:
            await connection.execute(_ENSURE, account_id)
            before = await lock(connection, account_id)
            kyc = Kyc.REVOKED if decision is Kyc.REVOKED else before.kyc_claim
            touched = await _change(connection, before, Event.KYC_CHANGED, kyc.value, Actor.OPERATOR, provenance=provenance)
        await self._stores.invalidate(touched)

    async def set_tier(self, account_id: str, tier: str | None, provenance: Provenance) -> None:
        """Set the tier of an account, which is created if unknown. Idempotent."""
        async with self._stores.transaction() as connection:
            await connection.execute(_ENSURE, account_id)
            before = await lock(connection, account_id)
            touched = await _change(connection, before, Event.TIER_CHANGED, tier, Actor.OPERATOR, provenance=provenance)
        await self._stores.invalidate(touched)

    async def set_frozen(self, account_id: str, frozen: bool, reason: str | None, provenance: Provenance) -> bool:
        """Freeze or thaw an account. Idempotent.

        :returns: whether it was changed
        :raises NotFound: there is no such account
        """
        async with self._stores.transaction() as connection:
            before = await lock(connection, account_id)
            touched = await set_frozen(connection, before, frozen, reason, provenance)
            if before.frozen == frozen and reason is not None:
                about = Event.ACCOUNT_FROZEN if frozen else Event.ACCOUNT_THAWED
                await audit.append(connection, audit.note(about, reason, provenance, account_id=account_id))
        await self._stores.invalidate(touched)
        return before.frozen != frozen


def _check_login(account: Account | None, caller: Caller) -> None:
    """Providers use whole seconds: a login issued within the second of the end is over, too."""
    if account is not None and caller.stands_since_ms <= account.logins_after_ms:
        raise Unauthenticated.because("This login has been ended: log in again.", token_given=caller.session_id is None)


def _is_newer(account: Account, caller: Caller) -> bool:
    """Whether the caller's claims are newer than the stored ones, or equally old and stricter. Older ones never replace newer ones."""
    if account.claims_ms == caller.issued_ms:
        return account.kyc_claim is Kyc.VERIFIED and caller.kyc is not Kyc.VERIFIED
    return account.claims_ms < caller.issued_ms


async def _store_claims(connection: Connection, caller: Caller, provenance: Provenance) -> tuple[Account, list[str]]:
    touched: list[str] = []
    with translated():
        await connection.execute(_ENSURE, caller.account_id)
        account = await lock(connection, caller.account_id)
        if _is_newer(account, caller):
            await connection.execute(_STORE_CLAIMS, caller.account_id, caller.email, caller.issued_ms, caller.kyc.value)
            if account.kyc is not Kyc.REVOKED:  # the back office's decision is stricter than any claim
                touched = await _change(connection, account, Event.KYC_CHANGED, caller.kyc.value, Actor.PROVIDER, provenance=provenance)
        return await lock(connection, caller.account_id), touched


async def _change(
    connection: Connection, before: Account, event: Event, value: str | None, actor: Actor, *, provenance: Provenance
) -> list[str]:
    """Set the KYC state or the tier, unless it is the same. Returns the ids of the affected keys."""
    old, statement = (before.kyc.value, _SET_KYC) if event is Event.KYC_CHANGED else (before.tier, _SET_TIER)
    if old == value:
        return []
    await connection.execute(statement, before.id, value)
    touched = await _key_ids(connection, before.id)
    detail = {"from": old, "to": value}
    await audit.append(connection, Entry(provenance=provenance, event=event, actor=actor, account_id=before.id, detail=detail))
    return touched


async def _key_ids(connection: Connection, account_id: str) -> list[str]:
    return [key.key_id for key in await store.list_for_account(connection, account_id)]


async def _fetch(connection: Connection, statement: str, account_id: str) -> Account | None:
    with translated():
        row = await connection.fetchrow(statement, account_id)
    return None if row is None else Account(**{**row, "kyc": Kyc(row["kyc"]), "kyc_claim": Kyc(row["kyc_claim"])})


def _no_account() -> NotFound:
    return NotFound("There is no such account.")


_FIND = """
    SELECT id, email, kyc, kyc_claim, frozen, claims_ms, proof_failures, locked_until_ms, logins_after_ms, tier
      FROM accounts WHERE id = $1
"""
_SET_KYC = "UPDATE accounts SET kyc = $2 WHERE id = $1"
_SET_TIER = "UPDATE accounts SET tier = $2 WHERE id = $1"
_LOCK_ALL = "SELECT FROM accounts WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE"
_ENSURE = "INSERT INTO accounts (id) VALUES ($1) ON CONFLICT (id) DO NOTHING"
# A login without an address, or with an unverified one, does not replace the known address.
_STORE_CLAIMS = "UPDATE accounts SET email = coalesce($2, email), claims_ms = $3, kyc_claim = $4 WHERE id = $1"
