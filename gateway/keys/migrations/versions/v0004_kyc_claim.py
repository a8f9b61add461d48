"""The provider's latest claim on an account's identity verification; ``kyc`` is the stricter one of it and the back office's decision."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE accounts ADD COLUMN kyc_claim text NOT NULL DEFAULT 'unverified' CHECK (kyc_claim IN ('unverified', 'verified'))"
    )
    # Until now the back office's decision overwrote the claim. Verified accounts had that claim; the others' is read at their next login.
    op.execute("UPDATE accounts SET kyc_claim = 'verified' WHERE kyc = 'verified'")
    op.execute("GRANT UPDATE (kyc_claim) ON accounts TO gerbang_admin")
