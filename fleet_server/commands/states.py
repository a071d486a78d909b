"""What may have become of a command, and how one is found."""

from enum import StrEnum

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_server.commands.tables import DeviceCommand
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError


class CommandState(StrEnum):
    """What became of a command."""

    OPEN = "open"
    """The device has not answered yet."""
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    EXPIRED = "expired"
    """No answer came in time; one that still comes replaces this."""
    CANCELED = "canceled"
    """Taken back. The device may have run it already; an answer replaces this."""


def by_id(command_id: str) -> Select[DeviceCommand]:
    """Return the query for one command."""
    return select(DeviceCommand).where(DeviceCommand.id == command_id)


async def locked(session: AsyncSession, command_id: str) -> DeviceCommand:
    """Return a command for writing.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = await session.scalar(by_id(command_id).with_for_update())
    if row is None:
        raise no_command(command_id)
    return row


def no_command(command_id: str) -> NotFoundError:
    """Return the error for a command that does not exist."""
    return NotFoundError(f"there is no command {command_id[:40]!r}")


async def next_sequences(
    session: AsyncSession, device_ids: list[str]
) -> dict[str, tuple[str, int]]:
    """Return claim and next sequence of each of some devices that may be commanded."""
    query = (
        select(Device.id, Device.claim, func.max(DeviceCommand.sequence))
        .outerjoin(DeviceCommand, DeviceCommand.device_id == Device.id)
        .where(Device.id.in_(device_ids), Device.decommissioned_ms.is_(None))
        .group_by(Device.id, Device.claim)
        .order_by(Device.id)
    )
    return {row[0]: (row[1], (row[2] or 0) + 1) for row in await session.execute(query)}


def audited(row: DeviceCommand) -> dict[str, object]:
    """Return what the audit trail says of a command."""
    return {
        "id": row.id,
        "kind": row.kind,
        "action": row.action,
        "expires_ms": row.expires_ms,
    }
