"""Commands of accounts on the server itself, whether it runs or not."""

from pathlib import Path

from fleet_server.accounts.wiring import wired
from fleet_server.clock import utc_now
from fleet_server.local_database import opened


async def admin_claim(root: Path, *, tenant: str) -> str:
    """Make an admin claim in the database of a data directory.

    Raises:
        SetupError: the data directory or its database cannot be used.
        RefusedError: there is no such tenant.
        UnavailableError: the database failed.
    """
    async with opened(root) as database:
        _, _, logins = wired(database, utc_now)
        return await logins.make_claim(tenant=tenant)
