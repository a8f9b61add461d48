"""Operators' actions on second factors: show, and reset for a holder who has lost all of them."""

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.identity import accounts
from admin.stepup import challenges, factors
from admin.stepup.factors import Factor
from admin.stores import Stores


class FactorOperations:
    """Operations on the factors of any account, for the back office."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def counted(self, account_id: str) -> list[Factor]:
        """Confirmed factors, oldest first; none for an unknown account."""
        async with self._stores.transaction() as connection:
            return await factors.confirmed(connection, account_id)

    async def reset(self, account_id: str, reason: str, provenance: Provenance) -> None:
        """Remove every factor and recovery code, end every login, and freeze the account in one transaction: afterwards a login alone would
        suffice, so the keys stay off until the back office thaws the account. Can be repeated.

        :raises NotFound: there is no such account
        """
        async with self._stores.transaction() as connection:
            account = await accounts.lock(connection, account_id)
            removed = await factors.remove_all(connection, account_id)
            await factors.replace_recovery_codes(connection, account_id, ())
            await challenges.remove_all(connection, account_id)
            await accounts.end_logins(connection, account_id, provenance.now_ms, forget_failures=True)
            detail = {"reason": reason, "factors": [{"factor_id": each.id, "kind": each.kind.value, "name": each.name} for each in removed]}
            entry = Entry(provenance=provenance, event=Event.FACTORS_RESET, actor=Actor.OPERATOR, account_id=account_id, detail=detail)
            await audit.append(connection, entry)
            touched = await accounts.set_frozen(connection, account, True, reason, provenance)
        await self._stores.invalidate(touched)
