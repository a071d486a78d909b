"""Local users of a tenant, for its admins."""

import re
from collections.abc import Sequence

from sqlalchemy import select

from fleet_server import keyset, tenancy
from fleet_server.accounts.passwords import Passwords
from fleet_server.accounts.roles import Role
from fleet_server.accounts.service import revoke_sessions
from fleet_server.accounts.tables import User
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.errors import ConflictError, NotFoundError, RefusedError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_SHOWN = ("name", "role")


class Users:
    """The users of one database."""

    def __init__(self, *, database: Database, passwords: Passwords, clock: Clock) -> None:
        self._database = database
        self._passwords = passwords
        self._clock = clock

    async def page(self, *, after: str | None, limit: int) -> Sequence[User]:
        """Return users in the order of their names.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(select(User), User.name, after=after, limit=limit)
        async with self._database.reading() as session:
            return (await session.scalars(query)).all()

    async def get(self, name: str) -> User:
        """Return a user.

        Raises:
            NotFoundError: there is no such user.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            row = await session.get(User, name)
        if row is None:
            raise _no_user(name)
        return row

    async def create(self, *, name: str, role: Role, password: str) -> User:
        """Make a user.

        Raises:
            RefusedError: the name is malformed, or the password too short.
            ConflictError: the name is taken.
            UnavailableError: the database failed.
        """
        row = await self.new(name=name, role=role, password=password, tenant=tenancy.current())
        async with self._database.writing() as session:
            with tenancy.everything():  # names are unique across tenants
                await take_turn(session, f"user {name}")
                if await session.get(User, name) is not None:
                    raise ConflictError(f"the user name {name} is taken; choose another one")
            session.add(row)
            await trail.record(session, "user.create", name, after=trail.fields(row, _SHOWN))
        return row

    async def new(self, *, name: str, role: Role, password: str, tenant: str) -> User:
        """Return the row of a user who is not stored yet.

        Raises:
            RefusedError: the name is malformed, or the password too short.
        """
        if not _NAME.fullmatch(name):
            raise RefusedError(
                f"{name[:100]!r} cannot name a user: use 1 to 100 letters, digits and . _ @ -"
            )
        return User(
            name=name,
            tenant=tenant,
            role=role.value,
            password_hash=await self._passwords.hashed(password),
            created_ms=unix_ms(self._clock()),
        )

    async def change(
        self, name: str, *, role: Role | None = None, password: str | None = None
    ) -> User:
        """Give a user another role or password; it ends the user's sessions.

        Raises:
            NotFoundError: there is no such user.
            RefusedError: the password is too short, or nothing is to be changed.
            UnavailableError: the database failed.
        """
        if role is None and password is None:
            raise RefusedError("say what to change: `role`, `password` or both")
        digest = await self._passwords.hashed(password) if password is not None else None
        async with self._database.writing() as session:
            row = await session.get(User, name, with_for_update=True)
            if row is None:
                raise _no_user(name)
            before = trail.fields(row, _SHOWN)
            row.role = role.value if role else row.role
            row.password_hash = digest or row.password_hash
            await revoke_sessions(session, name)
            after = trail.fields(row, _SHOWN) | {"password_changed": digest is not None}
            await trail.record(session, "user.change", name, before=before, after=after)
        return row

    async def delete(self, name: str) -> None:
        """Remove a user; it ends the user's sessions.

        Raises:
            NotFoundError: there is no such user.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            row = await session.get(User, name, with_for_update=True)
            if row is None:
                raise _no_user(name)
            await session.delete(row)
            await revoke_sessions(session, name)
            await trail.record(session, "user.delete", name, before=trail.fields(row, _SHOWN))


def _no_user(name: str) -> NotFoundError:
    return NotFoundError(f"there is no user {name[:80]!r}")
