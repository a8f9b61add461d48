"""Challenges in PostgreSQL: bound to an intent and an account, single-use, valid for two minutes."""

import secrets
from dataclasses import dataclass

from admin.identity.caller import Caller
from admin.stepup.intent import Intent
from admin.stepup.proof import Wrong
from gateway.keys.postgres import Connection, translated

LIFETIME_MS = 120_000
_KEPT_MS = 3_600_000  # so that a late answer is refused as "expired", not "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge."""

    id: str
    nonce: bytes
    """32 random bytes: the WebAuthn challenge."""
    expires_ms: int


async def open_challenge(connection: Connection, caller: Caller, intent: Intent, now_ms: int) -> Challenge:
    """Create a challenge for the caller and this intent, and remove the account's old ones.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    challenge = Challenge(id=f"chl_{secrets.token_urlsafe(16)}", nonce=secrets.token_bytes(32), expires_ms=now_ms + LIFETIME_MS)
    with translated():
        await connection.execute(_REMOVE_OLD, caller.account_id, now_ms - _KEPT_MS)
        await connection.execute(
            _OPEN,
            challenge.id,
            caller.account_id,
            caller.session_id,
            intent.action.value,
            intent.digest(),
            challenge.nonce,
            now_ms,
            challenge.expires_ms,
        )
    return challenge


async def read(connection: Connection, caller: Caller, intent: Intent, challenge_id: str, now_ms: int) -> Challenge | Wrong:
    """The challenge, if it is valid for this intent now. Does not use it up."""
    with translated():
        row = await connection.fetchrow(_READ, challenge_id, caller.account_id, caller.session_id)
    if row is None:
        return Wrong.CHALLENGE_UNKNOWN
    if row["used_ms"] is not None:
        return Wrong.CHALLENGE_USED
    if row["expires_ms"] <= now_ms:
        return Wrong.CHALLENGE_EXPIRED
    if row["intent_digest"] != intent.digest():
        return Wrong.OTHER_INTENT
    return Challenge(id=challenge_id, nonce=row["nonce"], expires_ms=row["expires_ms"])


async def use(connection: Connection, caller: Caller, intent: Intent, challenge_id: str, now_ms: int) -> bool:
    """Use the challenge up, in one statement that checks everything again, so that only one of several concurrent uses succeeds."""
    with translated():
        used = await connection.fetchval(_USE, challenge_id, caller.account_id, caller.session_id, intent.digest(), now_ms)
    return used is not None


async def remove_all(connection: Connection, account_id: str) -> None:
    """Invalidate all of the account's challenges."""
    with translated():
        await connection.execute("DELETE FROM step_up_challenges WHERE account_id = $1", account_id)


_REMOVE_OLD = "DELETE FROM step_up_challenges WHERE account_id = $1 AND expires_ms < $2"
_OPEN = """
    INSERT INTO step_up_challenges (id, account_id, session_id, action, intent_digest, nonce, created_ms, expires_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_READ = """
    SELECT intent_digest, nonce, expires_ms, used_ms FROM step_up_challenges
     WHERE id = $1 AND account_id = $2 AND session_id IS NOT DISTINCT FROM $3
"""
_USE = """
    UPDATE step_up_challenges SET used_ms = $5
     WHERE id = $1 AND account_id = $2 AND session_id IS NOT DISTINCT FROM $3 AND intent_digest = $4
       AND used_ms IS NULL AND expires_ms > $5
    RETURNING id
"""
