"""Stored tokens, users, and what protects their login."""

from sqlalchemy import BigInteger, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.audit.changes import UNTRACKED
from fleet_server.database import Base
from fleet_server.tenancy import TenantOwned


class ApiToken(TenantOwned, Base):
    """A token by its hash; the token itself is shown once, when it is made."""

    __tablename__ = "api_tokens"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    expires_ms: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(16), default="token", server_default="token")
    """``token`` for a program, ``session`` for a user who logged in."""
    scope: Mapped[str | None] = mapped_column(Text)
    """Permissions, separated by spaces, to which it is limited; null: all that its role has."""


class User(TenantOwned, Base):
    """A local user. Names are unique across tenants: the name says which tenant is meant."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(200))
    """Argon2id, with its parameters."""
    created_ms: Mapped[int] = mapped_column(BigInteger)


class AdminClaim(TenantOwned, Base):
    """A secret with which the first admin of a tenant is made, by its hash."""

    __tablename__ = "admin_claims"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_ms: Mapped[int] = mapped_column(BigInteger)


class LoginAttempts(Base):
    """How often somebody tried since when: for one account name or one network address."""

    __tablename__ = "login_attempts"
    __table_args__ = {"info": {UNTRACKED: True}}  # noqa: RUF012 (SQLAlchemy's form)

    subject: Mapped[str] = mapped_column(String(120), primary_key=True)
    since_ms: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(Integer)


class PendingLogin(Base):
    """A login that is at the OpenID Connect provider, by the hash of its state."""

    __tablename__ = "pending_logins"
    __table_args__ = {"info": {UNTRACKED: True}}  # noqa: RUF012 (SQLAlchemy's way)

    state_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    nonce: Mapped[str] = mapped_column(String(64))
    code_verifier: Mapped[str] = mapped_column(String(128))
    expires_ms: Mapped[int] = mapped_column(BigInteger)
