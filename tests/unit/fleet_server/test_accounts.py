"""API tokens and the table of roles."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from fleet_server.accounts.roles import PERMISSIONS, Permission, Role
from fleet_server.accounts.service import Accounts
from fleet_server.accounts.tables import ApiToken
from fleet_server.database import Database
from fleet_server.errors import NotAuthenticatedError, NotPermittedError, RefusedError
from tests.unit.fleet_server.conftest import FakeClock

READ, PUBLISH, ASSIGN, COMMAND, FOLLOW, DECOMMISSION, ADMINISTER = (
    Permission.READ,
    Permission.PUBLISH,
    Permission.ASSIGN,
    Permission.COMMAND,
    Permission.FOLLOW,
    Permission.DECOMMISSION,
    Permission.ADMINISTER,
)


@pytest.fixture
def accounts(database: Database, clock: FakeClock) -> Accounts:
    return Accounts(database=database, clock=clock)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        (Role.VIEWER, {READ}),
        (Role.PUBLISHER, {READ, PUBLISH}),
        (Role.OPERATOR, {READ, ASSIGN, COMMAND}),
        (Role.BROKER, {FOLLOW}),
        (Role.ADMIN, set(Permission)),
    ],
)
async def test_roles(accounts: Accounts, role: Role, allowed: set[Permission]) -> None:
    assert set(PERMISSIONS) == set(Role)
    token, _ = await accounts.create(name="x", role=role, lifetime=timedelta(days=1))
    for permission in Permission:
        if permission in allowed:
            assert (await accounts.authorize(token, permission)).role is role
        else:
            with pytest.raises(NotPermittedError, match=f"has the role {role}"):
                await accounts.authorize(token, permission)


async def test_only_the_hash_is_stored(accounts: Accounts, database: Database) -> None:
    token, _ = await accounts.create(name="x", role=Role.VIEWER, lifetime=timedelta(days=1))
    async with database.reading() as session:
        rows = (await session.scalars(select(ApiToken))).all()
    assert len(rows) == 1
    assert token not in repr(vars(rows[0]))


async def test_expiry(accounts: Accounts, clock: FakeClock) -> None:
    token, _ = await accounts.create(name="mine", role=Role.VIEWER, lifetime=timedelta(hours=1))
    clock.advance(minutes=59)
    await accounts.authorize(token, READ)
    clock.advance(minutes=1)
    with pytest.raises(NotAuthenticatedError, match="'mine' expired at"):
        await accounts.authorize(token, READ)


@pytest.mark.parametrize("token", [None, "", "skerry_", "skerry_" + "A" * 43, "x" * 5000, "ä\x00"])
async def test_unknown_tokens(accounts: Accounts, token: str | None) -> None:
    with pytest.raises(NotAuthenticatedError):
        await accounts.authorize(token, READ)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1), timedelta(days=367)])
async def test_lifetimes(accounts: Accounts, lifetime: timedelta) -> None:
    with pytest.raises(RefusedError):
        await accounts.create(name="x", role=Role.VIEWER, lifetime=lifetime)
