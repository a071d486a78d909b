"""What devices say of their settings, against what the server believes since their last answer.

A wiped or replaced device has lost its settings, and a database from a backup has lost answers.
Nothing of what is said is taken for more than that: no device can raise a version by saying one.
"""

from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.remote_settings import ConfigurationStatus
from fleet_server.commands.tables import NOT_OURS, DeviceConfiguration

SETTLED_MS = 5 * 60_000
"""A report may have been under way when the device answered: so long the answer counts."""


async def take(
    session: AsyncSession, device_id: str, said: ConfigurationStatus, now_ms: int
) -> None:
    """Correct what is believed of a device if it works with something else, by its report.

    Args:
        session: of the caller's transaction.
        device_id: who says it; the device is known.
        said: what it works with.
        now_ms: by the server's clock.
    """
    known = await session.get(DeviceConfiguration, device_id)
    believed = 0 if known is None else known.version
    if said.trial_version or said.version == believed:
        return
    if known is None:
        known = DeviceConfiguration(
            device_id=device_id, name="", version=0, refused_version=0, problem="", changed_ms=0
        )
        session.add(known)
    if now_ms - known.changed_ms < SETTLED_MS:
        return
    known.version = said.version if said.version <= max(believed, 0) else NOT_OURS
    known.name = said.name
    if not said.refused_version:
        known.refused_version, known.problem = 0, ""
    known.changed_ms = now_ms
