"""What may have become of a command, and how one is found."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the commands of a device stand.

    Attributes:
        claim: with which it enrolled.
        last: the highest stored sequence, 0 before the first.
        reported: the state that it reported last, JSON.
    """

    claim: str
    last: int
    reported: str | None


async def standings(session: AsyncSession, device_ids: list[str]) -> dict[str, Standing]:
    """Return where those of some devices stand that may be commanded."""
    last = (
        select(func.max(DeviceCommand.sequence))
        .where(DeviceCommand.device_id == Device.id)
        .scalar_subquery()
    )
    query = (
        select(Device.id, Device.claim, last, Device.reported)
        .where(Device.id.in_(device_ids), Device.decommissioned_ms.is_(None))
        .order_by(Device.id)
    )
    return {
        row[0]: Standing(claim=row[1], last=row[2] or 0, reported=row[3])
        for row in await session.execute(query)
    }


def audited(row: DeviceCommand) -> dict[str, object]:
    """Return what the audit trail says of a command."""
    return {
        "id": row.id,
        "kind": row.kind,
        "action": row.action,
        "expires_ms": row.expires_ms,
    }
