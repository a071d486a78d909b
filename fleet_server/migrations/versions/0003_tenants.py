"""Tenants; everything that was there belongs to the default one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    tenants = op.create_table(
        "tenants",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.bulk_insert(tenants, [{"name": "default"}])
    op.create_table(
        "family_owners",
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=63), nullable=False),
        sa.PrimaryKeyConstraint("family"),
    )
    for table in ("devices", "api_tokens"):
        op.add_column(table, _tenant())
    op.create_index("ix_device_tenant", "devices", ["tenant", "id"])
    op.rename_table("device_groups", "old_device_groups")
    op.create_table(
        "device_groups",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        _tenant(),
        sa.PrimaryKeyConstraint("tenant", "name"),
    )
    op.execute(
        "INSERT INTO device_groups (name, selector, description, changed_ms) "
        "SELECT name, selector, description, changed_ms FROM old_device_groups"
    )
    op.drop_table("old_device_groups")


def downgrade() -> None:
    """Refuse: the rows of other tenants would become everybody's."""
    raise NotImplementedError("tenants cannot be taken back; restore a backup")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(length=63), server_default="default", nullable=False)
