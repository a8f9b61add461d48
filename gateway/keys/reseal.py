"""Key rotation: re-encrypts every stored secret with the first key-encryption key, while the services run.

Put the new key first in every ring, restart, re-seal, and only then remove the old key. Can be interrupted and run again.
"""

from contextlib import suppress
from typing import NamedTuple

from gateway.keys import sql
from gateway.keys.postgres import AnyConnection, translated
from gateway.keys.vault import SealBroken, Vault

BATCH = 500


class Resealed(NamedTuple):
    """The result of a run."""

    done: int
    """Number of re-sealed records."""
    unreadable: list[str]
    """Ids of records that no key of the ring opens, left unchanged. They are refused already, with or without an old key."""


async def reseal(connection: AnyConnection, vault: Vault) -> Resealed:
    """Re-seal the keys' secrets in order of id, in batches, each secret in a separate transaction.

    :param connection: a connection of the admin role, outside a transaction
    :raises StoreUnavailable: PostgreSQL did not answer; completed work is kept
    """
    done, unreadable, after = 0, [], ""
    while True:
        with translated():
            rows = await connection.fetch(sql.SEALED_AFTER, after, BATCH)
        for row in rows:
            key_id, sealed = row["id"], row["sealed_secret"]
            try:
                secret = vault.open(sealed, context=key_id)
            except SealBroken:
                unreadable.append(key_id)
                continue
            with translated():
                await connection.execute(sql.DIGEST, key_id, vault.digests(secret)[0])
                if not vault.is_current(sealed):
                    done += await connection.execute(sql.RESEAL, key_id, sealed, vault.seal(secret, context=key_id)) == "UPDATE 1"
        if len(rows) < BATCH:
            return Resealed(done, unreadable)
        after = rows[-1]["id"]


async def fill_digests(connection: AnyConnection, vault: Vault) -> int:
    """Compute missing digests of secrets, of keys older than digests. Returns how many. A secret that does not open is skipped.

    :raises StoreUnavailable: PostgreSQL did not answer; completed work is kept
    """
    done, after = 0, ""
    while True:
        with translated():
            rows = await connection.fetch(sql.UNDIGESTED_AFTER, after, BATCH)
        for row in rows:
            with suppress(SealBroken):
                digest = vault.digests(vault.open(row["sealed_secret"], context=row["id"]))[0]
                with translated():
                    done += await connection.execute(sql.DIGEST, row["id"], digest) == "UPDATE 1"
        if len(rows) < BATCH:
            return done
        after = rows[-1]["id"]
