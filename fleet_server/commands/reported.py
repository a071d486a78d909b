"""What devices say of their settings, against what the server believes since their last answer.

A wiped or replaced device has lost its settings, and a database from a backup has lost answers.
Nothing of what is said is taken for more than that: no device can raise a version by saying one.
"""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.remote_settings import ConfigurationStatus
from fleet_server.commands.tables import NOT_OURS, DeviceConfiguration

SETTLED_MS = 5 * 60_000
"""A report may have been under way when the device answered: so long the answer counts."""


async def take(session: AsyncSession, said: Mapping[str, ConfigurationStatus], now_ms: int) -> None:
    """Correct what is believed of devices that work with something else, by their reports.

    Args:
        session: of the caller's transaction.
        said: what each device works with, by its id; the devices are known.
        now_ms: by the server's clock.
    """
    query = select(DeviceConfiguration).where(DeviceConfiguration.device_id.in_(said))
    believed = {row.device_id: row for row in await session.scalars(query)}
    for device_id, status in said.items():
        row = believed.get(device_id)
        version = 0 if row is None else row.version
        if status.trial_version or status.version == version:
            continue
        if row is None:
            row = DeviceConfiguration(
                device_id=device_id, name="", version=0, refused_version=0, problem="", changed_ms=0
            )
            session.add(row)
        _correct(row, status, now_ms)


def _correct(row: DeviceConfiguration, said: ConfigurationStatus, now_ms: int) -> None:
    if now_ms - row.changed_ms < SETTLED_MS:
        return
    row.version = said.version if said.version <= max(row.version, 0) else NOT_OURS
    row.name = said.name
    if not said.refused_version:
        row.refused_version, row.problem = 0, ""
    row.changed_ms = now_ms
