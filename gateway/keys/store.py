"""API keys in PostgreSQL: :class:`KeyStore` reads for the gateway; functions on the caller's connection write for the admin service.

The functions take a connection so that they join the caller's transaction, which also writes the audit row. The caller
must publish the invalidation of a changed key after the commit, never before: ``invalidation.publish``.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

import structlog

from gateway.errors import StoreUnavailable
from gateway.keys import sql
from gateway.keys.codec import RecordUnreadable
from gateway.keys.postgres import AnyConnection, Pool, translated
from gateway.keys.record import Algorithm, KeyRecord, Scope
from gateway.keys.secret import Secret
from gateway.keys.vault import SealBroken, Vault
from gateway.runtime.tasks import StallTolerantTimeout

FIND_SECONDS = 1.0
"""Time limit for one look-up in PostgreSQL, which reads some rows by primary key."""
_log = structlog.get_logger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Found(NamedTuple):
    """The usable keys among those requested, as committed at one moment."""

    records: dict[str, KeyRecord]
    server: int
    """Identifies the server that answered (``sql.SERVER``)."""


class KeyStore:
    """Reads keys for the gateway.

    :param seconds: time limit for a statement, and for waiting for a connection
    """

    def __init__(self, pool: Pool, vault: Vault, *, seconds: float = FIND_SECONDS) -> None:
        self._pool = pool
        self._vault = vault
        self._seconds = seconds

    async def find(self, key_ids: Sequence[str]) -> Found:
        """Find these keys (at least one) in one statement. An unusable row is logged and omitted, so that it affects its key alone.

        :raises StoreUnavailable: PostgreSQL did not answer in time
        """
        try:
            with translated():
                async with StallTolerantTimeout(self._seconds):
                    rows = await self._ask(key_ids)
        except ValueError:
            raise StoreUnavailable("PostgreSQL cannot be queried: the DSN has an option that cannot be used") from None
        records = {}
        for row in rows:
            if row["id"] is not None:
                try:
                    records[row["id"]] = record_of(row, self._vault)
                except RecordUnreadable as error:
                    _log.error("key_record_unreadable", key_id=row["id"], reason=str(error))
        return Found(records, rows[0]["server"])

    async def _ask(self, key_ids: Sequence[str]) -> Any:
        connection = await self._pool.acquire()
        try:
            return await connection.fetch(sql.FIND_KEYS, key_ids)
        except asyncio.CancelledError:
            # Timed out. The pool would wait for the slow server to confirm the cancellation before it takes the connection back.
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """One key, as shown to its owner and to operators: everything except the secret."""

    key_id: str
    account_id: str
    label: str
    scopes: frozenset[Scope]
    algorithm: Algorithm
    public_key: bytes | None
    ip_allowlist: tuple[IPv4Address | IPv6Address, ...] | None
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    """When it was revoked. It stays listed, without its secret, until its owner deletes it."""
    revoked_reason: str | None
    ended_idle: bool = False
    """Whether it was revoked because it was unused."""


async def insert(connection: AnyConnection, record: KeyRecord, vault: Vault) -> None:
    """Insert a key; its account must exist.

    :raises StoreUnavailable: PostgreSQL did not answer; the caller's transaction decides whether the row exists
    :raises asyncpg.IntegrityConstraintViolationError: the caller's checks passed something that the schema refuses
    """
    with translated():
        await connection.execute(
            sql.INSERT_KEY,
            record.key_id,
            record.account_id,
            record.label,
            sorted(record.scopes),
            record.algorithm.value,
            None if record.secret is None else vault.seal(record.secret.reveal(), context=record.key_id),
            record.public_key,
            None if record.ip_allowlist is None else list(record.ip_allowlist),
            moment(record.created_ms),
            None if record.expires_ms is None else moment(record.expires_ms),
            None if record.secret is None else vault.digests(record.secret.reveal())[0],
        )


async def list_for_account(connection: AnyConnection, account_id: str) -> list[StoredKey]:
    """All keys of an account, oldest first, including revoked ones.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        return [stored(row) for row in await connection.fetch(sql.LIST_KEYS, account_id)]


