"""Desired settings of agents: stored by name, for the devices that a selector means.

Of several that select a device the one of the highest rank counts, then the first by name; they are
not mixed. `pending` says which devices work with something else, so that the server commands the
difference: the state is desired, the commands follow from it.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from sqlalchemy import ColumnElement, Select, and_, exists, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.commands import Action, Configure
from fleet_protocol.remote_settings import NOTHING, RemoteSettings
from fleet_server import tenancy
from fleet_server.audit import trail
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands.states import CommandState
from fleet_server.commands.tables import (
    AgentConfiguration,
    DeviceCommand,
    DeviceConfiguration,
)
from fleet_server.database import Database, take_turn
from fleet_server.devices import selection, selector
from fleet_server.devices.tables import Device
from fleet_server.errors import NotFoundError, RefusedError

SelectorText = Annotated[str, msgspec.Meta(max_length=selector.MAX_LENGTH)]
MAX_CONFIGURATIONS = 64
"""Of one tenant: each takes part in the condition of all of lower rank."""

_SEEN_WITHIN_MS = 15 * 60_000
_AGAIN_AFTER_MS = 5 * 60_000
"""A command that was refused or interrupted is followed by another one after this."""


class ConfigurationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A configuration as it is stored; its settings are checked as the device will.

    Attributes:
        selector: which devices, by labels and facts; ``*`` for all.
        rank: of several that select a device, the highest counts.
    """

    selector: SelectorText = "*"
    settings: RemoteSettings
    rank: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0
    description: Annotated[
        str, msgspec.Meta(max_length=1000, pattern=r"\A[^\x00]*\Z", description="text without NUL")
    ] = ""


