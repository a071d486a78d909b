"""The database of a data directory, for commands on the server itself, running or not."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fleet_server import migrate, settings
from fleet_server.data_dir import DataDir
from fleet_server.database import Database


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[Database]:
    """Open the database that the settings of a data directory mean.

    Raises:
        SetupError: the directory is no data directory, or its database cannot be used.
    """
    data = DataDir(root)
    data.check()
    url = settings.database_url(settings.load(data.settings_file, os.environ), data)
    await migrate.prepare(url)
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()
