"""Says whether a device is let in, by whatever way it comes."""

from collections.abc import Mapping

from sqlalchemy import select

from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices.tables import Device

_AT_ONCE = 500


def refusal(device: Device, *, now_ms: int) -> str | None:
    """Say why a device is not let in; None if it is."""
    if device.decommissioned_ms is not None:
        return "decommissioned"
    if device.revoked_ms is not None:
        return (
            "its key was revoked; enrol it again with a claim of `skerry provision claim --replace`"
        )
    if device.certificate_expires_ms <= now_ms:
        return (
            "its certificate expired; enrol it again with a claim of "
            "`skerry provision claim --replace`"
        )
    return None


class EnrolledDevices:
    """The enrolled devices, as the broker's gate asks for them."""

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def refusal(self, device_id: str, public_key_sha256: str) -> str | None:
        """Say why a device with this certificate key may not connect; None if it may.

        Raises:
            UnavailableError: the database failed.
        """
        return (await self.refusals({device_id: public_key_sha256})).get(device_id)

    async def refusals(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Say which of these devices may not connect, and why.

        Args:
            keys: fingerprint of the key that each one presented, by device id.

        Raises:
            UnavailableError: the database failed.
        """
        found: dict[str, Device] = {}
        ids = sorted(keys)
        for start in range(0, len(ids), _AT_ONCE):
            query = select(Device).where(Device.id.in_(ids[start : start + _AT_ONCE]))
            async with self._database.reading() as session:
                found |= {device.id: device for device in await session.scalars(query)}
        reasons = {each: self._reason(found.get(each), key) for each, key in keys.items()}
        return {each: reason for each, reason in reasons.items() if reason is not None}

    def _reason(self, device: Device | None, public_key_sha256: str) -> str | None:
        if device is None:
            return "not enrolled"
        reason = refusal(device, now_ms=unix_ms(self._clock()))
        if reason is None and device.public_key_sha256 != public_key_sha256:
            return "its certificate has another key than the enrolled one"
        return reason
