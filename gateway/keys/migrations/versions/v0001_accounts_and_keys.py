"""Accounts, API keys, the two database roles, and the notification of changes."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ACCOUNTS = """
CREATE TABLE accounts (
    id          text PRIMARY KEY CHECK (char_length(id) BETWEEN 1 AND 255),  -- OpenID Connect Core §2: sub
    email       text CHECK (char_length(email) BETWEEN 1 AND 320),
    kyc         text NOT NULL DEFAULT 'unverified' CHECK (kyc IN ('unverified', 'verified', 'revoked')),
    frozen      boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now()
)
"""

API_KEYS = """
CREATE TABLE api_keys (
    id              text PRIMARY KEY CHECK (id ~ '^gbk_[0-9A-Za-z]{28}$'),
    account_id      text NOT NULL REFERENCES accounts (id),
    label           text NOT NULL CHECK (char_length(label) BETWEEN 1 AND 64),
    scopes          text[] NOT NULL CHECK (scopes IN ('{read}', '{trade}', '{read,trade}')),
    algorithm       text NOT NULL CHECK (algorithm IN ('hmac-sha256', 'ed25519', 'rsa-sha256')),
    sealed_secret   bytea,
    public_key      bytea,
    ip_allowlist    inet[] CHECK (array_ndims(ip_allowlist) = 1 AND cardinality(ip_allowlist) BETWEEN 1 AND 3
                                  AND array_position(ip_allowlist, NULL) IS NULL),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz CHECK (expires_at > created_at),
    revoked_at      timestamptz,
    revoked_reason  text CHECK (char_length(revoked_reason) BETWEEN 1 AND 500),

    -- A symmetric key has a secret, until it is revoked: then the secret is wiped. Any other has a public key.
    CONSTRAINT api_keys_material CHECK (
        CASE algorithm
            WHEN 'hmac-sha256' THEN public_key IS NULL AND (sealed_secret IS NOT NULL) = (revoked_at IS NULL)
            ELSE public_key IS NOT NULL AND sealed_secret IS NULL
        END),
    CONSTRAINT api_keys_revocation CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
)
"""

# The payload is the key id; '*' stands for every key. PostgreSQL delivers after the commit, in commit order, even if the committing
# process has died. Re-sealing a secret does not change it, so gates are not notified.
NOTIFICATIONS = (
    """
    CREATE FUNCTION gerbang_notify_key() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('gerbang_keys', id) FROM (VALUES (OLD.id), (NEW.id)) AS touched (id) WHERE id IS NOT NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER api_keys_notify
    AFTER INSERT OR DELETE OR UPDATE OF id, account_id, label, scopes, algorithm, public_key, ip_allowlist, expires_at, revoked_at
    ON api_keys FOR EACH ROW EXECUTE FUNCTION gerbang_notify_key()
    """,
    """
    CREATE FUNCTION gerbang_notify_account() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('gerbang_keys', id) FROM api_keys WHERE account_id = NEW.id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER accounts_notify AFTER UPDATE OF kyc, frozen ON accounts FOR EACH ROW
    WHEN (OLD.kyc IS DISTINCT FROM NEW.kyc OR OLD.frozen IS DISTINCT FROM NEW.frozen)
    EXECUTE FUNCTION gerbang_notify_account()
    """,
    """
    CREATE FUNCTION gerbang_notify_all() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('gerbang_keys', '*');
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER api_keys_notify_truncate AFTER TRUNCATE ON api_keys FOR EACH STATEMENT EXECUTE FUNCTION gerbang_notify_all()
    """,
)

# Roles belong to the whole server: another database's migration, or an operator, may have created them before.
ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role} LOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- made by a migration of another database at this moment
END $$
"""

# A key cannot be edited: the admin's role may update only its seal and its revocation.
GRANTS = (
    "GRANT SELECT (id, kyc, frozen) ON accounts TO gerbang_gateway",
    "GRANT SELECT ON api_keys TO gerbang_gateway",
    "GRANT SELECT, INSERT ON accounts TO gerbang_admin",
    "GRANT UPDATE (email, kyc, frozen) ON accounts TO gerbang_admin",
    "GRANT SELECT, INSERT, DELETE ON api_keys TO gerbang_admin",
    "GRANT UPDATE (sealed_secret, revoked_at, revoked_reason) ON api_keys TO gerbang_admin",
)


def upgrade() -> None:
    op.execute(ACCOUNTS)
    op.execute(API_KEYS)
    op.execute("CREATE INDEX api_keys_account ON api_keys (account_id, created_at)")
    for statement in NOTIFICATIONS:
        op.execute(statement)
    for role in ("gerbang_gateway", "gerbang_admin"):
        op.execute(ROLE.format(role=role))
    for statement in GRANTS:
        op.execute(statement)
