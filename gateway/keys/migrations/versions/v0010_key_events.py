"""Notification of upstreams about keys that ended: deliveries per channel, and those not yet assigned to one."""

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
