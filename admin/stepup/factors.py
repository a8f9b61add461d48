"""Second factors and recovery codes in PostgreSQL, with sealed secrets: SQL on the caller's connection."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from admin.stepup import recovery
from gateway.keys.postgres import Connection, translated
from gateway.keys.reseal import Resealed
from gateway.keys.vault import SealBroken, Vault


class Kind(StrEnum):
    """The kinds of factors."""

    TOTP = "totp"
    PASSKEY = "passkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One factor. Its content is sealed until it is needed."""

    id: str
    account_id: str
    kind: Kind
    name: str
    sealed: bytes = field(repr=False)
    counter: int = -1
    """TOTP: the last accepted time step. Passkey: the signature counter last seen."""
    proven: bool
    """Whether enrolment was begun with a step-up."""
    created_ms: int
    confirmed_ms: int | None
    """``None``: the enrolment is pending."""
    last_used_ms: int | None = None

    def open(self, vault: Vault) -> bytes:
        """:raises SealBroken: the vault's ring lacks its key, or it was modified"""
        return vault.open(self.sealed, context=_context(self.kind, self.id))


def new_factor(
    account_id: str, kind: Kind, name: str, content: bytes, vault: Vault, *, proven: bool, created_ms: int, confirmed_ms: int | None = None
) -> Factor:
    """Create a factor, without storing it, its content sealed for its id."""
    factor_id = f"fac_{secrets.token_urlsafe(12)}"
    return Factor(
        id=factor_id,
        account_id=account_id,
        kind=kind,
        name=name,
        sealed=vault.seal(content, context=_context(kind, factor_id)),
        proven=proven,
        created_ms=created_ms,
        confirmed_ms=confirmed_ms,
    )


async def insert(connection: Connection, factor: Factor, *, credential_digest: bytes | None = None) -> None:
    """:raises asyncpg.UniqueViolationError: the credential is in use already, or an enrolment is pending"""
    with translated():
        await connection.execute(
            _INSERT,
            factor.id,
            factor.account_id,
            factor.kind.value,
            factor.name,
            factor.sealed,
            factor.counter,
            credential_digest,
            factor.proven,
            factor.created_ms,
            factor.confirmed_ms,
        )


async def confirmed(connection: Connection, account_id: str) -> list[Factor]:
    """The confirmed factors, oldest first."""
    with translated():
        rows = await connection.fetch(_SELECT + " WHERE account_id = $1 AND confirmed_ms IS NOT NULL ORDER BY created_ms, id", account_id)
    return [_factor(row) for row in rows]


async def seals(connection: Connection, *, limit: int) -> list[tuple[bytes, str]]:
    """Sealed contents of some confirmed factors, each with its context, to check a key ring."""
    with translated():
        rows = await connection.fetch(_SELECT + " WHERE confirmed_ms IS NOT NULL ORDER BY id LIMIT $1", limit)
    return [(factor.sealed, _context(factor.kind, factor.id)) for factor in map(_factor, rows)]


async def pending(connection: Connection, account_id: str) -> Factor | None:
    """The pending enrolment; an account has at most one."""
    with translated():
        row = await connection.fetchrow(_SELECT + " WHERE account_id = $1 AND confirmed_ms IS NULL", account_id)
    return None if row is None else _factor(row)


async def drop_pending(connection: Connection, account_id: str) -> None:
    with translated():
        await connection.execute("DELETE FROM factors WHERE account_id = $1 AND confirmed_ms IS NULL", account_id)


async def confirm(connection: Connection, factor_id: str, *, counter: int, now_ms: int) -> None:
    with translated():
        await connection.execute("UPDATE factors SET confirmed_ms = $3, counter = $2 WHERE id = $1", factor_id, counter, now_ms)


async def remove(connection: Connection, account_id: str, factor_id: str) -> None:
    with translated():
        await connection.execute("DELETE FROM factors WHERE id = $1 AND account_id = $2", factor_id, account_id)


async def remove_all(connection: Connection, account_id: str) -> list[Factor]:
    """Remove all factors and a pending enrolment. Returns the confirmed ones."""
    removed = await confirmed(connection, account_id)
    with translated():
        await connection.execute("DELETE FROM factors WHERE account_id = $1", account_id)
    return removed


