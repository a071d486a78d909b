"""Makes and checks API tokens.

A token is 256 random bits; the database holds its SHA-256, so that a copy of the database opens
nothing. No slow password hash is needed: there is nothing to guess.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from fleet_server import tenancy
from fleet_server.accounts.roles import PERMISSIONS, Permission, Role, holders
from fleet_server.accounts.tables import ApiToken
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.errors import (
    ConflictError,
    NotAuthenticatedError,
    NotPermittedError,
    RefusedError,
)

PREFIX = "skerry_"
"""Lets secret scanners recognize a token that was committed by mistake."""

MAX_LIFETIME = timedelta(days=366)
_MAX_TOKEN_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Account:
    """Who makes a request."""

    name: str
    role: Role
    tenant: str


class Accounts:
    """The tokens of one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self, *, name: str, role: Role, lifetime: timedelta, tenant: str = tenancy.DEFAULT
    ) -> tuple[str, datetime]:
        """Make a token.

        Returns:
            The token, which is stored nowhere, and when it expires.

        Raises:
            RefusedError: the lifetime is not positive or longer than `MAX_LIFETIME`, or there is no
                such tenant.
            UnavailableError: the database failed.
        """
        if not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise RefusedError(f"a token may live for 1 second to {MAX_LIFETIME.days} days")
        token = PREFIX + secrets.token_urlsafe(32)
        now = self._clock()
        expires = now + lifetime
        row = ApiToken(
            sha256=_sha256(token),
            name=name,
            tenant=tenant,
            role=role.value,
            created_ms=unix_ms(now),
            expires_ms=unix_ms(expires),
        )
        try:
            async with self._database.writing() as session:
                await tenancy.check_known(session, tenant)
                session.add(row)
        except IntegrityError as error:
            raise ConflictError("the random token exists already; try again") from error
        return token, expires

    async def authorize(self, token: str | None, permission: Permission) -> Account:
        """Return whose token it is, if it may do what is asked, and enter its tenant.

        Raises:
            NotAuthenticatedError: no token, an unknown or an expired one.
            NotPermittedError: its role lacks the permission.
            UnavailableError: the database failed.
        """
        if not token:
            raise NotAuthenticatedError(
                "this route needs a token: send `Authorization: Bearer TOKEN`; "
                "`skerry server token` makes one"
            )
        row = await self._find(token)
        if row is None:
            raise NotAuthenticatedError("the token is not known to this server")
        if row.expires_ms <= unix_ms(self._clock()):
            expired = datetime.fromtimestamp(row.expires_ms / 1000, UTC).isoformat(
                timespec="minutes"
            )
            raise NotAuthenticatedError(f"the token {row.name!r} expired at {expired}")
        account = Account(row.name, Role(row.role), row.tenant)
        if permission not in PERMISSIONS[account.role]:
            raise NotPermittedError(
                f"the token {account.name!r} has the role {account.role}; this needs the role "
                f"{holders(permission)}"
            )
        tenancy.enter(account.tenant)
        return account

    async def _find(self, token: str) -> ApiToken | None:
        if len(token) > _MAX_TOKEN_LENGTH:
            return None
        digest = _sha256(token)
        with tenancy.everything():
            async with self._database.reading() as session:
                row = await session.scalar(select(ApiToken).where(ApiToken.sha256 == digest))
        return row if row is not None and hmac.compare_digest(row.sha256, digest) else None


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
