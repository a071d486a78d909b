"""Stored alerts, rules and silences, webhooks, and notices that are still to be delivered."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base, RowId
from fleet_server.tenancy import DeviceOwned, TenantOwned

_OPEN = text("state <> 'resolved'")


class AlertRule(TenantOwned, Base):
    """A rule of a tenant; `fleet_server.alerts.rules.Rule`."""

    __tablename__ = "alert_rules"
    __table_args__ = (PrimaryKeyConstraint("tenant", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    signal: Mapped[str] = mapped_column(String(32))
    fires_at: Mapped[float] = mapped_column(Float(53))
    resolves_at: Mapped[float] = mapped_column(Float(53))
    for_s: Mapped[float] = mapped_column(Float(53))
    resolve_for_s: Mapped[float] = mapped_column(Float(53))
    window_s: Mapped[float] = mapped_column(Float(53))
    min_calls: Mapped[int] = mapped_column(Integer)
    selector: Mapped[str] = mapped_column(Text)
    family: Mapped[str | None] = mapped_column(String(64))
    severity: Mapped[str] = mapped_column(String(16))
    enabled: Mapped[bool] = mapped_column(Boolean)
    description: Mapped[str] = mapped_column(Text)


class Alert(DeviceOwned, Base):
    """One alert from its first bad value to its end; at most one for a subject is open."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "ix_alert_open",
            "device_id",
            "rule",
            "family",
            unique=True,
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
        Index("ix_alert_state", "state", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    rule: Mapped[str] = mapped_column(String(64))
    family: Mapped[str] = mapped_column(String(64))
    """"" for an alert of the device itself."""
    severity: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    """A phase of the engine, or ``resolved``."""
    since_ms: Mapped[int] = mapped_column(BigInteger)
    good_since_ms: Mapped[int | None] = mapped_column(BigInteger)
    changed_ms: Mapped[int] = mapped_column(BigInteger)
    began_ms: Mapped[int] = mapped_column(BigInteger)
    fired_ms: Mapped[int | None] = mapped_column(BigInteger)
    resolved_ms: Mapped[int | None] = mapped_column(BigInteger)
    notified: Mapped[bool] = mapped_column(Boolean)
    """Whether a notice that it fires was handed to the webhooks."""
    detail: Mapped[str] = mapped_column(Text)
    """A sentence, of the time when it fired."""


class AlertSilence(TenantOwned, Base):
    """A time in which alerts of some devices are not notified."""

    __tablename__ = "alert_silences"
    __table_args__ = (Index("ix_silence_end", "ends_ms"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    selector: Mapped[str] = mapped_column(Text)
    rule: Mapped[str | None] = mapped_column(String(64))
    starts_ms: Mapped[int] = mapped_column(BigInteger)
    ends_ms: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(200))
    created_ms: Mapped[int] = mapped_column(BigInteger)


class AlertWebhook(TenantOwned, Base):
    """Where notices go. Its secret is stored, because each notice is signed with it."""

    __tablename__ = "alert_webhooks"
    __table_args__ = (PrimaryKeyConstraint("tenant", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(100))
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_until_ms: Mapped[int | None] = mapped_column(BigInteger)
    min_severity: Mapped[str] = mapped_column(String(16))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    disabled_ms: Mapped[int | None] = mapped_column(BigInteger)
    """It answered that it is gone; nothing is sent since then."""


class AlertDelivery(TenantOwned, Base):
    """A notice for one webhook: written with the change that it tells of, kept for a while."""

    __tablename__ = "alert_deliveries"
    __table_args__ = (
        Index("ix_delivery_due", "due_ms", "id"),
        Index("ix_delivery_webhook", "tenant", "webhook", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    webhook: Mapped[str] = mapped_column(String(64))
    event_id: Mapped[str] = mapped_column(String(64))
    """The same in every attempt, by which the receiver knows a repetition."""
    kind: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    due_ms: Mapped[int | None] = mapped_column(BigInteger)
    """The next attempt, or until when one is under way; null when it is over."""
    attempts: Mapped[int] = mapped_column(Integer)
    delivered_ms: Mapped[int | None] = mapped_column(BigInteger)
    problem: Mapped[str] = mapped_column(Text)
    """Of the last attempt; "" if there was none."""


class AlertWatch(Base):
    """One row: when the alerts of all tenants were looked at last."""

    __tablename__ = "alert_watch"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    looked_ms: Mapped[int] = mapped_column(BigInteger)
    watched_since_ms: Mapped[int] = mapped_column(BigInteger)
    """Since when there was no gap in looking."""
