"""The SQL statements of the gateway and the shared store on ``accounts`` and ``api_keys``.

The gateway's statements read only columns that its role may read (migration 0001).
"""

# -- gateway: SELECT only ---------------------------------------------------------------------------------------------

SERVER = """
    (SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint + oid::bigint
            + pg_relation_filenode('accounts')::bigint + pg_relation_filenode('api_keys')::bigint
            + pg_relation_filenode('key_changes')::bigint + pg_relation_filenode('key_feed_marks')::bigint
            + (extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time()) * 1000000)::bigint
       FROM pg_database WHERE datname = current_database())
"""
"""Identifies the server, its start, the database and the files of the tables. Restoring a dump creates or truncates the tables, which
changes the value; so does replacing the database by a copy (``CREATE DATABASE … TEMPLATE``, which keeps the tables' numbers).

The crash of one backend (SIGKILL, out of memory) makes a running server recover. Its start time stays, and numbers of transactions whose
log had not been written, as of those that were rolled back, are used again. It discards its statistics then, so that their time changes.
"""

# A row for each requested id; ``id`` is NULL if there is no usable key.
FIND_KEYS = f"""
    SELECT {SERVER} AS server, k.id, k.account_id, k.label, k.scopes, k.algorithm, k.sealed_secret, k.public_key,
           k.ip_allowlist, k.created_at, k.expires_at, (a.frozen OR a.kyc <> 'verified') AS frozen, a.tier
      FROM unnest($1::text[]) AS wanted (id)
      LEFT JOIN (api_keys k JOIN accounts a ON a.id = k.account_id) ON k.id = wanted.id AND k.revoked_at IS NULL
"""  # noqa: S608  # constants

# -- change feed: gateway ----------------------------------------------------------------------------------------------

# $1 is the position of the last read, $2 its server. A reader that may have missed changes (see `Trust.expect`) gets everything that the
# feed retains. Marks from beyond this database's own history are ignored. If there are no others, as after a dump of another server,
# nothing has been pruned; if there is none at all, all may have been.
#
# At most MOST_CHANGES + 1 changes are read: a reader that has missed more treats all of its entries as outdated.
#
# The first row is the feed's state; each further row has up to 500 changes, which bounds the work in one turn of a gate's event
# loop. One statement, so that everything is read in one snapshot.
MOST_CHANGES = 200_000
READ_FEED = f"""
    WITH feed AS (
        SELECT {SERVER} AS server,
               coalesce((SELECT min(horizon::text::bigint) FROM key_feed_marks WHERE horizon <= pg_snapshot_xmin(pg_current_snapshot())),
                        (SELECT 3 FROM key_feed_marks LIMIT 1), pg_snapshot_xmin(pg_current_snapshot())::text::bigint) AS floor
    ),
    since AS (
        SELECT (CASE WHEN $2 = server AND floor <= pg_snapshot_xmin($1::text::pg_snapshot)::text::bigint
                          AND pg_snapshot_xmax($1::text::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot())
                     THEN $1::text ELSE '3:3:' END)::pg_snapshot AS position
          FROM feed
    )
    SELECT pg_current_snapshot()::text AS position, server, floor, 0 AS page, NULL::text[] AS key_ids, NULL::bigint[] AS xids FROM feed
     UNION ALL
    SELECT NULL, NULL, NULL, page, array_agg(key_id), array_agg(xid::text::bigint)
      FROM (SELECT key_id, xid, 1 + (row_number() OVER () - 1) / 500 AS page
              FROM key_changes
             WHERE xid >= (SELECT pg_snapshot_xmin(position) FROM since)
               AND NOT pg_visible_in_snapshot(xid, (SELECT position FROM since))
             LIMIT {MOST_CHANGES} + 1) AS changes
     GROUP BY page
     ORDER BY page
"""  # noqa: S608  # constants

# -- change feed: admin ------------------------------------------------------------------------------------------------

# One mark for all admin services.
MARK_FEED = """
    INSERT INTO key_feed_marks (horizon) SELECT pg_snapshot_xmin(pg_current_snapshot())
     WHERE NOT EXISTS (SELECT FROM key_feed_marks WHERE made_at > now() - make_interval(secs => $1))
"""

# Deletes what every snapshot of the last $1 seconds sees: transactions below the horizon of the newest older mark.
PRUNE_FEED = """
    WITH oldest AS (SELECT made_at, horizon FROM key_feed_marks WHERE made_at < now() - make_interval(secs => $1)
                     ORDER BY made_at DESC LIMIT 1),
         pruned AS (DELETE FROM key_changes USING oldest WHERE xid < oldest.horizon)
    DELETE FROM key_feed_marks USING oldest WHERE key_feed_marks.made_at < oldest.made_at
"""

# What was committed in the last $1 seconds, or a little earlier; everything while no mark is as old.
CHANGED_KEYS = """
    SELECT DISTINCT key_id FROM key_changes
     WHERE xid >= coalesce((SELECT horizon FROM key_feed_marks WHERE made_at < now() - make_interval(secs => $1)
                             ORDER BY made_at DESC LIMIT 1), '0')
"""

# Entries restored from another server's dump, whose transaction ids differ.
DROP_FOREIGN = (
    "DELETE FROM key_changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())",
    "DELETE FROM key_feed_marks WHERE horizon > pg_snapshot_xmax(pg_current_snapshot())",
)

# -- admin ------------------------------------------------------------------------------------------------------------

INSERT_KEY = """
    INSERT INTO api_keys (id, account_id, label, scopes, algorithm, sealed_secret, public_key, ip_allowlist, created_at, expires_at,
                          secret_digest)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

LISTED = ("id", "account_id", "label", "scopes", "algorithm", "public_key", "ip_allowlist", "created_at", "expires_at",
          "revoked_at", "revoked_reason", "ended_idle")  # fmt: skip
"""The columns of a key that its owner and operators may see: never the secret."""

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

UNDIGESTED_AFTER = """
    SELECT id, sealed_secret FROM api_keys WHERE id > $1 AND sealed_secret IS NOT NULL AND secret_digest IS NULL ORDER BY id LIMIT $2
"""

DIGEST = "UPDATE api_keys SET secret_digest = $2 WHERE id = $1 AND sealed_secret IS NOT NULL AND secret_digest IS DISTINCT FROM $2"

FIND_DIGESTS = "SELECT secret_digest, id, account_id, label FROM api_keys WHERE secret_digest = ANY ($1::bytea[])"

# Only if the row has not changed meanwhile: a revocation that wiped the secret must not be undone.
RESEAL = "UPDATE api_keys SET sealed_secret = $3 WHERE id = $1 AND sealed_secret = $2"
