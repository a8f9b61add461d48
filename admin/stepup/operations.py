"""An operator's reset of second factors, for a holder who has lost all of them."""

from admin import audit
from admin.audit import Actor, Entry, Event, Provenance
from admin.identity import accounts
from admin.stepup import challenges, factors
from admin.stores import Stores


async def reset_factors(stores: Stores, account_id: str, reason: str, provenance: Provenance) -> None:
    """Remove every factor and recovery code, end every login, and freeze the account in one transaction: afterwards a login alone would
    suffice, so the keys stay off until the back office thaws the account. Can be repeated.

    :raises NotFound: there is no such account
    """
    async with stores.transaction() as connection:
        account = await accounts.lock(connection, account_id)
        removed = await factors.remove_all(connection, account_id)
        await factors.replace_recovery_codes(connection, account_id, ())
        await challenges.remove_all(connection, account_id)
        await accounts.end_logins(connection, account_id, provenance.now_ms, forget_failures=True)
        detail = {"reason": reason, "factors": [{"factor_id": each.id, "kind": each.kind.value, "name": each.name} for each in removed]}
        entry = Entry(provenance=provenance, event=Event.FACTORS_RESET, actor=Actor.OPERATOR, account_id=account_id, detail=detail)
        await audit.append(connection, entry)
        touched = await accounts.set_frozen(connection, account, True, reason, provenance)
    await stores.invalidate(touched)
