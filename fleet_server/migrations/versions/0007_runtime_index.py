"""An index for the devices whose runtime does not run."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the change."""
    op.create_index("ix_device_runtime", "devices", ["runtime_up", "id"])


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_device_runtime", "devices")
