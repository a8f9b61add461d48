"""Ends of keys are told to upstreams: deliveries that are yet to be addressed, and one channel for each of them."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE notice_deliveries DROP CONSTRAINT notice_deliveries_channel_check")
    op.execute(
        "ALTER TABLE notice_deliveries ADD CONSTRAINT notice_deliveries_channel_check"
        " CHECK (channel ~ '^(mail|webhook|upstreams|upstream:[a-z0-9][a-z0-9_-]{0,62})$')"
    )
