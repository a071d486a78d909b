"""Reads devices, checks their identity, and shuts them out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import select, update

from fleet_server.assignments.tables import Assignment
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.devices.tokens import unverified_device_id, verify_device_token
from fleet_server.errors import NotAuthenticatedError, NotFoundError

logger = logging.getLogger(__name__)


class Connections(Protocol):
    """The live connections of devices."""

    async def disconnect(self, device_id: str) -> None:
        """Close the device's connection, if it has one."""


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device with its newest assignment."""

    device: Device
    assignment: Assignment | None


class Devices:
    """The devices of one database."""

    def __init__(self, *, database: Database, connections: Connections, clock: Clock) -> None:
        self._database = database
        self._connections = connections
        self._clock = clock

    async def page(self, *, after: str | None, limit: int) -> Sequence[DeviceRecord]:
        """Return up to ``limit`` devices whose ids come after ``after``.

        Raises:
            UnavailableError: the database failed.
        """
        query = (
            select(Device, Assignment)
            .outerjoin(Assignment, Assignment.device_id == Device.id)
            .where(Device.id > (after or ""))
            .order_by(Device.id)
            .limit(limit)
        )
        async with self._database.reading() as session:
            return [DeviceRecord(*row) for row in await session.execute(query)]

    async def get(self, device_id: str) -> DeviceRecord:
        """Return one device.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            device = await session.get(Device, device_id)
            if device is None:
                raise NotFoundError(f"there is no device {device_id[:80]!r}")
            return DeviceRecord(device, await session.get(Assignment, device_id))

    async def authenticate(self, token: str | None) -> str:
        """Return which device signed a token for an HTTPS request.

        Raises:
            NotAuthenticatedError: no valid token of an enrolled device.
            UnavailableError: the database failed.
        """
        if not token:
            raise NotAuthenticatedError(
                "this route needs a device token: send `Authorization: Bearer JWT`, "
                "signed with the device's key"
            )
        device_id = unverified_device_id(token)
        async with self._database.reading() as session:
            device = await session.get(Device, device_id)
        if device is None:
            raise NotAuthenticatedError(f"the device {device_id} is not enrolled here")
        if device.decommissioned_ms is not None:
            raise NotAuthenticatedError(f"the device {device_id} was decommissioned")
        verify_device_token(token, public_key_pem=device.public_key_pem, now=self._clock())
        return device_id

    async def decommission(self, device_id: str) -> DeviceRecord:
        """Shut a device out for good; what is stored of it stays.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            await session.execute(
                update(Device)
                .where(Device.id == device_id, Device.decommissioned_ms.is_(None))
                .values(decommissioned_ms=unix_ms(self._clock()), online=False)
            )
        record = await self.get(device_id)
        await self._connections.disconnect(device_id)
        logger.info("device_decommissioned", extra={"device": device_id})
        return record
