"""Brings the database to the schema of this version.

The server does it when it starts on SQLite; with a database server, `skerry server migrate` does it
once before the processes of the new version start, and they refuse to start before that. All steps
are one transaction: an upgrade that dies or fails leaves the schema as it was.
"""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from fleet_server.accounts import tables as _accounts  # noqa: F401 (registers its tables)
from fleet_server.alerts import tables as _alerts  # noqa: F401 (registers its tables)
from fleet_server.assignments import tables as _assignments  # noqa: F401 (registers its tables)
from fleet_server.audit import tables as _audit  # noqa: F401 (registers its tables)
from fleet_server.broker import tables as _broker  # noqa: F401 (registers its tables)
from fleet_server.commands import tables as _commands  # noqa: F401 (registers its tables)
from fleet_server.database import Base
from fleet_server.database_engine import described, make_engine, sqlite_path
from fleet_server.devices import tables as _devices  # noqa: F401 (registers its tables)
from fleet_server.errors import SetupError, UnavailableError
from fleet_server.releases import tables as _releases  # noqa: F401 (registers its tables)
from fleet_server.rollouts import tables as _rollouts  # noqa: F401 (registers its tables)
from fleet_server.telemetry import tables as _telemetry  # noqa: F401 (registers its tables)

logger = logging.getLogger(__name__)

_LOCK = 0x736B6572
"""Key of the advisory lock by which upgrades take turns on PostgreSQL ("sker" in ASCII)."""


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


def head() -> str:
    """Return the revision of the schema of this version."""
    return ScriptDirectory.from_config(script_config()).get_current_head() or ""


async def upgrade(url: str, *, revision: str = "head") -> str:
    """Apply the steps that the database lacks; two processes may call it at once.

    Returns:
        The revision of the schema afterwards.

    Raises:
        SetupError: the database is newer than this version, damaged, not writable or out of reach.
    """
    engine = make_engine(url, foreign_keys=False)
    try:
        before, after = await _upgraded(engine, revision)
    except CommandError as error:
        raise SetupError(
            f"the database {described(url)} was made by another version of skerry ({error}); "
            "run the version that made it, or a newer one"
        ) from error
    except (SQLAlchemyError, OSError, UnavailableError) as error:
        raise _unusable(url, error) from error
    finally:
        await engine.dispose()
    path = sqlite_path(url)
    if path is not None:
        path.chmod(0o600)
    if before != after:
        logger.info("database_migrated", extra={"revision_from": before, "revision": after})
    return after


async def prepare(url: str) -> None:
    """Make the database fit for a server that starts: upgrade SQLite, check PostgreSQL.

    Raises:
        SetupError: it is not, and the message says what to do.
    """
    if sqlite_path(url) is not None:
        await upgrade(url)
        return
    engine = make_engine(url)
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(_revision)
    except (SQLAlchemyError, OSError, UnavailableError) as error:
        raise _unusable(url, error) from error
    finally:
        await engine.dispose()
    if found != head():
        raise SetupError(
            f"the database {described(url)} has the schema {found or 'of nothing yet'} and this "
            f"version needs {head()}: run `skerry server migrate` once, then start the servers"
        )


async def _upgraded(engine: AsyncEngine, revision: str) -> tuple[str | None, str]:
    config = script_config()

    def apply(connection: Connection) -> tuple[str | None, str]:
        is_sqlite = connection.dialect.name == "sqlite"
        if not is_sqlite:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        before = _revision(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        if is_sqlite:
            _check_references(connection)
        return before, _revision(connection) or ""

    async with engine.execution_options(skerry_writes=True).begin() as connection:
        return await connection.run_sync(apply)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_references(connection: Connection) -> None:
    broken = connection.execute(text("PRAGMA foreign_key_check")).first()
    if broken is not None:
        raise CommandError(f"a row of the table {broken[0]} refers to a missing row of {broken[2]}")


def _unusable(url: str, error: Exception) -> SetupError:
    reason = getattr(error, "orig", None) or error
    remedy = (
        "see that the disk has room and the file belongs to this user; if it is damaged, restore "
        "it from a backup"
        if sqlite_path(url)
        else "see that the database server runs, and that the setting database_url names it, a "
        "database that exists and a user who may create tables in it"
    )
    return SetupError(f"the database {described(url)} cannot be used: {reason}; {remedy}")
