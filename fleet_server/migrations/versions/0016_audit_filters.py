"""What the audit trail is searched by: who, what, when."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_INDEXES = {"ix_audit_actor": "actor", "ix_audit_action": "action", "ix_audit_time": "at_ms"}


def upgrade() -> None:
    """Make the change."""
    for name, column in _INDEXES.items():
        op.create_index(name, "audit_entries", ["tenant", column, "number"])


def downgrade() -> None:
    """Take it back."""
    for name in _INDEXES:
        op.drop_index(name, "audit_entries")
