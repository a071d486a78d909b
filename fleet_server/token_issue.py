"""Makes an API token directly in the database, whether the server runs or not."""

from datetime import datetime, timedelta
from pathlib import Path

from fleet_server.accounts.roles import Role
from fleet_server.accounts.service import Accounts
from fleet_server.clock import utc_now
from fleet_server.data_dir import DataDir
from fleet_server.database import Database, sqlite_url
from fleet_server.migrate import upgrade


async def issue(root: Path, *, name: str, role: Role, lifetime: timedelta) -> tuple[str, datetime]:
    """Make a token in the database of a data directory.

    Returns:
        The token and when it expires.

    Raises:
        SetupError: the directory is no data directory, or its database cannot be used.
        RefusedError: the lifetime is not accepted.
        UnavailableError: the database failed.
    """
    data = DataDir(root)
    data.check()
    upgrade(data)
    database = Database(sqlite_url(data.database))
    try:
        accounts = Accounts(database=database, clock=utc_now)
        return await accounts.create(name=name, role=role, lifetime=lifetime)
    finally:
        await database.close()
