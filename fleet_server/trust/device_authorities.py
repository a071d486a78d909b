"""Tells devices who issues certificates and which fleet CAs there are; notes what they trust.

Nothing here is secret and nothing has to be believed: a device renews its certificate where it did
before, and trusts a fleet CA for the signature of the one that it trusted before.
"""

import asyncio
from pathlib import Path

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from fleet_protocol.messages import Authorities, AuthoritiesRequest
from fleet_server import tenancy
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices.authorities import DeviceCas
from fleet_server.devices.tables import Device, IssuedCertificate, PendingCertificate
from fleet_server.trust.fleet_cas import FleetCas


class DeviceAuthorities:
    """What devices are told."""

    def __init__(self, *, database: Database, cas: DeviceCas, online: Path) -> None:
        self._database = database
        self._cas = cas
        self._online = online

    async def tell(self, device_id: str, request: AuthoritiesRequest) -> Authorities:
        """Return the authorities, and note the newest fleet CA that the device trusts.

        Raises:
            SetupError: the fleet CAs cannot be read.
            UnavailableError: the database failed.
        """
        fleet = await asyncio.to_thread(FleetCas.load, self._online)
        newest = fleet.newest_of(request.trusted)
        async with self._database.reading() as session:
            known = await session.scalar(select(Device.fleet_ca).where(Device.id == device_id))
        if known != newest:
            async with self._database.writing() as session:
                await session.execute(
                    update(Device).where(Device.id == device_id).values(fleet_ca=newest)
                )
        return Authorities(device_ca=self._cas.issuing.key_id, fleet_cas=fleet.offered())


async def holders(database: Database, issuer: str | None, *, clock: Clock) -> int:
    """Count the devices in service whose valid certificate, or the next one, is of a device CA.

    Args:
        database: of the fleet.
        issuer: key id of the CA; None for those that were issued before it was noted.
        clock: the wall clock.

    Raises:
        UnavailableError: the database failed.
    """
    pending = select(PendingCertificate.certificate_serial)
    query = (
        select(func.count(func.distinct(Device.id)))
        .join(IssuedCertificate, IssuedCertificate.device_id == Device.id)
        .where(
            _in_service(clock),
            IssuedCertificate.issuer.is_(None)
            if issuer is None
            else IssuedCertificate.issuer == issuer,
            or_(
                IssuedCertificate.serial == Device.certificate_serial,
                IssuedCertificate.serial.in_(pending),
            ),
        )
    )
    with tenancy.everything():
        async with database.reading() as session:
            return await session.scalar(query) or 0


async def strangers(database: Database, known: list[str], *, clock: Clock) -> int:
    """Count the devices in service that have not said that they trust one of some fleet CAs.

    Raises:
        UnavailableError: the database failed.
    """
    query = select(func.count()).where(
        _in_service(clock), or_(Device.fleet_ca.is_(None), Device.fleet_ca.not_in(known))
    )
    with tenancy.everything():
        async with database.reading() as session:
            return await session.scalar(query) or 0


def _in_service(clock: Clock) -> ColumnElement[bool]:
    return and_(
        Device.decommissioned_ms.is_(None),
        Device.revoked_ms.is_(None),
        Device.certificate_expires_ms > unix_ms(clock()),
    )
