"""How large the database is, and how far back telemetry goes: for metrics and the command line.

Rows of telemetry are numbered as they come and forgotten in that order, so how many there are
follows from the first and the last number, without counting millions; numbers that were never used
count as well.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from fleet_server import tenancy
from fleet_server.database import Database
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Window

_TABLES: dict[str, tuple[InstrumentedAttribute[int], InstrumentedAttribute[int]]] = {
    "windows": (Window.id, Window.received_ms),
    "model_windows": (ModelCounts.id, ModelCounts.start_ms),
    "events": (DeviceEvent.id, DeviceEvent.received_ms),
}
"""The number of a row, and of what time it is."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is stored of one kind.

    Attributes:
        number: of rows, about.
        oldest_ms: when the oldest was received, or for a model's counts when they start; None
            without rows.
    """

    number: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a database holds."""

    database_bytes: int
    telemetry: dict[str, Rows]


async def read(database: Database) -> Stored:
    """Return what a database holds of all tenants.

    Raises:
        UnavailableError: the database failed.
    """
    with tenancy.everything():
        async with database.reading() as session:
            size = await _bytes(session)
            return Stored(size, {name: await _rows(session, *of) for name, of in _TABLES.items()})


async def _bytes(session: AsyncSession) -> int:
    if session.get_bind().dialect.name == "postgresql":
        return await session.scalar(select(func.pg_database_size(func.current_database()))) or 0
    connection = await session.connection()
    pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
    size = (await connection.exec_driver_sql("PRAGMA page_size")).scalar_one()
    return int(pages * size)


async def _rows(
    session: AsyncSession, row_id: InstrumentedAttribute[int], at_ms: InstrumentedAttribute[int]
) -> Rows:
    oldest = (await session.execute(select(row_id, at_ms).order_by(row_id).limit(1))).first()
    last = await session.scalar(select(func.max(row_id)))
    return Rows(last - oldest[0] + 1, oldest[1]) if oldest and last else Rows(0, None)
