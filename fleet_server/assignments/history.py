"""Enters into the audit trail what devices ran before an assignment and what they shall run now."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.counting import counted
from fleet_server.assignments import entries
from fleet_server.assignments.tables import Assignment
from fleet_server.audit import trail
from fleet_server.devices.tables import Device


async def record(session: AsyncSession, signed: Sequence[Assignment]) -> None:
    """Record new assignments that change something, before they replace the stored ones.

    An assignment that is signed anew because it would expire changes nothing.
    """
    query = (
        select(Device.id, Device.tenant, Assignment.entries)
        .outerjoin(Assignment, Assignment.device_id == Device.id)
        .where(Device.id.in_([row.device_id for row in signed]))
    )
    stored = {row[0]: (row[1], row[2]) for row in await session.execute(query)}
    before: dict[str, dict[str, object]] = defaultdict(dict)
    after: dict[str, dict[str, object]] = defaultdict(dict)
    for row in signed:
        tenant, ran = stored[row.device_id]
        was, becomes = _releases(ran), _releases(row.entries)
        if was != becomes or trail.actor.get() != trail.SERVER:
            before[tenant][row.device_id] = was
            after[tenant][row.device_id] = becomes
    for tenant, devices in after.items():
        await trail.record(
            session,
            "assignment",
            counted(len(devices), "device"),
            before=before[tenant],
            after=devices,
            tenant=tenant,
        )


def _releases(stored: str | None) -> list[str]:
    return [f"{entry.family} {entry.version}" for entry in entries.decode(stored or "[]")]
