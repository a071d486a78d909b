"""Logs people in with name and password, and makes the first admin with a claim.

The steps of a login, each with the attack that it stops:

1. The attempt is counted, and refused if there were too many (guessing).
2. The password is verified, for an unknown user against a hash that fits nothing (finding out
   names by the time that an answer takes).
3. The refusal is the same for an unknown name and a wrong password (the same by its text).

Whatever is refused is in the log and counted (`login_watch`).
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select

from fleet_server import tenancy
from fleet_server.accounts.login_watch import LoginWatch, Way
from fleet_server.accounts.passwords import Passwords
from fleet_server.accounts.roles import Role
from fleet_server.accounts.service import SESSION, SESSION_LIFETIME, Accounts
from fleet_server.accounts.tables import AdminClaim, User
from fleet_server.accounts.throttle import LoginThrottle
from fleet_server.accounts.users import Users
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.errors import ConflictError, NotAuthenticatedError

CLAIM_LIFETIME = timedelta(hours=1)
_CLAIMING = "_admin-claim"
"""The account name under which attempts at claims are counted; no user can have it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A session that begins."""

    token: str
    expires: datetime
    name: str
    role: Role
    tenant: str


class Logins:
    """The way in for people.

    Attributes:
        throttle, watch: what limits and what notices attempts, for other ways in as well.
    """

    def __init__(  # noqa: PLR0913 (the parts of a login)
        self,
        *,
        database: Database,
        accounts: Accounts,
        users: Users,
        passwords: Passwords,
        throttle: LoginThrottle,
        watch: LoginWatch,
        clock: Clock,
    ) -> None:
        self._database = database
        self._accounts = accounts
        self._users = users
        self._passwords = passwords
        self.throttle = throttle
        self.watch = watch
        self._clock = clock

    async def login(self, *, name: str, password: str, address: str) -> Grant:
        """Begin a session; see the module for the steps.

        Raises:
            ThrottledError: too many attempts.
            NotAuthenticatedError: name or password is wrong.
            UnavailableError: the database failed.
        """
        with (
            tenancy.everything(),
            self.watch.attempt(Way.PASSWORD, account=name, address=address),
        ):
            await self.throttle.count(account=name, address=address)  # (1)
            async with self._database.reading() as session:
                user = await session.get(User, name)
            stored = user.password_hash if user else None
            if not await self._passwords.fits(stored, password) or user is None:  # (2)
                raise NotAuthenticatedError("the name or the password is wrong")  # (3)
            await self.throttle.succeeded(account=name)
            return await self.begin(name=user.name, role=Role(user.role), tenant=user.tenant)

    async def begin(self, *, name: str, role: Role, tenant: str) -> Grant:
        """Begin a session for somebody who has proved who it is.

        Raises:
            RefusedError: there is no such tenant.
            UnavailableError: the database failed.
        """
        with trail.acting(f"user {name}"):
            token, expires = await self._accounts.create(
                name=name, role=role, lifetime=SESSION_LIFETIME, tenant=tenant, kind=SESSION
            )
        return Grant(token, expires, name, role, tenant)

    async def has_users(self) -> bool:
        """Say whether anybody can log in with a password.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            return await session.scalar(select(User.name).limit(1)) is not None

    async def make_claim(self, *, tenant: str = tenancy.DEFAULT) -> str:
        """Make a claim with which somebody becomes an admin of a tenant, once, within an hour.

        Raises:
            RefusedError: there is no such tenant.
            UnavailableError: the database failed.
        """
        claim = secrets.token_urlsafe(24)
        now_ms = unix_ms(self._clock())
        expires_ms = unix_ms(self._clock() + CLAIM_LIFETIME)
        async with self._database.writing() as session:
            await tenancy.check_known(session, tenant)
            await session.execute(delete(AdminClaim).where(AdminClaim.expires_ms <= now_ms))
            session.add(AdminClaim(sha256=_sha256(claim), expires_ms=expires_ms, tenant=tenant))
            await trail.record(session, "admin-claim.create", tenant, tenant=tenant)
        return claim

    async def claim_admin(self, *, claim: str, name: str, password: str, address: str) -> Grant:
        """Become the admin for whom a claim was made; the claim is used up in the same transaction.

        Raises:
            ThrottledError: too many attempts.
            NotAuthenticatedError: the claim is unknown, used or expired.
            RefusedError: name or password is not acceptable.
            ConflictError: the name is taken.
            UnavailableError: the database failed.
        """
        with (
            tenancy.everything(),
            self.watch.attempt(Way.CLAIM, account=name, address=address),
        ):
            await self.throttle.count(account=_CLAIMING, address=address)
            user = await self._users.new(name=name, role=Role.ADMIN, password=password, tenant="")
            async with self._database.writing() as session:
                await take_turn(session, f"user {name}")
                row = await session.get(AdminClaim, _sha256(claim), with_for_update=True)
                if row is None or row.expires_ms <= unix_ms(self._clock()):
                    raise NotAuthenticatedError(
                        "the claim is unknown, used or expired; `skerry server admin-claim` makes "
                        "a new one"
                    )
                if await session.get(User, name) is not None:
                    raise ConflictError(f"the user name {name} is taken; choose another one")
                user.tenant = row.tenant
                session.add(user)
                await session.delete(row)
                with trail.acting(f"user {name}"):
                    after = {"role": user.role}
                    await trail.record(
                        session, "admin-claim.use", name, after=after, tenant=row.tenant
                    )
            await self.throttle.succeeded(account=_CLAIMING)
            return await self.begin(name=name, role=Role.ADMIN, tenant=user.tenant)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
