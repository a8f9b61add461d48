"""The tier of an account, which selects the rate limits of its keys in the gateway's configuration."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE accounts ADD COLUMN tier text CHECK (char_length(tier) BETWEEN 1 AND 64)  -- NULL: no tier, [limits] apply")
    op.execute("GRANT SELECT (tier) ON accounts TO gerbang_gateway")
    op.execute("GRANT UPDATE (tier) ON accounts TO gerbang_admin")
    op.execute("DROP TRIGGER accounts_notify ON accounts")
    op.execute("""
        CREATE TRIGGER accounts_notify AFTER UPDATE OF kyc, frozen, tier ON accounts FOR EACH ROW
        WHEN (OLD.kyc IS DISTINCT FROM NEW.kyc OR OLD.frozen IS DISTINCT FROM NEW.frozen OR OLD.tier IS DISTINCT FROM NEW.tier)
        EXECUTE FUNCTION gerbang_notify_account()
    """)
