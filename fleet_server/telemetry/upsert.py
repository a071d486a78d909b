"""``INSERT ... ON CONFLICT``, which SQLite and PostgreSQL both have and SQLAlchemy has twice."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.database import Base

Insert = postgresql.Insert | sqlite.Insert


def insert_into(session: AsyncSession, table: type[Base]) -> Insert:
    """Return an insert that can say what happens to rows that exist."""
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
