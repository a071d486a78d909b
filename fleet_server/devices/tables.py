"""Enrolled devices, the claim tokens that enrolled them, and what selectors are answered from."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base, RowId
from fleet_server.tenancy import DeviceOwned, TenantOwned


def _few(name: str, where: str, *, sqlite: str | None = None) -> Index:
    """Index those devices, in the order of a list, of which few are so.

    Args:
        name: of the index.
        where: which devices.
        sqlite: the same in the words that SQLite compares with those of a query.
    """
    condition, other = text(where), text(sqlite or where)
    return Index(name, "tenant", "id", postgresql_where=condition, sqlite_where=other)


class Device(TenantOwned, Base):
    """One device: who it is, and the last that was heard of it."""

    __tablename__ = "devices"
    __table_args__ = (
        Index(
            "ix_device_heard",
            "last_seen_ms",
            "id",
            postgresql_where=text("silent IS false"),
            sqlite_where=text("silent IS 0"),
        ),
        _few("ix_device_silent", "silent IS true", sqlite="silent IS 1"),
        Index("ix_device_expires", "tenant", "certificate_expires_ms"),
        _few("ix_device_gone", "decommissioned_ms IS NOT NULL"),
        _few("ix_device_revoked", "revoked_ms IS NOT NULL"),
        _few("ix_device_new", "last_seen_ms IS NULL"),
        _few("ix_device_down", "runtime_up IS false", sqlite="runtime_up IS 0"),
        Index("ix_device_tenant", "tenant", "id"),
    )

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    claim: Mapped[str] = mapped_column(Text, server_default="")
    """The claim token that enrolled it: the signer of assignments asks for it. It is used up."""
    public_key_pem: Mapped[str] = mapped_column(Text)
    public_key_sha256: Mapped[str] = mapped_column(String(64))
    certificate_pem: Mapped[str] = mapped_column(Text)
    certificate_serial: Mapped[str] = mapped_column(String(40))
    certificate_expires_ms: Mapped[int] = mapped_column(BigInteger)
    enrolled_ms: Mapped[int] = mapped_column(BigInteger)
    decommissioned_ms: Mapped[int | None] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Its key is refused since then, until a claim that replaces it brings a new one."""
    online: Mapped[bool] = mapped_column(Boolean)
    last_seen_ms: Mapped[int | None] = mapped_column(BigInteger)
    silent: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether it was found silent since it was heard last (`silence.py`); it follows late."""
    reported: Mapped[str | None] = mapped_column(Text)
    """The last ``Reported`` message, as JSON."""
    runtime_up: Mapped[bool | None] = mapped_column(Boolean)
    """As last reported."""
    fleet_ca: Mapped[str | None] = mapped_column(String(40))
    """Key id of the newest fleet CA that the device says to trust; None before it said so."""
    labels: Mapped[str] = mapped_column(Text, default="{}", server_default="{}")
    """JSON, `fleet_server.devices.attributes.Labels`."""
    facts: Mapped[str] = mapped_column(Text, default="{}", server_default="{}")
    """JSON, `fleet_server.devices.attributes.Facts`."""


class DeviceTerm(TenantOwned, Base):
    """One value of one attribute of a device: a row for each pair in its labels and facts.

    The device's id is an attribute as well, so that lists and searches need not touch `Device`,
    whose rows change whenever a device is heard.

    The second index answers ``name=value`` in the order of device ids, however many devices there
    are and however the value correlates with the ids; the third finds numbers. PostgreSQL has a
    fourth, ``ix_term_search``, over parts of ids, if its extension ``pg_trgm`` could be made.
    """

    __tablename__ = "device_terms"
    __table_args__ = (
        Index("ix_term_value", "tenant", "name", "value", "device_id", unique=True),
        Index(
            "ix_term_number",
            "tenant",
            "name",
            "number",
            "device_id",
            postgresql_where=text("number IS NOT NULL"),
            sqlite_where=text("number IS NOT NULL"),
        ),
    )

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    value: Mapped[str] = mapped_column(String(63), primary_key=True)
    number: Mapped[float | None] = mapped_column(Float(53))
    """The value, if it is a number."""


class DeviceGroup(TenantOwned, Base):
    """A saved selector; which devices it means is asked each time."""

    __tablename__ = "device_groups"
    __table_args__ = (PrimaryKeyConstraint("tenant", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    selector: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    changed_ms: Mapped[int] = mapped_column(BigInteger)


class IssuedCertificate(DeviceOwned, Base):
    """Every certificate that was issued, until it expires."""

    __tablename__ = "issued_certificates"
    __table_args__ = (Index("ix_certificate_expires", "expires_ms"),)

    serial: Mapped[str] = mapped_column(String(40), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), index=True)
    public_key_sha256: Mapped[str] = mapped_column(String(64))
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    issuer: Mapped[str | None] = mapped_column(String(40))
    """`DeviceCa.key_id` of who signed it; unknown of those of the first releases."""


class PendingCertificate(DeviceOwned, Base):
    """The renewed certificate of a device that has not yet said that it holds it."""

    __tablename__ = "pending_certificates"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    public_key_pem: Mapped[str] = mapped_column(Text)
    public_key_sha256: Mapped[str] = mapped_column(String(64))
    certificate_pem: Mapped[str] = mapped_column(Text)
    certificate_serial: Mapped[str] = mapped_column(String(40))
    certificate_expires_ms: Mapped[int] = mapped_column(BigInteger)
    issued_ms: Mapped[int] = mapped_column(BigInteger)


class ChangeCounter(Base):
    """One row: the number of the last transaction that changed what devices are answered."""

    __tablename__ = "device_change_counter"

    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger)


class DeviceChange(Base):
    """Which devices such a transaction was about."""

    __tablename__ = "device_changes"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    device_id: Mapped[str] = mapped_column(String(63), primary_key=True)


class BurntClaim(DeviceOwned, Base):
    """A claim token that was used: by which key, for which device."""

    __tablename__ = "burnt_claims"

    jti: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    public_key_sha256: Mapped[str] = mapped_column(String(64))
    burnt_ms: Mapped[int] = mapped_column(BigInteger)
