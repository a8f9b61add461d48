"""Key records and rows for tests."""

import asyncpg

from gateway.keys import store
from gateway.keys.ids import new_key_id, new_secret
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.vault import Vault, new_entry

NOW_MS = 1_790_000_000_000


def a_vault() -> Vault:
    return Vault.parse(new_entry("k1"))


def a_record(**changes: object) -> KeyRecord:
    """A key that reads and trades, HMAC, unrestricted, for ever, of account ``alice``."""
    members: dict[str, object] = {
        "key_id": new_key_id(),
        "account_id": "alice",
        "label": "bot",
        "scopes": frozenset({Scope.READ, Scope.TRADE}),
        "algorithm": Algorithm.HMAC_SHA256,
        "secret": new_secret(),
        "public_key": None,
        "ip_allowlist": None,
        "created_ms": NOW_MS,
        "expires_ms": None,
        "frozen": False,
    }
    return KeyRecord(**(members | changes))  # type: ignore[arg-type]


async def add_account(connection: asyncpg.Connection, account_id: str = "alice", kyc: str = "verified") -> None:
    await connection.execute("INSERT INTO accounts (id, kyc) VALUES ($1, $2) ON CONFLICT DO NOTHING", account_id, kyc)


async def add_key(connection: asyncpg.Connection, vault: Vault, **changes: object) -> KeyRecord:
    """A committed key of an account with verified KYC."""
    record = a_record(**changes)
    await add_account(connection, record.account_id)
    await store.insert(connection, record, vault)
    return record
