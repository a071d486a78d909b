"""Groups: saved selectors. Membership is asked each time, so it follows labels and facts."""

from collections.abc import Sequence

from sqlalchemy import select

from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_server import keyset, tenancy
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database, take_turn
from fleet_server.devices import selector
from fleet_server.devices.tables import DeviceGroup
from fleet_server.errors import NotFoundError, RefusedError


class Groups:
    """The groups of one database."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def page(self, *, after: str | None, limit: int) -> Sequence[DeviceGroup]:
        """Return up to ``limit`` groups whose names come after ``after``.

        Raises:
            UnavailableError: the database failed.
        """
        query = keyset.page(select(DeviceGroup), DeviceGroup.name, after=after, limit=limit)
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def get(self, name: str) -> DeviceGroup:
        """Return one group.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            group = await session.get(DeviceGroup, (tenancy.current(), name))
        if group is None:
            raise _no_group(name)
        return group

    async def put(self, name: str, *, selector_text: str, description: str) -> DeviceGroup:
        """Make a group, or change what it selects.

        Raises:
            RefusedError: the name is malformed.
            SelectorError: the selector cannot be read.
            UnavailableError: the database failed.
        """
        try:
            names.family(name)
        except ProtocolError as error:
            raise RefusedError(
                f"{name[:80]!r} cannot name a group: use 1 to 64 of a-z, 0-9, hyphens, underscores"
            ) from error
        group = DeviceGroup(
            tenant=tenancy.current(),
            name=name,
            selector=str(selector.parse(selector_text)),
            description=description,
            changed_ms=unix_ms(self._clock()),
        )
        async with self._database.writing() as session:
            await take_turn(session, f"group {name} of {group.tenant}")
            await session.merge(group)
        return group

    async def delete(self, name: str) -> None:
        """Remove a group; its devices stay as they are.

        Raises:
            NotFoundError: there is none of that name.
            UnavailableError: the database failed.
        """
        async with self._database.writing() as session:
            key = (tenancy.current(), name)
            group = await session.get(DeviceGroup, key, with_for_update=True)
            if group is None:
                raise _no_group(name)
            await session.delete(group)  # by its row, so that the audit trail has what it was


def _no_group(name: str) -> NotFoundError:
    return NotFoundError(f"there is no group {name[:80]!r}")
