"""Seal every stored secret anew with the first key of the vault's ring: what follows a rotation of the key-encryption key."""

from admin.stepup import factors
from gateway.keys import postgres
from gateway.keys.postgres import Connection
from gateway.keys.vault import SealBroken, Vault

_BATCH = 500
_SECRETS = "SELECT id, sealed_secret FROM api_keys WHERE sealed_secret IS NOT NULL AND id > $1 ORDER BY id LIMIT $2"
# Only if nobody changed it meanwhile: a revocation wipes the secret, and it must stay wiped.
_REPLACE = "UPDATE api_keys SET sealed_secret = $3 WHERE id = $1 AND sealed_secret = $2"


async def reseal(dsn: str, vault: Vault) -> tuple[int, int]:
    """How many keys' secrets and how many second factors were sealed anew. Can be interrupted and run again, beside running services.

    :param dsn: of the admin service's role
    :raises ConfigError: the DSN is malformed
    :raises StoreUnavailable: no server could be reached
    :raises SealBroken: a secret does not open with any key of the ring; those before it are done
    """
    connection = await postgres.connect(dsn)
    try:
        return await _secrets(connection, vault), await factors.reseal(connection, vault)
    finally:
        await connection.close()


async def _secrets(connection: Connection, vault: Vault) -> int:
    after, count = "", 0
    while True:
        with postgres.translated():
            rows = await connection.fetch(_SECRETS, after, _BATCH)
        for row in rows:
            key_id, sealed = row["id"], row["sealed_secret"]
            if vault.is_current(sealed):
                continue
            try:
                anew = vault.seal(vault.open(sealed, context=key_id), context=key_id)
            except SealBroken as error:
                raise SealBroken(f"the secret of {key_id}: {error}") from None
            with postgres.translated():
                await connection.execute(_REPLACE, key_id, sealed, anew)
            count += 1
        if len(rows) < _BATCH:
            return count
        after = rows[-1]["id"]
