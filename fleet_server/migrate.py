"""Brings the database to the schema of this version.

The server does it when it starts on SQLite; with a database server, `skerry server migrate` does it
once before the processes of the new version start.
"""

import fcntl
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import MetaData, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from fleet_server.accounts import tables as _accounts  # noqa: F401 (registers its tables)
from fleet_server.assignments import tables as _assignments  # noqa: F401
from fleet_server.data_dir import DataDir
from fleet_server.database import Base, configure_sqlite, sqlite_url
from fleet_server.devices import tables as _devices  # noqa: F401
from fleet_server.errors import SetupError
from fleet_server.releases import tables as _releases  # noqa: F401
from fleet_server.telemetry import tables as _telemetry  # noqa: F401

logger = logging.getLogger(__name__)


def metadata() -> MetaData:
    """Return the schema as the code has it."""
    return Base.metadata


def script_config() -> Config:
    """Return alembic's configuration; the steps are part of the installed package."""
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%")
    )
    return config


def upgrade(data: DataDir) -> str:
    """Apply the steps that the database lacks; two processes may call it at once.

    Returns:
        The revision of the schema afterwards.

    Raises:
        SetupError: the database is newer than this version, damaged, or not writable.
    """
    config = script_config()
    engine = create_engine(sqlite_url(data.database, driver="pysqlite"))
    event.listen(engine, "connect", lambda connection, _: configure_sqlite(connection.cursor()))
    try:
        with (
            data.database.with_suffix(".migrate-lock").open("a") as lock,
            engine.connect() as connection,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = MigrationContext.configure(connection).get_current_revision()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            after = ScriptDirectory.from_config(config).get_current_head() or ""
    except CommandError as error:
        raise SetupError(
            f"the database {data.database} was made by another version of skerry ({error}); "
            "run the version that made it, or a newer one"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        reason = getattr(error, "orig", None) or error
        raise SetupError(
            f"the database {data.database} cannot be used: {reason}; see that the disk has room "
            "and the file belongs to this user; if it is damaged, restore it from a backup"
        ) from error
    finally:
        engine.dispose()
    data.database.chmod(0o600)
    if before != after:
        logger.info("database_migrated", extra={"revision_from": before, "revision": after})
    return after
