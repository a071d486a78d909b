"""The database: engine, sessions, and the base of all tables.

SQLite is the default: WAL so that readers and the one writer do not wait for each other,
``synchronous=FULL`` because an acknowledgement promises that a window survives a power cut, and
``BEGIN IMMEDIATE`` for writers because a transaction that starts as a reader cannot become a writer
while another one writes. Types are portable; PostgreSQL is a matter of another URL.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import BigInteger, Connection, Integer, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase

from fleet_server.errors import UnavailableError

BUSY_TIMEOUT_MS = 10_000

RowId = BigInteger().with_variant(Integer(), "sqlite")
"""A generated key: SQLite generates only for INTEGER."""


class Base(DeclarativeBase):
    """Base of the tables of all features."""


class _DbapiCursor(Protocol):
    def execute(self, statement: str) -> object: ...
    def close(self) -> None: ...


class _DbapiConnection(Protocol):
    isolation_level: str | None

    def cursor(self) -> _DbapiCursor: ...


def sqlite_url(path: Path, *, driver: str = "aiosqlite") -> str:
    """Return the address of a SQLite file."""
    return f"sqlite+{driver}:///{path.absolute()}"


class Database:
    """Hands out sessions; one lives as long as the process."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(url)
        if self._engine.dialect.name == "sqlite":
            _tune_sqlite(self._engine)
        self._readers = async_sessionmaker(self._engine, expire_on_commit=False)
        self._writers = async_sessionmaker(
            self._engine.execution_options(skerry_writes=True), expire_on_commit=False
        )

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading.

        Raises:
            UnavailableError: the database does not answer.
        """
        with _wrapped():
            async with self._readers() as session:
                yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction; it commits when the block ends, and rolls back if it raises.

        Raises:
            UnavailableError: the database does not answer, is locked for long, or its disk is full.
        """
        with _wrapped():
            async with self._writers() as session, session.begin():
                yield session

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise UnavailableError(f"the database failed: {error.orig}; try again") from error


def _tune_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: _DbapiConnection, _record: object) -> None:
        connection.isolation_level = None
        configure_sqlite(connection.cursor())

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("skerry_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def configure_sqlite(cursor: _DbapiCursor) -> None:
    """Set what every connection of ours to SQLite needs."""
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
