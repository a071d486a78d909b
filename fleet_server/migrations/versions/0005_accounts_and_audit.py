"""Users, logins, scopes of tokens, and the audit trail."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    kind = sa.Column("kind", sa.String(length=16), server_default="token", nullable=False)
    op.add_column("api_tokens", kind)
    op.add_column("api_tokens", sa.Column("scope", sa.Text(), nullable=True))
    op.create_table(
        "users",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        _tenant(),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "admin_claims",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        _tenant(),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "login_attempts",
        sa.Column("subject", sa.String(length=120), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    op.create_table(
        "pending_logins",
        sa.Column("state_sha256", sa.String(length=64), nullable=False),
        sa.Column("nonce", sa.String(length=64), nullable=False),
        sa.Column("code_verifier", sa.String(length=128), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("state_sha256"),
    )
    op.create_table(
        "audit_entries",
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=200), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("previous_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        _tenant(),
        sa.PrimaryKeyConstraint("tenant", "number"),
    )


def downgrade() -> None:
    """Take it back."""
    for table in (
        "audit_entries",
        "pending_logins",
        "login_attempts",
        "admin_claims",
        "users",
    ):
        op.drop_table(table)
    with op.batch_alter_table("api_tokens") as batch_op:
        batch_op.drop_column("scope")
        batch_op.drop_column("kind")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(length=63), server_default="default", nullable=False)
