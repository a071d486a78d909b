"""Lets transactions of all processes take turns where there is no row yet to lock."""

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession


async def take_turn(session: AsyncSession, subject: str) -> None:
    """Wait until no other transaction, of whatever process, works on a subject; then hold it.

    It is given back when the transaction of the session ends. On SQLite every writer has had its
    turn since it began.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(_TURN, {"subject": subject})


_TURN = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("subject"), 0)))
