"""Back-off after wrong proofs, per login and per account: SQL on the caller's connection.

A login has five attempts, so that an attacker with a stolen login cannot lock the holder out; the account has twenty, so that
an attacker who can log in repeatedly cannot guess for ever. Passkeys cannot be guessed, so they are neither counted nor locked.
"""

from typing import NamedTuple

from admin.errors import rate_limited
from admin.identity.accounts import Account
from admin.identity.caller import Caller
from admin.stepup.proof import FREE_ACCOUNT_FAILURES, left_ms, lock_out_ms
from gateway.errors import Refusal
from gateway.keys.postgres import Connection, translated

_KEPT_MS = 604_800_000  # a week: the longest that a session may last


class LockoutState(NamedTuple):
    """The failures counted against a caller. The account is locked in this transaction, which serializes guesses."""

    account: Account
    login: str
    failures: int
    """Failures of this login."""
    locked_until_ms: int
    """The end of the login's lock-out."""

    def refusal(self, now_ms: int) -> Refusal | None:
        """The refusal while locked out; ``None``: codes are accepted."""
        wait_ms = max(left_ms(self.locked_until_ms, now_ms), left_ms(self.account.locked_until_ms, now_ms))
        return rate_limited("Too many wrong codes in a row: wait, then try again.", wait_ms) if wait_ms else None


async def state(connection: Connection, account: Account, caller: Caller) -> LockoutState:
    """:raises StoreUnavailable: PostgreSQL did not answer"""
    with translated():
        row = await connection.fetchrow(_READ, account.id, caller.login)
    failures, locked_until_ms = (row["failures"], row["locked_until_ms"]) if row is not None else (0, 0)
    return LockoutState(account, caller.login, failures, locked_until_ms)


async def note_guess(connection: Connection, before: LockoutState, now_ms: int) -> int:
    """Count a wrong code. Returns the login's number of failures."""
    account, failures = before.account, before.failures + 1
    together = account.proof_failures + 1
    delay_ms, account_delay_ms = lock_out_ms(failures), lock_out_ms(together, free=FREE_ACCOUNT_FAILURES)
    with translated():
        await connection.execute(_FORGET_OLD, account.id, now_ms - _KEPT_MS)
        await connection.execute(_NOTE, account.id, before.login, failures, now_ms + delay_ms if delay_ms else 0, now_ms)
        await connection.execute(_NOTE_ACCOUNT, account.id, together, now_ms + account_delay_ms if account_delay_ms else 0)
    return failures


async def forget(connection: Connection, before: LockoutState) -> None:
    """Reset the counts of this login and its account after a valid proof. Other logins are not affected."""
    with translated():
        if before.failures:
            await connection.execute(_FORGET, before.account.id, before.login)
        if before.account.proof_failures:
            await connection.execute(_NOTE_ACCOUNT, before.account.id, 0, 0)


_READ = "SELECT failures, locked_until_ms FROM login_failures WHERE account_id = $1 AND login = $2"
_NOTE = """
    INSERT INTO login_failures (account_id, login, failures, locked_until_ms, noted_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (account_id, login) DO UPDATE SET failures = $3, locked_until_ms = $4, noted_ms = $5
"""
_NOTE_ACCOUNT = "UPDATE accounts SET proof_failures = $2, locked_until_ms = $3 WHERE id = $1"
_FORGET = "DELETE FROM login_failures WHERE account_id = $1 AND login = $2"
_FORGET_OLD = "DELETE FROM login_failures WHERE account_id = $1 AND noted_ms < $2"
