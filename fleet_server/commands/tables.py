"""Commands to devices, the logs that came in answer, and the configurations of agents."""

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base, RowId
from fleet_server.tenancy import DeviceOwned, TenantOwned

NOT_OURS = -1


class DeviceCommand(DeviceOwned, Base):
    """One command and what became of it."""

    __tablename__ = "device_commands"
    __table_args__ = (
        UniqueConstraint("device_id", "sequence", name="uq_command_sequence"),
        Index("ix_command_state", "state", "expires_ms"),
        Index("ix_command_device", "device_id", "number"),
    )

    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    sequence: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(Text)
    """JSON, `fleet_protocol.commands.Action`."""
    state: Mapped[str] = mapped_column(String(16))
    """`fleet_server.commands.states.CommandState`."""
    issued_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    requested_by: Mapped[str] = mapped_column(String(200))
    document: Mapped[str] = mapped_column(Text)
    """The signed envelope, JSON."""
    begun_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger)
    """By the device's trusted clock."""
    answered_ms: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[str] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(Text)
    """JSON, `fleet_protocol.command_answers.Result`; of logs, all but the content."""


class CommandLog(DeviceOwned, Base):
    """The excerpt of a device's log that answers a command; kept for a while."""

    __tablename__ = "command_logs"
    __table_args__ = (Index("ix_command_log_stored", "stored_ms"),)

    command_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    stored_ms: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    """JSON lines, compressed with gzip."""


class AgentConfiguration(TenantOwned, Base):
    """Settings that the agents of some devices shall work with."""

    __tablename__ = "agent_configurations"
    __table_args__ = (PrimaryKeyConstraint("tenant", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    """Higher with each change of any configuration of the tenant."""
    selector: Mapped[str] = mapped_column(Text)
    rank: Mapped[int] = mapped_column(Integer)
    """Of several that select a device, the highest counts, then the first by name."""
    settings: Mapped[str] = mapped_column(Text)
    """JSON, `fleet_protocol.remote_settings.RemoteSettings`."""
    description: Mapped[str] = mapped_column(Text)
    changed_ms: Mapped[int] = mapped_column(BigInteger)


class DeviceConfiguration(DeviceOwned, Base):
    """Which configuration a device works with, by its last answer or what it reported since."""

    __tablename__ = "device_configurations"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    """The version in effect, 0 for none, `NOT_OURS` for one that no answer was about."""
    refused_version: Mapped[int] = mapped_column(BigInteger)
    """The newest version that it did not keep, 0 for none."""
    problem: Mapped[str] = mapped_column(Text)
    changed_ms: Mapped[int] = mapped_column(BigInteger)
