"""Says whether a device may connect to the broker."""

from fleet_server.database import Database
from fleet_server.devices.tables import Device


class EnrolledDevices:
    """The enrolled devices, as the broker's gate asks for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def refusal(self, device_id: str, public_key_sha256: str) -> str | None:
        """Say why a device with this certificate key may not connect; None if it may.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            device = await session.get(Device, device_id)
        if device is None:
            return "not enrolled"
        if device.decommissioned_ms is not None:
            return "decommissioned"
        if device.public_key_sha256 != public_key_sha256:
            return "its certificate has another key than the enrolled one"
        return None
