"""The language that the account holder chose for the pages."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE accounts ADD COLUMN language text CHECK (language IN ('id', 'en'))  -- NULL: whatever the browser asks for")
    op.execute("GRANT UPDATE (language) ON accounts TO gerbang_admin")
