"""Failed proofs per login, in addition to those per account: a stolen login locks itself only."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

LOGIN_FAILURES = """
CREATE TABLE login_failures (
    account_id       text NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    login            text NOT NULL,               -- a session's id, or what names a bearer token
    failures         integer NOT NULL,
    locked_until_ms  bigint NOT NULL,
    noted_ms         bigint NOT NULL,
    PRIMARY KEY (account_id, login)
)
"""


def upgrade() -> None:
    op.execute(LOGIN_FAILURES)
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON login_failures TO gerbang_admin")
