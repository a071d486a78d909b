"""Stored windows and events, how far each stream has come, and when the fleet was heard."""

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base, RowId
from fleet_server.tenancy import DeviceOwned


class Stream(DeviceOwned, Base):
    """One stream of a device's outbox: what of it was received."""

    __tablename__ = "streams"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    stream: Mapped[str] = mapped_column(String(40), primary_key=True)
    acked: Mapped[int] = mapped_column(BigInteger)
    """Everything up to and with this number is committed."""
    ahead: Mapped[str] = mapped_column(Text)
    """JSON list of [first, last] received beyond a gap."""
    heard_ms: Mapped[int] = mapped_column(BigInteger)
    stuck_since_ms: Mapped[int | None] = mapped_column(BigInteger)


class Window(DeviceOwned, Base):
    """One telemetry window."""

    __tablename__ = "telemetry_windows"
    __table_args__ = (
        UniqueConstraint("device_id", "stream", "sequence", name="uq_window"),
        Index("ix_window_device", "device_id", "id"),
        Index("ix_window_start", "start_ms"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stream: Mapped[str] = mapped_column(String(40))
    sequence: Mapped[int] = mapped_column(BigInteger)
    covers_from: Mapped[int] = mapped_column(BigInteger)
    start_ms: Mapped[int] = mapped_column(BigInteger)
    end_ms: Mapped[int] = mapped_column(BigInteger)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    system: Mapped[str] = mapped_column(Text)
    """``SystemWindow`` as JSON."""


class ModelCounts(DeviceOwned, Base):
    """What one release did in one window."""

    __tablename__ = "telemetry_models"
    __table_args__ = (
        Index("ix_model_family", "family", "start_ms"),
        Index("ix_model_device", "device_id", "start_ms"),
        Index("ix_model_window", "window_id"),
        Index("ix_model_start", "start_ms"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    window_id: Mapped[int] = mapped_column(ForeignKey("telemetry_windows.id"))
    device_id: Mapped[str] = mapped_column(String(63))
    start_ms: Mapped[int] = mapped_column(BigInteger)
    family: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    variant: Mapped[str] = mapped_column(String(200))
    requests: Mapped[int] = mapped_column(BigInteger)
    counts: Mapped[str] = mapped_column(Text)
    """``ModelWindow`` as JSON: errors, latency histogram, classes."""


class FleetHeard(Base):
    """One row: when a server process heard the fleet last."""

    __tablename__ = "fleet_heard"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    heard_ms: Mapped[int] = mapped_column(BigInteger)


class DeafSpan(Base):
    """A time in which no server process did, and devices were not back yet."""

    __tablename__ = "deaf_spans"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    start_ms: Mapped[int] = mapped_column(BigInteger)
    end_ms: Mapped[int] = mapped_column(BigInteger)


class DeviceEvent(DeviceOwned, Base):
    """Something that happened on a device, once."""

    __tablename__ = "device_events"
    __table_args__ = (
        UniqueConstraint("device_id", "stream", "sequence", name="uq_event"),
        Index("ix_event_device", "device_id", "id"),
        Index("ix_event_kind", "kind", "received_ms"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stream: Mapped[str] = mapped_column(String(40))
    sequence: Mapped[int] = mapped_column(BigInteger)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    received_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(40))
    detail: Mapped[str] = mapped_column(Text)
    family: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str | None] = mapped_column(String(20))
