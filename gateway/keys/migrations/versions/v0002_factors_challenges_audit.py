"""Tables of the admin service: claims, factors, recovery codes, challenges, the audit log. The gateway has no access to them.

Times are Unix milliseconds, as in the code: they are compared and hashed exactly.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ACCOUNTS = """
ALTER TABLE accounts
    ADD COLUMN claims_ms        bigint  NOT NULL DEFAULT 0,  -- when the provider made the claims that email and kyc come from
    ADD COLUMN proof_failures   integer NOT NULL DEFAULT 0,  -- wrong step-up proofs in a row
    ADD COLUMN locked_until_ms  bigint  NOT NULL DEFAULT 0
"""

FACTORS = """
CREATE TABLE factors (
    id                 text PRIMARY KEY,
    account_id         text NOT NULL REFERENCES accounts (id),
    kind               text NOT NULL CHECK (kind IN ('totp', 'passkey')),
    name               text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 64),
    sealed             bytea NOT NULL,
    counter            bigint NOT NULL DEFAULT -1,  -- the last accepted time step, or signature counter
    credential_digest  bytea UNIQUE,                -- of a passkey: one credential, one account (WebAuthn §7.1)
    proven             boolean NOT NULL,            -- enrolment was begun with a step-up, not by a fresh login alone
    created_ms         bigint NOT NULL,
    confirmed_ms       bigint,
    last_used_ms       bigint
)
"""

RECOVERY_CODES = """
CREATE TABLE recovery_codes (
    account_id  text NOT NULL REFERENCES accounts (id),
    digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
    used_ms     bigint,
    PRIMARY KEY (account_id, digest)
)
"""

CHALLENGES = """
CREATE TABLE step_up_challenges (
    id             text PRIMARY KEY,
    account_id     text NOT NULL REFERENCES accounts (id),
    session_id     text,
    action         text NOT NULL,
    intent_digest  bytea NOT NULL CHECK (octet_length(intent_digest) = 32),
    nonce          bytea NOT NULL CHECK (octet_length(nonce) = 32),  -- the WebAuthn challenge
    created_ms     bigint NOT NULL,
    expires_ms     bigint NOT NULL,
    used_ms        bigint
)
"""

# Each row holds the hash of its predecessor, so that changed, missing or inserted rows are detected. UNIQUE: one successor per row.
AUDIT = """
CREATE TABLE audit_events (
    seq         bigint PRIMARY KEY CHECK (seq > 0),
    at_ms       bigint NOT NULL,
    event       text NOT NULL,
    actor       text NOT NULL,
    account_id  text,
    key_id      text,
    client_ip   text,
    detail      text NOT NULL,  -- JSON as it was hashed; jsonb would not keep the bytes
    previous    bytea NOT NULL UNIQUE CHECK (octet_length(previous) = 32),
    hash        bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32)
)
"""

# Also stops the table's owner, who could drop the trigger; the chain would then reveal the change.
APPEND_ONLY = (
    """
    CREATE FUNCTION gerbang_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'audit_events is append-only';
    END $$
    """,
    """
    CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION gerbang_audit_is_append_only()
    """,
)

INDEXES = (
    "CREATE INDEX factors_account ON factors (account_id)",
    # A new pending enrolment replaces the previous one.
    "CREATE UNIQUE INDEX factors_pending ON factors (account_id) WHERE confirmed_ms IS NULL",
    "CREATE INDEX step_up_challenges_account ON step_up_challenges (account_id)",
    "CREATE INDEX audit_events_account ON audit_events (account_id, seq)",
)

GRANTS = (
    "GRANT UPDATE (claims_ms, proof_failures, locked_until_ms) ON accounts TO gerbang_admin",
    "GRANT SELECT, INSERT, DELETE ON factors, recovery_codes, step_up_challenges TO gerbang_admin",
    "GRANT UPDATE (sealed, counter, confirmed_ms, last_used_ms) ON factors TO gerbang_admin",
    "GRANT UPDATE (used_ms) ON recovery_codes, step_up_challenges TO gerbang_admin",
    "GRANT SELECT, INSERT ON audit_events TO gerbang_admin",
)


def upgrade() -> None:
    for statement in (ACCOUNTS, FACTORS, RECOVERY_CODES, CHALLENGES, AUDIT, *APPEND_ONLY, *INDEXES, *GRANTS):
        op.execute(statement)
