"""Stored rollouts: their state, their members, their history, and what is still to be signed."""

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base, RowId
from fleet_server.tenancy import DeviceOwned, TenantOwned

_HEALTHY = text("state = 'healthy'")


class Rollout(TenantOwned, Base):
    """One rollout. ``revision`` rises with each change; who writes names the one that it read."""

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("ix_rollout_attention", "attention", "id"),
        Index("ix_rollout_family", "family", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    family: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    group_name: Mapped[str | None] = mapped_column(String(64))
    selector: Mapped[str] = mapped_column(Text)
    """Which devices, beside the group."""
    plan: Mapped[str] = mapped_column(Text)
    """JSON, `fleet_server.rollouts.plan.Plan`."""
    revision: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16))
    stage: Mapped[int] = mapped_column(Integer)
    looks: Mapped[int] = mapped_column(Integer)
    compared_devices: Mapped[int] = mapped_column(Integer)
    compared_stage: Mapped[int] = mapped_column(Integer)
    tally: Mapped[str] = mapped_column(Text, server_default="[]")
    """JSON, `fleet_server.rollouts.tally.Tally`: how many members stand where, at this revision."""
    attention: Mapped[bool] = mapped_column(Boolean)
    """Whether there may be something to decide or to observe."""
    superseded_by: Mapped[int | None] = mapped_column(BigInteger)
    """The newer rollout that devices which join the group follow."""
    reason: Mapped[str] = mapped_column(Text)
    """Of the last decision."""
    created_by: Mapped[str] = mapped_column(String(200))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    changed_ms: Mapped[int] = mapped_column(BigInteger)


class RolloutMember(DeviceOwned, Base):
    """One device of a rollout; see `fleet_server.rollouts.members.Member`."""

    __tablename__ = "rollout_members"
    __table_args__ = (
        Index("ix_member_turn", "rollout_id", "state", "retries", "stage", "rank"),
        Index("ix_member_revisited", "rollout_id", "state", "rank"),
        Index(
            "ix_member_newest",
            "rollout_id",
            "stage",
            "ordered_ms",
            "rank",
            postgresql_where=_HEALTHY,
            sqlite_where=_HEALTHY,
        ),
        Index("ix_member_stage", "rollout_id", "stage", "settled_ms"),
        Index("ix_member_device", "device_id", "rollout_id"),
    )

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stage: Mapped[int] = mapped_column(Integer)
    rank: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    excused: Mapped[bool] = mapped_column(Boolean)
    retries: Mapped[int] = mapped_column(Integer)
    previous_version: Mapped[str | None] = mapped_column(String(64))
    """What it was assigned before; "" for nothing, null until that is known."""
    order_number: Mapped[int | None] = mapped_column(BigInteger)
    """The decision that told it last what to do."""
    ordered_ms: Mapped[int | None] = mapped_column(BigInteger)
    assignment_version: Mapped[int | None] = mapped_column(BigInteger)
    """Of the assignment that carries that order; null until it is signed."""
    settled_ms: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[str] = mapped_column(Text)


class RolloutDecision(TenantOwned, Base):
    """One row of the history, which is only ever appended to; ``number`` has no gaps."""

    __tablename__ = "rollout_decisions"

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text)
    inputs: Mapped[str] = mapped_column(Text)
    """JSON object: what the decision rests on."""
    devices: Mapped[str] = mapped_column(Text)
    """JSON list of ids."""


class RolloutOrder(DeviceOwned, Base):
    """An assignment that was decided and not signed yet; it goes when the assignment is stored."""

    __tablename__ = "rollout_orders"
    __table_args__ = (Index("ix_order_device", "device_id", "id"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    """Of the decision."""
    state: Mapped[str] = mapped_column(String(16))
    """The member state that it puts into effect."""
