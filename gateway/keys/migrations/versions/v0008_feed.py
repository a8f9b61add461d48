"""The change feed, which records the key and transaction of each change for the gateways, and the markers by which it is pruned.

A reader keeps the snapshot of its last read and queries what that snapshot did not see, so a transaction that commits late is not
skipped, in whatever order entries were written. A mark states that no later snapshot reaches back beyond ``horizon``.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE key_changes (
        xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
        key_id  text NOT NULL,                              -- '*' stands for every key
        PRIMARY KEY (xid, key_id)
    )
    """,
    """
    CREATE TABLE key_feed_marks (
        id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),  -- a database restored from before lacks it
        made_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
        horizon  xid8 NOT NULL
    )
    """,
    "INSERT INTO key_feed_marks (horizon) VALUES (pg_snapshot_xmin(pg_current_snapshot()))",
)

# SECURITY DEFINER, so that any role's changes are recorded. One notification per transaction: the payload is always the same, and
# tells gates older than the feed that any key may have changed.
FUNCTIONS = (
    """
    CREATE OR REPLACE FUNCTION gerbang_notify_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        INSERT INTO key_changes (key_id) SELECT id FROM (VALUES (OLD.id), (NEW.id)) AS touched (id) WHERE id IS NOT NULL
            ON CONFLICT DO NOTHING;
        PERFORM pg_notify('gerbang_keys', '*');
        RETURN NULL;
    END $$
    """,
    """
    CREATE OR REPLACE FUNCTION gerbang_notify_account() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        INSERT INTO key_changes (key_id) SELECT id FROM api_keys WHERE account_id = NEW.id ON CONFLICT DO NOTHING;
        PERFORM pg_notify('gerbang_keys', '*');
        RETURN NULL;
    END $$
    """,
    """
    CREATE OR REPLACE FUNCTION gerbang_notify_all() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
        INSERT INTO key_changes (key_id) VALUES ('*') ON CONFLICT DO NOTHING;
        PERFORM pg_notify('gerbang_keys', '*');
        RETURN NULL;
    END $$
    """,
)

# Also for rows from logical replication, and in sessions that have disabled triggers.
ALWAYS = (
    "ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_keys_notify",
    "ALTER TABLE api_keys ENABLE ALWAYS TRIGGER api_keys_notify_truncate",
    "ALTER TABLE accounts ENABLE ALWAYS TRIGGER accounts_notify",
)

GRANTS = (
    "GRANT SELECT ON key_changes, key_feed_marks TO gerbang_gateway",
    "GRANT SELECT, INSERT, DELETE ON key_feed_marks TO gerbang_admin",
    "GRANT SELECT, DELETE ON key_changes TO gerbang_admin",
)


def upgrade() -> None:
    for statement in (*TABLES, *FUNCTIONS, *ALWAYS, *GRANTS):
        op.execute(statement)
