"""Makes and checks API tokens, those of programs and those of sessions.

A token is 256 random bits; the database holds its SHA-256, so that a copy of the database opens
nothing. No slow password hash is needed: there is nothing to guess.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server import keyset, tenancy
from fleet_server.accounts.roles import PERMISSIONS, Permission, Role, holders
from fleet_server.accounts.tables import ApiToken
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.errors import (
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
)

PREFIX = "skerry_"
"""Lets secret scanners recognize a token that was committed by mistake."""

MAX_LIFETIME = timedelta(days=366)
SESSION_LIFETIME = timedelta(hours=12)
TOKEN, SESSION = "token", "session"
_MAX_TOKEN_LENGTH = 128
_ID_LENGTH = 16
_SHOWN = ("name", "role", "kind", "scope", "expires_ms")


@dataclass(frozen=True, slots=True)
class Account:
    """Who makes a request.

    Attributes:
        kind: ``token`` or ``session``.
        token_id: the beginning of its token's hash, by which it is listed and taken back.
    """

    name: str
    role: Role
    tenant: str
    permissions: frozenset[Permission]
    kind: str
    token_id: str


class Accounts:
    """The tokens of one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        *,
        name: str,
        role: Role,
        lifetime: timedelta,
        tenant: str | None = None,
        kind: str = TOKEN,
    ) -> tuple[str, datetime]:
        """Make a token that may do all of its role; returns it and when it expires.

        Raises:
            RefusedError: as `make`.
            UnavailableError: the database failed.
        """
        text, row = await self.make(
            name=name, role=role, lifetime=lifetime, tenant=tenant, kind=kind
        )
        return text, datetime.fromtimestamp(row.expires_ms / 1000, UTC)

    async def make(  # noqa: PLR0913 (what a token is)
        self,
        *,
        name: str,
        role: Role,
        lifetime: timedelta,
        tenant: str | None = None,
        scope: Sequence[Permission] | None = None,
        kind: str = TOKEN,
    ) -> tuple[str, ApiToken]:
        """Make a token.

        Args:
            name: whose it is, for logs and messages.
            role: the most that it may do.
            lifetime: up to `MAX_LIFETIME`.
            tenant: without it, the tenant of whoever asks.
            scope: permissions to which it is limited.
            kind: `TOKEN` or `SESSION`.

        Returns:
            The token, which is stored nowhere, and its row.

        Raises:
            RefusedError: the lifetime is not positive or longer than `MAX_LIFETIME`, there is no
                such tenant, or the scope holds what the role lacks.
            UnavailableError: the database failed.
        """
        if not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise RefusedError(f"a token may live for 1 second to {MAX_LIFETIME.days} days")
        beyond = set(scope or ()) - PERMISSIONS[role]
        if beyond:
            raise RefusedError(f"the role {role} does not have: {', '.join(sorted(beyond))}")
        owner = tenant or tenancy.current()
        token = PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        row = ApiToken(
            sha256=_sha256(token),
            name=name,
            tenant=owner,
            role=role.value,
            created_ms=unix_ms(now),
            expires_ms=unix_ms(now + lifetime),
            kind=kind,
            scope=None if scope is None else " ".join(sorted(scope)),
        )
        async with self._database.writing() as session:
            await tenancy.check_known(session, owner)
            session.add(row)
            action = "login" if kind == SESSION else "token.create"
            after = trail.fields(row, _SHOWN)
            await trail.record(session, action, token_id(row), after=after, tenant=owner)
        return token, row

    async def page(self, *, after: str | None, limit: int) -> Sequence[ApiToken]:
        """Return tokens in the order of their hashes, the tenant's own.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(select(ApiToken), ApiToken.sha256, after=after, limit=limit)
        async with self._database.reading() as session:
            return (await session.scalars(query)).all()

    async def revoke(self, identifier: str) -> None:
        """Take a token back; it is refused from now on.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        query = select(ApiToken).where(ApiToken.sha256.startswith(identifier, autoescape=True))
        async with self._database.writing() as session:
            row = await session.scalar(query) if len(identifier) == _ID_LENGTH else None
            if row is None:
                raise NotFoundError(f"there is no token {identifier[:80]!r}")
            await session.delete(row)
            await trail.record(
                session, "token.revoke", identifier, before=trail.fields(row, _SHOWN)
            )

    async def forget_expired(self) -> None:
        """Remove tokens that expired long enough ago for nobody to ask why they are refused.

        Raises:
            UnavailableError: the database failed.
        """
        long_ago = unix_ms(self._clock() - timedelta(days=30))
        async with self._database.writing() as session:
            await session.execute(delete(ApiToken).where(ApiToken.expires_ms < long_ago))

    async def authorize(self, token: str | None, permission: Permission) -> Account:
        """Return whose token it is, if it may do what is asked, and enter its tenant.

        Raises:
            NotAuthenticatedError: no token, an unknown or an expired one.
            NotPermittedError: its role or its scope lacks the permission.
            UnavailableError: the database failed.
        """
        if not token:
            raise NotAuthenticatedError(
                "this route needs a token: send `Authorization: Bearer TOKEN`; log in with "
                "POST /api/v1/login, or make one with `skerry server token`"
            )
        row = await self._find(token)
        if row is None:
            raise NotAuthenticatedError("the token is not known to this server")
        if row.expires_ms <= unix_ms(self._clock()):
            expired = datetime.fromtimestamp(row.expires_ms / 1000, UTC).isoformat(
                timespec="minutes"
            )
            raise NotAuthenticatedError(f"the token {row.name!r} expired at {expired}")
        account = _account(row)
        if permission not in account.permissions:
            raise NotPermittedError(
                f"the token {account.name!r} has the role {account.role}"
                f"{f' and the scope {row.scope!r}' if row.scope is not None else ''}; this needs "
                f"the role {holders(permission)}, and {permission} in the scope if there is one"
            )
        tenancy.enter(account.tenant)
        trail.actor.set(f"{account.kind} {account.name}")
        return account

    async def _find(self, token: str) -> ApiToken | None:
        if len(token) > _MAX_TOKEN_LENGTH:
            return None
        digest = _sha256(token)
        with tenancy.everything():
            async with self._database.reading() as session:
                row = await session.scalar(select(ApiToken).where(ApiToken.sha256 == digest))
        return row if row is not None and hmac.compare_digest(row.sha256, digest) else None


async def revoke_sessions(session: AsyncSession, user: str) -> None:
    """Log a user out everywhere, in the transaction of what made it necessary."""
    await session.execute(delete(ApiToken).where(ApiToken.name == user, ApiToken.kind == SESSION))


def _account(row: ApiToken) -> Account:
    role = Role(row.role)
    limit = None if row.scope is None else {Permission(each) for each in row.scope.split()}
    granted = PERMISSIONS[role]
    return Account(
        name=row.name,
        role=role,
        tenant=row.tenant,
        permissions=granted if limit is None else granted & limit,
        kind=row.kind,
        token_id=token_id(row),
    )


def token_id(row: ApiToken) -> str:
    """Return the part of a token's hash by which it is listed and taken back."""
    return row.sha256[:_ID_LENGTH]


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
