"""An index of the releases; the repository on disk is the truth and rebuilds it."""

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.database import Base
from fleet_server.tenancy import FamilyOwned


class Release(FamilyOwned, Base):
    """One release, as its signed metadata and manifest describe it."""

    __tablename__ = "releases"

    family: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    manifest_path: Mapped[str] = mapped_column(String(255))
    manifest_length: Mapped[int] = mapped_column(BigInteger)
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    security_counter: Mapped[int] = mapped_column(BigInteger)
    description: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    published_ms: Mapped[int] = mapped_column(BigInteger)
