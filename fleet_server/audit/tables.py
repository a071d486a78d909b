"""The entries of the audit trail."""

from sqlalchemy import BigInteger, Index, PrimaryKeyConstraint, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.tenancy import Base, TenantOwned


class AuditEntry(TenantOwned, Base):
    """One change; see `fleet_server.audit.chain` for what the hashes cover."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        PrimaryKeyConstraint("tenant", "number"),
        Index("ix_audit_actor", "tenant", "actor", "number"),
        Index("ix_audit_action", "tenant", "action", "number"),
        Index("ix_audit_time", "tenant", "at_ms", "number"),
    )

    number: Mapped[int] = mapped_column(BigInteger)
    """Counts the entries of a tenant from 1, without gaps."""
    at_ms: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(200))
    subject: Mapped[str] = mapped_column(Text)
    before: Mapped[str | None] = mapped_column(Text)
    """JSON; null if there was nothing."""
    after: Mapped[str | None] = mapped_column(Text)
    """JSON; null if nothing is left."""
    request_id: Mapped[str | None] = mapped_column(String(64))
    previous_sha256: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
