"""Makes engines: what a connection needs on SQLite and on PostgreSQL, and which one a URL means.

A URL is ``sqlite+aiosqlite:///PATH``, or a PostgreSQL one as libpq writes it
(``postgresql://user:password@host:5432/name?sslmode=verify-full``), which asyncpg itself reads.
It may hold a password: only `described` goes into logs and messages.
"""

from pathlib import Path
from typing import Protocol

import asyncpg
from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from fleet_server.errors import UnavailableError

BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
POOL_SIZE = 10
"""Connections that one process keeps open to PostgreSQL; as many more while it is busy."""

_SQLITE = "sqlite+aiosqlite:///"


class _DbapiCursor(Protocol):
    def execute(self, statement: str) -> object: ...
    def close(self) -> None: ...


class _DbapiConnection(Protocol):
    isolation_level: str | None

    def cursor(self) -> _DbapiCursor: ...


def sqlite_url(path: Path) -> str:
    """Return the address of a SQLite file."""
    return f"{_SQLITE}{path.absolute()}"


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite address; None for PostgreSQL."""
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def described(url: str) -> str:
    """Return an address as it may be shown: without the password."""
    path = sqlite_path(url)
    return str(path) if path else make_url(url).set(query={}).render_as_string(hide_password=True)


def make_engine(url: str, *, foreign_keys: bool = True) -> AsyncEngine:
    """Return an engine; it connects when it is first used.

    Args:
        url: see the module.
        foreign_keys: whether SQLite checks references at once; a migration that rebuilds a table
            has to check them at its end instead. PostgreSQL always checks.
    """
    if sqlite_path(url) is None:
        return _postgresql(url)
    engine = create_async_engine(url)
    _tune_sqlite(engine, foreign_keys=foreign_keys)
    return engine


def _postgresql(url: str) -> AsyncEngine:
    async def connect() -> asyncpg.Connection:
        try:
            return await asyncpg.connect(
                url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings={"application_name": "skerry"},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            reason = str(error) or type(error).__name__
            raise UnavailableError(
                f"the database {described(url)} cannot be reached: {reason}"
            ) from error

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        pool_pre_ping=True,
        pool_timeout=CONNECT_TIMEOUT_S,
    )


def _tune_sqlite(engine: AsyncEngine, *, foreign_keys: bool) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: _DbapiConnection, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"foreign_keys={'ON' if foreign_keys else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("skerry_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
