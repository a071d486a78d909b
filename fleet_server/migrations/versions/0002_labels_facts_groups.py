"""Labels and facts of devices, groups."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.add_column(sa.Column("runtime_up", sa.Boolean(), nullable=True))
        batch_op.add_column(sa.Column("labels", sa.Text(), server_default="{}", nullable=False))
        batch_op.add_column(sa.Column("facts", sa.Text(), server_default="{}", nullable=False))
        batch_op.create_index("ix_device_seen", ["last_seen_ms", "id"], unique=False)
    op.create_table(
        "device_terms",
        sa.Column("device_id", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("value", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["devices.id"]),
        sa.PrimaryKeyConstraint("device_id", "name", "value"),
    )
    with op.batch_alter_table("device_terms", schema=None) as batch_op:
        batch_op.create_index("ix_term_value", ["name", "value", "device_id"], unique=True)
        batch_op.create_index("ix_term_number", ["name", "number", "device_id"], unique=False)
    op.create_table(
        "device_groups",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_table("device_groups")
    op.drop_table("device_terms")
    with op.batch_alter_table("devices", schema=None) as batch_op:
        batch_op.drop_index("ix_device_seen")
        batch_op.drop_column("facts")
        batch_op.drop_column("labels")
        batch_op.drop_column("runtime_up")
