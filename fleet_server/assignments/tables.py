"""The newest signed assignment of each device."""

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base
from fleet_server.tenancy import DeviceOwned


class Assignment(DeviceOwned, Base):
    """What a device shall run, and the signed document that tells it so."""

    __tablename__ = "assignments"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    root_version: Mapped[int] = mapped_column(BigInteger, server_default="1")
    """Of the director's root under which it was signed."""
    signed_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    entries: Mapped[str] = mapped_column(Text)
    """JSON list of `fleet_server.assignments.entries.Entry`."""
    document: Mapped[bytes] = mapped_column(LargeBinary)
    """TUF targets metadata, signed."""
