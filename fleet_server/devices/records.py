"""What is shown of devices: read for many of them by one statement, as rows and not as objects.

A list of a hundred would otherwise spend most of its time on making objects that nobody changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Row, String, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.assignments.tables import Assignment
from fleet_server.devices import health
from fleet_server.devices.health import Health, Signs
from fleet_server.devices.tables import Device


class ShownDevice(NamedTuple):
    """Columns of `Device`, by their names: without what is large and what nobody is shown."""

    id: str
    public_key_sha256: str
    certificate_serial: str
    certificate_expires_ms: int
    enrolled_ms: int
    decommissioned_ms: int | None
    revoked_ms: int | None
    online: bool
    last_seen_ms: int | None
    reported: str | None
    runtime_up: bool | None
    labels: str
    facts: str


class ShownAssignment(NamedTuple):
    """Columns of `Assignment`, by their names: without the signed document."""

    version: int
    signed_ms: int
    expires_ms: int
    entries: str


_OF_DEVICE = [getattr(Device, name) for name in ShownDevice._fields]
_OF_ASSIGNMENT = [getattr(Assignment, name) for name in ShownAssignment._fields]
_SHOWN = select(*_OF_DEVICE, *_OF_ASSIGNMENT).outerjoin(
    Assignment, Assignment.device_id == Device.id
)


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device with its newest assignment."""

    device: ShownDevice
    assignment: ShownAssignment | None
    health: Health


async def read(session: AsyncSession, ids: Sequence[str], *, now_ms: int) -> list[DeviceRecord]:
    """Return the records of devices in the order of the ids, without those that are not there."""
    if not ids:
        return []
    if session.get_bind().dialect.name == "postgresql":
        # One parameter instead of one for each id, which take longer to plan than to look up.
        among = Device.id == func.any(literal(list(ids), ARRAY(String)))
    else:
        among = Device.id.in_(ids)
    rows = await session.execute(_SHOWN.where(among))
    found = {record.device.id: record for record in (_record(row, now_ms) for row in rows)}
    return [found[each] for each in ids if each in found]


def _record(row: Row[Any], now_ms: int) -> DeviceRecord:
    device = ShownDevice._make(row[: len(_OF_DEVICE)])
    assigned = row[len(_OF_DEVICE) :]
    assignment = None if assigned[0] is None else ShownAssignment._make(assigned)
    signs = Signs(
        decommissioned_ms=device.decommissioned_ms,
        revoked_ms=device.revoked_ms,
        certificate_expires_ms=device.certificate_expires_ms,
        last_seen_ms=device.last_seen_ms,
        runtime_up=device.runtime_up,
    )
    return DeviceRecord(device, assignment, health.of(signs, now_ms=now_ms))
