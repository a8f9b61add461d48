"""Every statement on ``accounts`` and ``api_keys`` that the gateway and the shared store use, by name. Nothing else.

Statements of the gateway's role read the columns it was granted, and no others (migration 0001).
"""

# -- gateway: SELECT only ---------------------------------------------------------------------------------------------

_FOR_GATE = """
    SELECT k.id, k.account_id, k.label, k.scopes, k.algorithm, k.sealed_secret, k.public_key, k.ip_allowlist,
           k.created_at, k.expires_at, (a.frozen OR a.kyc <> 'verified') AS frozen, a.tier
      FROM api_keys k JOIN accounts a ON a.id = k.account_id
     WHERE k.revoked_at IS NULL AND
"""

FIND_KEY = _FOR_GATE + " k.id = $1"

FIND_KEYS = _FOR_GATE + " k.id = ANY ($1::text[])"

# -- admin ------------------------------------------------------------------------------------------------------------

INSERT_KEY = """
    INSERT INTO api_keys (id, account_id, label, scopes, algorithm, sealed_secret, public_key, ip_allowlist, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""

LISTED = ("id", "account_id", "label", "scopes", "algorithm", "public_key", "ip_allowlist", "created_at", "expires_at",
          "revoked_at", "revoked_reason", "ended_idle")  # fmt: skip
"""Columns of a key as its owner and operators see it: never the secret."""

_LISTED = f"SELECT {', '.join(LISTED)} FROM api_keys"  # noqa: S608  # constants

LIST_KEYS = _LISTED + " WHERE account_id = $1 ORDER BY created_at, id"

GET_KEY = _LISTED + " WHERE id = $1"

COUNT_KEYS = "SELECT count(*) FROM api_keys WHERE account_id = $1"

DELETE_KEY = "DELETE FROM api_keys WHERE id = $1 AND account_id = $2"

REVOKE_KEY = """
    UPDATE api_keys SET revoked_at = $2, revoked_reason = $3, sealed_secret = NULL, ended_idle = $4
     WHERE id = $1 AND revoked_at IS NULL
"""

REVOKE_KEYS = """
    UPDATE api_keys SET revoked_at = $2, revoked_reason = $3, sealed_secret = NULL
     WHERE id = ANY ($1::text[]) AND revoked_at IS NULL RETURNING id, account_id, label
"""

# -- re-sealing -------------------------------------------------------------------------------------------------------

SEALED_AFTER = """
    SELECT id, sealed_secret FROM api_keys WHERE id > $1 AND sealed_secret IS NOT NULL ORDER BY id LIMIT $2
"""

# Only if nobody changed the row meanwhile: a revocation that wiped the secret must not be undone.
RESEAL = "UPDATE api_keys SET sealed_secret = $3 WHERE id = $1 AND sealed_secret = $2"
