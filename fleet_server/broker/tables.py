"""What brokers are told, kept for all server processes, and who has asked for it."""

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.audit.changes import UNTRACKED
from fleet_server.database import Base


class BrokerAuthority(Base):
    """The public part of a device CA: its certificate and its newest revocation list."""

    __tablename__ = "broker_authorities"
    __table_args__ = {"info": {UNTRACKED: True}}  # noqa: RUF012 (SQLAlchemy's form)

    key_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    certificate_pem: Mapped[str] = mapped_column(Text)
    link_pem: Mapped[str] = mapped_column(Text)
    list_pem: Mapped[str] = mapped_column(Text)
    number: Mapped[int] = mapped_column(BigInteger)
    """Of the list; it never decreases."""
    dated_ms: Mapped[int] = mapped_column(BigInteger)
    """What the list says of its own age."""
    signed_ms: Mapped[int] = mapped_column(BigInteger)
    made_ms: Mapped[int] = mapped_column(BigInteger)
    retired_ms: Mapped[int | None] = mapped_column(BigInteger)
    """It is trusted no more, whoever still has its files."""


class BrokerFollower(Base):
    """Who keeps a broker on another machine told, by the name of its token."""

    __tablename__ = "broker_followers"
    __table_args__ = {"info": {UNTRACKED: True}}  # noqa: RUF012 (SQLAlchemy's form)

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    fetched_ms: Mapped[int] = mapped_column(BigInteger)
    behind_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Since when its broker lacks what it was told; null if it has all of it."""