async def find_secrets(connection: AnyConnection, digests: Sequence[bytes]) -> dict[bytes, tuple[str, str, str]]:
    """The keys whose secrets have these digests (:meth:`~gateway.keys.vault.Vault.digests`): id, account and label, revoked or not.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        rows = await connection.fetch(sql.FIND_DIGESTS, digests)
    return {row["secret_digest"]: (row["id"], row["account_id"], row["label"]) for row in rows}


async def get(connection: AnyConnection, key_id: str) -> StoredKey | None:
    """One key of any account; the caller checks the ownership.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        row = await connection.fetchrow(sql.GET_KEY, key_id)
    return None if row is None else stored(row)


async def count(connection: AnyConnection, account_id: str) -> int:
    """The number of an account's keys, including revoked ones. The caller's row lock on the account serializes concurrent creations.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        return int(await connection.fetchval(sql.COUNT_KEYS, account_id))


async def delete(connection: AnyConnection, key_id: str, *, account_id: str) -> bool:
    """Delete a key of this account. False: the account has no such key.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        return bool(await connection.execute(sql.DELETE_KEY, key_id, account_id) == "DELETE 1")


async def revoke(connection: AnyConnection, key_id: str, *, reason: str, now_ms: int, idle: bool = False) -> bool:
    """Revoke a key: wipes the secret and keeps the row for its owner to see. False: it is absent or was revoked before.

    :param reason: 1–500 characters, shown to the owner
    :param idle: whether it is revoked for being unused
    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        return bool(await connection.execute(sql.REVOKE_KEY, key_id, moment(now_ms), reason, idle) == "UPDATE 1")


async def revoke_many(connection: AnyConnection, key_ids: Sequence[str], *, reason: str, now_ms: int) -> list[tuple[str, str, str]]:
    """Revoke several keys. Returns id, account and label of each that was not revoked before.

    :raises StoreUnavailable: PostgreSQL did not answer
    """
    with translated():
        rows = await connection.fetch(sql.REVOKE_KEYS, key_ids, moment(now_ms), reason)
    return sorted((row["id"], row["account_id"], row["label"]) for row in rows)


def record_of(row: Any, vault: Vault) -> KeyRecord:
    """The record of a row of ``sql.FIND_KEYS``.

    :raises RecordUnreadable: the secret does not open, or a value is not allowed by the schema
    """
    try:
        sealed = row["sealed_secret"]
        return KeyRecord(
            key_id=row["id"],
            account_id=row["account_id"],
            label=row["label"],
            scopes=frozenset(map(Scope, row["scopes"])),
            algorithm=Algorithm(row["algorithm"]),
            secret=None if sealed is None else Secret(vault.open(sealed, context=row["id"])),
            public_key=row["public_key"],
            ip_allowlist=_addresses(row["ip_allowlist"]),
            created_ms=_milliseconds(row["created_at"]),
            expires_ms=None if row["expires_at"] is None else _milliseconds(row["expires_at"]),
            frozen=row["frozen"],
            tier=row["tier"],
        )
    except (SealBroken, ValueError, TypeError) as error:
        raise RecordUnreadable(str(error)) from None


def stored(row: Any) -> StoredKey:
    """The key of a row that has the columns of ``sql.GET_KEY``."""
    return StoredKey(
        key_id=row["id"],
        account_id=row["account_id"],
        label=row["label"],
        scopes=frozenset(map(Scope, row["scopes"])),
        algorithm=Algorithm(row["algorithm"]),
        public_key=row["public_key"],
        ip_allowlist=_addresses(row["ip_allowlist"]),
        created_ms=_milliseconds(row["created_at"]),
        expires_ms=None if row["expires_at"] is None else _milliseconds(row["expires_at"]),
        revoked_ms=None if row["revoked_at"] is None else _milliseconds(row["revoked_at"]),
        revoked_reason=row["revoked_reason"],
        ended_idle=row["ended_idle"],
    )


def _addresses(values: list[object] | None) -> tuple[IPv4Address | IPv6Address, ...] | None:
    if values is None:
        return None
    addresses = tuple(value for value in values if type(value) in (IPv4Address, IPv6Address))
    if len(addresses) != len(values):  # asyncpg returns an IPv4Interface for a value with a mask
        raise ValueError("the allow list holds something that is not an address")
    return addresses  # type: ignore[return-value]  # mypy does not narrow on type()


def moment(milliseconds: int) -> datetime:
    """Unix milliseconds as a timestamp for PostgreSQL."""
    return _EPOCH + milliseconds * _MILLISECOND


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
