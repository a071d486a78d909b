"""Makes an API token directly in the database, whether the server runs or not."""

import os
from datetime import datetime, timedelta
from pathlib import Path

from fleet_server import migrate, settings
from fleet_server.accounts.roles import Role
from fleet_server.accounts.service import Accounts
from fleet_server.clock import utc_now
from fleet_server.data_dir import DataDir
from fleet_server.database import Database


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
    url = settings.database_url(settings.load(data.settings_file, os.environ), data)
    await migrate.prepare(url)
    database = Database(url)
    try:
        accounts = Accounts(database=database, clock=utc_now)
        return await accounts.create(name=name, role=role, lifetime=lifetime)
    finally:
        await database.close()
