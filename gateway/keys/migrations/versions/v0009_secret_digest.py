"""A keyed digest of each secret, to find the key of a leaked secret. The admin service adds the digests of existing secrets."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD COLUMN secret_digest bytea CHECK (octet_length(secret_digest) = 32)")
    op.execute("CREATE INDEX api_keys_secret_digest ON api_keys (secret_digest) WHERE secret_digest IS NOT NULL")
    op.execute("GRANT UPDATE (secret_digest) ON api_keys TO gerbang_admin")
