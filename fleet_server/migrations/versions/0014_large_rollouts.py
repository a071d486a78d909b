"""What rollouts of a million devices are read from: members in the order of their turn."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_HEALTHY = sa.text("state = 'healthy'")


def upgrade() -> None:
    """Make the change."""
    op.drop_index("ix_member_turn", "rollout_members")
    op.create_index(
        "ix_member_turn",
        "rollout_members",
        ["rollout_id", "state", "retries", "stage", "rank"],
        postgresql_include=["excused"],
    )
    op.create_index("ix_member_revisited", "rollout_members", ["rollout_id", "state", "rank"])
    op.create_index(
        "ix_member_newest",
        "rollout_members",
        ["rollout_id", "stage", "ordered_ms", "rank"],
        postgresql_where=_HEALTHY,
        sqlite_where=_HEALTHY,
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_member_newest", "rollout_members")
    op.drop_index("ix_member_revisited", "rollout_members")
    op.drop_index("ix_member_turn", "rollout_members")
    op.create_index("ix_member_turn", "rollout_members", ["rollout_id", "state", "stage", "rank"])
