"""Reads devices, labels them, checks their identity, and shuts them out."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from fleet_server import tenancy
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices import attributes, changes, records, selector, terms
from fleet_server.devices.health import Health
from fleet_server.devices.listing import CommonParts, Counted, Listing
from fleet_server.devices.records import DeviceRecord
from fleet_server.devices.registry import refusal
from fleet_server.devices.selector import Selector
from fleet_server.devices.sources import Wanted, has_search_index, known
from fleet_server.devices.tables import Device, DeviceGroup
from fleet_server.devices.tokens import device_key, unverified_device_id, verify_device_token
from fleet_server.errors import NotAuthenticatedError, NotFoundError
from fleet_server.keyset import MAX_COUNTED

logger = logging.getLogger(__name__)


class Connections(Protocol):
    """The live connections of devices."""

    async def disconnect(self, device_id: str) -> None:
        """Close the device's connection, if it has one."""


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Some devices of a list.

    Attributes:
        next_after: the id after which the list goes on; None at its end. A page may have fewer
            devices than it might, or none, and go on all the same.
    """

    devices: Sequence[DeviceRecord]
    next_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which devices a list shows: those for which all of this holds.

    Attributes:
        search: a part of the id.
        group: name of a saved selector.
    """

    selectors: tuple[Selector, ...] = ()
    search: str = ""
    group: str | None = None
    health: Health | None = None


class Devices:
    """The devices of one database."""

    def __init__(
        self,
        *,
        database: Database,
        connections: Sequence[Connections],
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._connections = connections
        self._clock = clock
        self._monotonic = monotonic
        self._finds_parts: bool | None = None
        self._common_parts = CommonParts(monotonic)

    async def page(self, filters: Filters, *, after: str | None, limit: int) -> DevicePage:
        """Return up to ``limit`` of the devices whose ids come after ``after``.

        Raises:
            NotFoundError: there is no such group.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            listing = await self._listing(session, filters)
            found = await listing.page(after=after or "", limit=limit)
            shown = await records.read(session, found.ids, now_ms=unix_ms(self._clock()))
        last = found.ids[-1] if len(found.ids) == limit else found.searched_to
        return DevicePage(shown, last)

    async def count(self, filters: Filters) -> Counted:
        """Count devices, up to `MAX_COUNTED` and for a bounded time.

        Raises:
            NotFoundError: there is no such group.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            return await (await self._listing(session, filters)).count(MAX_COUNTED)

    async def label(self, device_id: str, wanted: Mapping[str, str | None]) -> DeviceRecord:
        """Set labels of a device, and remove those whose value is None.

        Raises:
            NotFoundError: there is none with that id.
            RefusedError: a name or value is not accepted, or there are too many.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            device = await session.get(Device, device_id, with_for_update=True)
            if device is None:
                raise _no_device(device_id)
            labels = attributes.changed_labels(attributes.decode_labels(device.labels), wanted)
            await terms.set_labels(session, device, labels)
        logger.info("device_labelled", extra={"device": device_id, "labels": sorted(wanted)})
        return await self.get(device_id)

    async def get(self, device_id: str) -> DeviceRecord:
        """Return one device.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            shown = await records.read(session, [device_id], now_ms=unix_ms(self._clock()))
        if not shown:
            raise _no_device(device_id)
        return shown[0]

    async def authenticate(self, token: str | None) -> str:
        """Return which device signed a token for an HTTPS request, and enter its tenant.

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
        with tenancy.everything():
            async with self._database.reading() as session:
                device = await session.get(Device, device_id)
        if device is None:
            raise NotAuthenticatedError(f"the device {device_id} is not enrolled here")
        reason = refusal(device, now_ms=unix_ms(self._clock()))
        if reason is not None:
            raise NotAuthenticatedError(f"the device {device_id} is shut out: {reason}")
        verify_device_token(token, key=device_key(device.public_key_pem), now=self._clock())
        tenancy.enter(device.tenant)
        return device_id

    async def decommission(self, device_id: str) -> DeviceRecord:
        """Shut a device out for good; what is stored of it stays.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        record = await self._shut_out(device_id, Device.decommissioned_ms)
        logger.info("device_decommissioned", extra={"device": device_id})
        return record

    async def revoke(self, device_id: str) -> DeviceRecord:
        """Refuse a device's present key; a claim that replaces it brings the device back.

        Raises:
            NotFoundError: there is none with that id.
            UnavailableError: the database failed.
        """
        record = await self._shut_out(device_id, Device.revoked_ms)
        logger.info("device_revoked", extra={"device": device_id})
        return record

    async def _shut_out(
        self, device_id: str, since: InstrumentedAttribute[int | None]
    ) -> DeviceRecord:
        async with self._database.writing() as session:
            if await session.get(Device, device_id) is None:
                raise _no_device(device_id)
            changed = await session.execute(
                update(Device)
                .where(Device.id == device_id, since.is_(None))
                .values({since.key: unix_ms(self._clock()), Device.online.key: False})
                .returning(Device.id)
            )
            await changes.record(session, [device_id])
            if changed.first() is not None:
                action = f"device.{since.key.removesuffix('_ms')}"
                await trail.record(session, action, device_id, after={since.key: True})
        record = await self.get(device_id)
        for each in self._connections:
            await each.disconnect(device_id)
        return record

    async def _wanted(self, session: AsyncSession, filters: Filters) -> Selector:
        """Return the selectors of a request, and of its group, as one."""
        selectors = list(filters.selectors)
        if filters.group is not None:
            row = await session.get(DeviceGroup, (tenancy.current(), filters.group))
            if row is None:
                raise NotFoundError(f"there is no group {filters.group!r}")
            selectors.append(selector.parse(row.selector))
        return Selector(tuple(chain.from_iterable(each.requirements for each in selectors)))

    async def _listing(self, session: AsyncSession, filters: Filters) -> Listing:
        if self._finds_parts is None:
            self._finds_parts = await has_search_index(session)
        wanted = Wanted(
            tenant=tenancy.current(),
            requirements=(await self._wanted(session, filters)).requirements,
            search=filters.search,
            health=filters.health,
            now_ms=unix_ms(self._clock()),
        )
        wanted = await known(session, wanted)
        common = self._common_parts if self._finds_parts else None
        return Listing(session, wanted, common=common, monotonic=self._monotonic)


def _no_device(device_id: str) -> NotFoundError:
    return NotFoundError(f"there is no device {device_id[:80]!r}")
