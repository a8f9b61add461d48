"""The time before which an account's logins are invalid: ends every session of an account at once."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE accounts ADD COLUMN logins_after_ms bigint NOT NULL DEFAULT 0  -- tokens issued until then are refused")
    op.execute("GRANT UPDATE (logins_after_ms) ON accounts TO gerbang_admin")
