"""Enrolled devices and the claim tokens that enrolled them."""

from sqlalchemy import BigInteger, Boolean, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base


class Device(Base):
    """One device: who it is, and the last that was heard of it."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    public_key_pem: Mapped[str] = mapped_column(Text)
    public_key_sha256: Mapped[str] = mapped_column(String(64))
    certificate_pem: Mapped[str] = mapped_column(Text)
    certificate_serial: Mapped[str] = mapped_column(String(40))
    certificate_expires_ms: Mapped[int] = mapped_column(BigInteger)
    enrolled_ms: Mapped[int] = mapped_column(BigInteger)
    decommissioned_ms: Mapped[int | None] = mapped_column(BigInteger)
    online: Mapped[bool] = mapped_column(Boolean)
    last_seen_ms: Mapped[int | None] = mapped_column(BigInteger)
    reported: Mapped[str | None] = mapped_column(Text)
    """The last ``Reported`` message, as JSON."""


class BurntClaim(Base):
    """A claim token that was used: by which key, for which device."""

    __tablename__ = "burnt_claims"

    jti: Mapped[str] = mapped_column(String(64), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    public_key_sha256: Mapped[str] = mapped_column(String(64))
    burnt_ms: Mapped[int] = mapped_column(BigInteger)