async def advance(connection: Connection, factor_id: str, *, counter: int, now_ms: int) -> bool:
    """Store a higher counter, in one statement, so that only one of several concurrent uses of the same value succeeds."""
    with translated():
        return bool(await connection.fetchval(_ADVANCE, factor_id, counter, now_ms) is not None)


async def touch(connection: Connection, factor: Factor, *, sealed: bytes, now_ms: int) -> None:
    """Store a factor's new content (which includes a passkey's counter) and the time of use."""
    with translated():
        await connection.execute("UPDATE factors SET sealed = $2, last_used_ms = $3 WHERE id = $1", factor.id, sealed, now_ms)


async def replace_recovery_codes(connection: Connection, account_id: str, codes: tuple[str, ...]) -> None:
    """Replace all recovery codes."""
    with translated():
        await connection.execute("DELETE FROM recovery_codes WHERE account_id = $1", account_id)
        await connection.executemany(
            "INSERT INTO recovery_codes (account_id, digest) VALUES ($1, $2)",
            [(account_id, recovery.digest(account_id, code)) for code in codes],
        )


async def recovery_codes_left(connection: Connection, account_id: str) -> int | None:
    """The number of unused codes; ``None``: none were ever created."""
    with translated():
        row = await connection.fetchrow(_CODES_LEFT, account_id)
    return None if row is None or not row["given"] else int(row["unused"])


async def use_recovery_code(connection: Connection, account_id: str, code: str, *, now_ms: int) -> bool | None:
    """Use a code up. True: used now. False: used before. ``None``: no such code."""
    digest = recovery.digest(account_id, code)
    with translated():
        if await connection.fetchval(_USE_CODE, account_id, digest, now_ms) is not None:
            return True
        known = await connection.fetchval("SELECT 1 FROM recovery_codes WHERE account_id = $1 AND digest = $2", account_id, digest)
    return None if known is None else False


async def reseal(connection: Connection, vault: Vault, *, batch: int = 500) -> Resealed:
    """Re-seal every factor that was not sealed with the vault's first key, each in a separate transaction.

    :raises StoreUnavailable: PostgreSQL did not answer; completed work is kept
    """
    done, unreadable, after = 0, list[str](), ""
    while True:
        with translated():
            rows = await connection.fetch(_SELECT + " WHERE id > $1 ORDER BY id LIMIT $2", after, batch)
        for factor in map(_factor, rows):
            try:
                content = factor.open(vault)
            except SealBroken:
                unreadable.append(factor.id)
                continue
            if not vault.is_current(factor.sealed):
                sealed = seal(factor, content, vault)
                with translated():
                    # Only if it has not changed meanwhile: a passkey's counter must not decrease.
                    done += await connection.execute(_RESEAL, factor.id, factor.sealed, sealed) == "UPDATE 1"
        if len(rows) < batch:
            return Resealed(done, unreadable)
        after = rows[-1]["id"]


def seal(factor: Factor, plaintext: bytes, vault: Vault) -> bytes:
    """New content for a stored factor."""
    return vault.seal(plaintext, context=_context(factor.kind, factor.id))


def _context(kind: Kind, factor_id: str) -> str:
    return f"{kind.value}:{factor_id}"


def _factor(row: object) -> Factor:
    values = dict(row)  # type: ignore[call-overload]  # an asyncpg.Record is a mapping that the stubs do not call one
    return Factor(**{**values, "kind": Kind(values["kind"])})


_SELECT = "SELECT id, account_id, kind, name, sealed, counter, proven, created_ms, confirmed_ms, last_used_ms FROM factors"
_RESEAL = "UPDATE factors SET sealed = $3 WHERE id = $1 AND sealed = $2"
_INSERT = """
    INSERT INTO factors (id, account_id, kind, name, sealed, counter, credential_digest, proven, created_ms, confirmed_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_ADVANCE = "UPDATE factors SET counter = $2, last_used_ms = $3 WHERE id = $1 AND counter < $2 RETURNING id"
_CODES_LEFT = "SELECT count(*) AS given, count(*) FILTER (WHERE used_ms IS NULL) AS unused FROM recovery_codes WHERE account_id = $1"
_USE_CODE = "UPDATE recovery_codes SET used_ms = $3 WHERE account_id = $1 AND digest = $2 AND used_ms IS NULL RETURNING digest"
