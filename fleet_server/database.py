"""The database: sessions, and the base of all tables.

SQLite is the embedded default: WAL so that readers and the one writer do not wait for each other,
``synchronous=FULL`` because an acknowledgement promises that a window survives a power cut, and
``BEGIN IMMEDIATE`` for writers because a transaction that starts as a reader cannot become a writer
while another one writes. So writers take turns there. On PostgreSQL they run side by side at READ
COMMITTED: whoever reads a row to write what follows from it locks the row (``with_for_update``,
which SQLite leaves out), or takes a turn where there is no row yet (`take_turn`). Types are
portable, and one test suite runs on both.
"""

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import BigInteger, Integer, bindparam, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fleet_server.audit import trail
from fleet_server.database_engine import make_engine, sqlite_url
from fleet_server.errors import MalformedError, UnavailableError
from fleet_server.logs import request_id
from fleet_server.tenancy import Base, ScopedSession
from fleet_server.turns import take_turn

__all__ = ["Base", "Database", "RowId", "sqlite_url", "take_turn"]

RowId = BigInteger().with_variant(Integer(), "sqlite")
"""A generated key: SQLite generates only for INTEGER."""


class Database:
    """Hands out sessions; one lives as long as the process."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._names_requests = self._engine.dialect.name == "postgresql"
        self._readers = async_sessionmaker(
            self._engine, sync_session_class=ScopedSession, expire_on_commit=False
        )
        self._writers = async_sessionmaker(
            self._engine.execution_options(skerry_writes=True),
            sync_session_class=ScopedSession,
            expire_on_commit=False,
        )
        self._refused_s: float | None = None

    @property
    def stores(self) -> bool:
        """Whether it takes what is written, as far as is known.

        A full disk and a standby of PostgreSQL are read without trouble. What looks after the fleet
        writes every few seconds, so refusals do not stay unnoticed, nor their end.
        """
        return self._refused_s is None or time.monotonic() > self._refused_s + _REFUSES_FOR_S

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a session for reading.

        Raises:
            MalformedError: the database refuses a value, such as a text with NUL.
            UnavailableError: the database does not answer.
        """
        with _wrapped():
            async with self._readers() as session:
                yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction; it commits when the block ends, and rolls back if it raises.

        PostgreSQL is told which request it works for, so that its own log and
        ``pg_stat_activity`` name it.

        Raises:
            MalformedError: the database refuses a value, such as a text with NUL.
            UnavailableError: the database does not answer, is locked for long, or its disk is full.
        """
        with _wrapped(), self._noticed():
            async with self._writers() as session, session.begin():
                current = request_id.get()
                if self._names_requests and current is not None:
                    await session.execute(_NAMED, {"name": f"skerry {current}"})
                yield session
                await trail.complete(session)

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            sqlstate = getattr(error.orig, "sqlstate", None)
            code = sqlstate or getattr(error.orig, "sqlite_errorname", None)
            if _STORES_NOTHING.match(str(code)):
                self._refused_s = time.monotonic()
            raise

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


_STORES_NOTHING = re.compile("SQLITE_(FULL|READONLY|IOERR)|53100|25006|58030")
"""Results of SQLite and SQLSTATEs: disk full, read-only, I/O error."""

_REFUSES_FOR_S = 30.0
_DATA_EXCEPTION = "22"
"""Class of SQLSTATE (PostgreSQL, appendix A): trying again does not help."""

_NAMED = select(func.set_config("application_name", bindparam("name"), True))  # noqa: FBT003 (SQL's true, for the transaction alone)


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeoutError) as error:
        reason = getattr(error, "orig", None) or "all of its connections are busy"
        if str(getattr(reason, "sqlstate", None)).startswith(_DATA_EXCEPTION):
            raise MalformedError(f"the database cannot store what was sent: {reason}") from error
        raise UnavailableError(f"the database failed: {reason}; try again") from error
