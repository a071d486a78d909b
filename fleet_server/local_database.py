"""The database of a data directory, for commands on the server itself, running or not.

What they change is in the audit trail as that of the person who gave the command, as far as the
operating system tells.
"""

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fleet_server import migrate, settings
from fleet_server.audit import trail
from fleet_server.data_dir import DataDir
from fleet_server.database import Database

_LOGIN_UID = Path("/proc/self/loginuid")
"""As whom the person logged in, which `sudo` and `su` do not change (Linux, pam_loginuid)."""

_NOT_SET = 2**32 - 1


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
        with trail.acting(operator(_LOGIN_UID)):
            yield database
    finally:
        await database.close()


def operator(login_uid: Path) -> str:
    """Return who gives this command: the process's user, and who logged in if that is another one.

    Args:
        login_uid: the kernel's file that says who logged in; it may be missing.
    """
    own = os.getuid()
    try:
        login = int(login_uid.read_text())
    except (OSError, ValueError):
        login = _NOT_SET
    return f"local:{_name(own)}" + (f" for {_name(login)}" if login not in {own, _NOT_SET} else "")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container
        return str(uid)