class Configurations:
    """The configurations of one database.

    Attributes:
        changed: set when one was stored or removed by this process.
    """

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.changed = asyncio.Event()

    async def all(self) -> Sequence[AgentConfiguration]:
        """Return those of the tenant, in the order in which they count.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            return await _in_order(session)

    async def get(self, name: str) -> AgentConfiguration:
        """Return one.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            row = await session.get(AgentConfiguration, (tenancy.current(), name))
        if row is None:
            raise _no_configuration(name)
        return row

    async def put(self, name: str, desired: ConfigurationBody) -> AgentConfiguration:
        """Store one under its name, in the place of the one that has it.

        Raises:
            SelectorError: the selector cannot be read.
            RefusedError: there are too many.
            UnavailableError: the database failed.
        """
        selector.parse(desired.selector)
        async with self._database.writing() as session:
            await _take_turn(session)
            rows = await _in_order(session)
            row = next((one for one in rows if one.name == name), None)
            before = None if row is None else _audited(row)
            if row is None and len(rows) >= MAX_CONFIGURATIONS:
                raise RefusedError(f"there are {MAX_CONFIGURATIONS} configurations already")
            version = await _next_version(session, rows, unix_ms(self._clock()))
            if row is None:
                row = AgentConfiguration(tenant=tenancy.current(), name=name)
                session.add(row)
            row.version = version
            row.selector, row.rank = desired.selector, desired.rank
            row.settings = msgspec.json.encode(desired.settings).decode()
            row.description = desired.description
            row.changed_ms = unix_ms(self._clock())
            await session.flush()
            await trail.record(
                session, "configuration.put", row.name, before=before, after=_audited(row)
            )
        self.changed.set()
        return row

    async def delete(self, name: str) -> None:
        """Remove one; its devices take up what counts for them without it.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            await _take_turn(session)
            row = await session.get(AgentConfiguration, (tenancy.current(), name))
            if row is None:
                raise _no_configuration(name)
            await trail.record(session, "configuration.delete", name, before=_audited(row))
            await session.delete(row)
        self.changed.set()

    async def pending(self, *, limit: int) -> dict[str, Action]:
        """Return what some devices of all tenants are to be commanded, by device.

        Raises:
            UnavailableError: the database failed.
        """
        actions: dict[str, Action] = {}
        async with self._database.reading() as session:
            tenants = list(await session.scalars(select(AgentConfiguration.tenant).distinct()))
            for tenant in tenants:
                rows = [row for row in await _in_order(session) if row.tenant == tenant]
                actions |= await self._differing(session, tenant, rows, limit)
            actions |= await self._left_over(session, tenants, limit)
        return dict(list(actions.items())[:limit])

    async def _differing(
        self,
        session: AsyncSession,
        tenant: str,
        rows: Sequence[AgentConfiguration],
        limit: int,
    ) -> dict[str, Action]:
        """Return the commands for the devices of a tenant."""
        actions: dict[str, Action] = {}
        earlier: list[ColumnElement[bool]] = []
        for row in rows:
            meant = selection.selected(selector.parse(row.selector))
            query = self._reachable(row.version).where(
                Device.tenant == tenant, meant, *(not_(each) for each in earlier)
            )
            earlier.append(meant)
            action = Configure(
                name=row.name,
                version=row.version,
                settings=msgspec.json.decode(row.settings, type=RemoteSettings),
            )
            ids = await session.scalars(query.order_by(Device.id).limit(limit))
            actions |= dict.fromkeys(ids, action)
        none = self._reachable(0).where(Device.tenant == tenant, *(not_(each) for each in earlier))
        ids = await session.scalars(none.where(_configured()).order_by(Device.id).limit(limit))
        return actions | dict.fromkeys(ids, _TAKE_BACK)

    async def _left_over(
        self, session: AsyncSession, tenants: Sequence[str], limit: int
    ) -> dict[str, Action]:
        """Return the commands for devices of tenants that desire nothing any more."""
        query = self._reachable(0).where(Device.tenant.not_in(tenants), _configured())
        return dict.fromkeys(
            await session.scalars(query.order_by(Device.id).limit(limit)), _TAKE_BACK
        )

    def _reachable(self, version: int) -> Select[str]:
        """Return the query for devices that are there and neither work with a version nor try."""
        now_ms = unix_ms(self._clock())
        at_hand = exists().where(
            DeviceConfiguration.device_id == Device.id,
            or_(
                DeviceConfiguration.version == version,
                # Version 0 is the device's own, and none that it could have refused.
                DeviceConfiguration.refused_version == (version or None),
            ),
        )
        tried = exists().where(
            DeviceCommand.device_id == Device.id,
            DeviceCommand.kind == "configure",
            or_(
                DeviceCommand.state == CommandState.OPEN,
                and_(
                    DeviceCommand.state.in_([CommandState.REFUSED, CommandState.INTERRUPTED]),
                    DeviceCommand.issued_ms > now_ms - _AGAIN_AFTER_MS,
                ),
            ),
        )
        return select(Device.id).where(
            Device.decommissioned_ms.is_(None),
            Device.claim != "",  # without which nothing is signed for it
            Device.last_seen_ms > now_ms - _SEEN_WITHIN_MS,
            not_(at_hand),
            not_(tried),
        )


_TAKE_BACK = Configure(version=0, settings=NOTHING)


def _configured() -> ColumnElement[bool]:
    return exists().where(
        DeviceConfiguration.device_id == Device.id, DeviceConfiguration.version != 0
    )


async def _take_turn(session: AsyncSession) -> None:
    await take_turn(session, f"configurations of {tenancy.current()}")


async def _in_order(session: AsyncSession) -> Sequence[AgentConfiguration]:
    query = select(AgentConfiguration).order_by(
        AgentConfiguration.rank.desc(), AgentConfiguration.name
    )
    return (await session.scalars(query)).all()


async def _next_version(
    session: AsyncSession, rows: Sequence[AgentConfiguration], now_ms: int
) -> int:
    """Return a version above all before, also above those of configurations that were removed."""
    used = await session.scalar(select(func.max(DeviceConfiguration.version)))
    refused = await session.scalar(select(func.max(DeviceConfiguration.refused_version)))
    stored = max((row.version for row in rows), default=0)
    return max(stored, used or 0, refused or 0, now_ms // 1000) + 1


def _audited(row: AgentConfiguration) -> dict[str, object]:
    return {
        "version": row.version,
        "selector": row.selector,
        "rank": row.rank,
        "settings": row.settings,
    }


def _no_configuration(name: str) -> NotFoundError:
    return NotFoundError(f"there is no configuration {name[:80]!r}")
