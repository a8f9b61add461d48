"""Key rotation: re-encrypts every stored secret with the first key-encryption key, while the services run.

Put the new key first in every ring, restart, re-seal, and only then take the old key out. Can be interrupted and run again.
"""

from contextlib import suppress
from typing import NamedTuple

from gateway.keys import sql
from gateway.keys.postgres import AnyConnection, translated
from gateway.keys.vault import SealBroken, Vault

BATCH = 500


class Resealed(NamedTuple):
    """What was done."""

    done: int
    """Secrets that were sealed anew."""
    unreadable: list[str]
    """Ids of keys whose secret no key of the ring opens, as they were left. They are refused already; taking a key out loses nothing."""


async def reseal(connection: AnyConnection, vault: Vault) -> Resealed:
    """Walk the keys in order of their ids, a batch at a time, each secret in a transaction of its own.

    :param connection: of the admin's role, outside a transaction
    :raises StoreUnavailable: PostgreSQL did not answer; what was done so far stays
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
    """Digests of secrets that have none, of keys made before there were any; how many. A secret that does not open is passed over.

    :raises StoreUnavailable: PostgreSQL did not answer; what was done so far stays
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
