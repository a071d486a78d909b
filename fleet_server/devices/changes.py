"""Tells every server process which devices to look at anew, in the order of the commits.

A transaction that changes what a device is answered (its assignment, its key, whether it is let
in) takes the next number as its last statement. The row of the counter stays locked until the
commit, so numbers become visible in their order and a reader that goes on from the last number it
saw misses none.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.devices.tables import ChangeCounter, DeviceChange

KEPT = 1000
"""Numbers whose devices are kept; a reader that is further behind forgets all it knows."""

_ROW = 1


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened after a number.

    Attributes:
        number: of the last change.
        devices: None if too much happened to be told.
    """

    number: int
    devices: Collection[str] | None


async def record(session: AsyncSession, device_ids: Iterable[str]) -> None:
    """Say that these devices changed; the last statement of the transaction."""
    rows = sorted(set(device_ids))
    if not rows:
        return
    advanced = (
        update(ChangeCounter)
        .where(ChangeCounter.id == _ROW)
        .values(number=ChangeCounter.number + 1)
        .returning(ChangeCounter.number)
    )
    number = await session.scalar(advanced)
    assert number is not None  # noqa: S101 (the migration made the row)
    await session.execute(
        insert(DeviceChange), [{"number": number, "device_id": each} for each in rows]
    )
    await session.execute(delete(DeviceChange).where(DeviceChange.number <= number - KEPT))


async def since(session: AsyncSession, seen: int) -> Changes:
    """Return what changed after a number."""
    query = select(ChangeCounter.number).where(ChangeCounter.id == _ROW)
    number = await session.scalar(query) or 0
    if number == seen:
        return Changes(seen, ())
    if not seen <= number < seen + KEPT:
        return Changes(number, None)
    changed = select(DeviceChange.device_id).where(
        DeviceChange.number > seen, DeviceChange.number <= number
    )
    return Changes(number, set(await session.scalars(changed)))
