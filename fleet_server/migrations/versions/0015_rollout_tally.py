"""How many members of a rollout stand where, in the row of the rollout.

Until now each look counted them, for which an index held a column that nothing else needs.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TURN = ["rollout_id", "state", "retries", "stage", "rank"]


def upgrade() -> None:
    """Make the change."""
    op.add_column("rollouts", sa.Column("tally", sa.Text(), nullable=False, server_default="[]"))
    count_members()
    op.drop_index("ix_member_turn", "rollout_members")
    op.create_index("ix_member_turn", "rollout_members", _TURN)


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_member_turn", "rollout_members")
    op.create_index("ix_member_turn", "rollout_members", _TURN, postgresql_include=["excused"])
    op.drop_column("rollouts", "tally")


def count_members() -> None:
    """Count the members of each rollout, as it was done for each look."""
    members = sa.table(
        "rollout_members",
        sa.column("rollout_id", sa.BigInteger()),
        sa.column("stage", sa.Integer()),
        sa.column("state", sa.String()),
        sa.column("excused", sa.Boolean()),
    )
    place = (members.c.rollout_id, members.c.stage, members.c.state, members.c.excused)
    query = sa.select(*place, sa.func.count()).group_by(*place).order_by(*place)
    tallies: dict[int, list[list[object]]] = {}
    for rollout_id, *counted in op.get_bind().execute(query):
        tallies.setdefault(rollout_id, []).append(counted)
    rollouts = sa.table("rollouts", sa.column("id", sa.BigInteger()), sa.column("tally", sa.Text()))
    for rollout_id, tally in tallies.items():
        stored = sa.update(rollouts).where(rollouts.c.id == rollout_id)
        op.execute(stored.values(tally=json.dumps(tally)))
