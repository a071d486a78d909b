"""Makes an API token directly in the database, whether the server runs or not."""

from datetime import datetime, timedelta
from pathlib import Path

from fleet_server.accounts.roles import Role
from fleet_server.accounts.service import Accounts
from fleet_server.clock import utc_now
from fleet_server.local_database import opened
from fleet_server.tenancy import DEFAULT


async def issue(
    root: Path, *, name: str, role: Role, lifetime: timedelta, tenant: str = DEFAULT
) -> tuple[str, datetime]:
    """Make a token in the database of a data directory.

    Returns:
        The token and when it expires.

    Raises:
        SetupError: the directory is no data directory, or its database cannot be used.
        RefusedError: the lifetime is not accepted.
        UnavailableError: the database failed.
    """
    async with opened(root) as database:
        accounts = Accounts(database=database, clock=utc_now)
        return await accounts.create(name=name, role=role, lifetime=lifetime, tenant=tenant)
