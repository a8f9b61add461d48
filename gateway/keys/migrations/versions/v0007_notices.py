"""Notifications to key owners, their deliveries, and the observed activity of each key.

``key_activity`` survives a loss of Redis, since unused keys may end. A key without a row was never used and no notice was sent about it.
For existing keys this is unknown, so they count as used, and their idle time begins with this migration.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NOTICES = """
CREATE TABLE notices (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text NOT NULL UNIQUE,             -- what a receiver recognises a repeated delivery by
    account_id  text NOT NULL,
    topic       text NOT NULL,
    at_ms       bigint NOT NULL,
    key_id      text,
    detail      text NOT NULL,                    -- JSON
    once        text UNIQUE                       -- of what happens again and is told once
)
"""

DELIVERIES = """
CREATE TABLE notice_deliveries (
    seq             bigint NOT NULL REFERENCES notices (seq) ON DELETE CASCADE,
    channel         text NOT NULL CHECK (channel IN ('mail', 'webhook')),
    account_id      text NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    first_tried_ms  bigint,
    due_ms          bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (channel, seq)
)
"""

ACTIVITY = """
CREATE TABLE key_activity (
    key_id        text PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    first_ms      bigint,                         -- first use that was seen
    last_ms       bigint,                         -- a use, at most an hour older than the last
    counted_ms    bigint NOT NULL DEFAULT 0,      -- nothing is known of the time before
    expiry_told   smallint,                       -- days before the end that were told; 0: the end itself
    idle_told     smallint
)
"""

WAKE = (
    """
    CREATE FUNCTION gerbang_notify_notice() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('gerbang_notices', '');
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER notice_deliveries_notify AFTER INSERT ON notice_deliveries
    FOR EACH STATEMENT EXECUTE FUNCTION gerbang_notify_notice()
    """,
)

INDEXES = (
    "CREATE INDEX notices_at ON notices (at_ms)",
    "CREATE INDEX notices_key ON notices (key_id, topic) WHERE key_id IS NOT NULL",
    # For the accounts that wait for a retry.
    "CREATE INDEX notice_deliveries_waiting ON notice_deliveries (channel, account_id, due_ms) WHERE attempts > 0",
    "CREATE INDEX api_keys_expiry ON api_keys (expires_at) WHERE expires_at IS NOT NULL AND revoked_at IS NULL",
)

COUNTED = """
INSERT INTO key_activity (key_id, first_ms, counted_ms, expiry_told)
SELECT id, now_ms, now_ms, CASE WHEN expires_at <= now() THEN 0 END
  FROM api_keys, (SELECT (extract(epoch FROM now()) * 1000)::bigint AS now_ms) AS clock
"""

GRANTS = (
    "GRANT SELECT, INSERT, DELETE ON notices, notice_deliveries TO gerbang_admin",
    "GRANT UPDATE (attempts, first_tried_ms, due_ms) ON notice_deliveries TO gerbang_admin",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON key_activity TO gerbang_admin",
    "GRANT UPDATE (ended_idle) ON api_keys TO gerbang_admin",
)


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD COLUMN ended_idle boolean NOT NULL DEFAULT false  -- revoked for want of use")
    for statement in (NOTICES, DELIVERIES, ACTIVITY, *WAKE, *INDEXES, COUNTED, *GRANTS):
        op.execute(statement)
