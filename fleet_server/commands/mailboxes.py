"""Mailboxes: the open commands of a device as they travel, to the broker and over HTTPS."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleet_protocol.commands import MAX_OPEN, Envelope, Mailbox
from fleet_server.clock import Clock, unix_ms
from fleet_server.commands.states import CommandState
from fleet_server.commands.tables import DeviceCommand
from fleet_server.database import Database

_PAGE = 500


class Downlink(Protocol):
    """The way to the devices."""

    def publish_commands(self, device_id: str, mailbox: bytes) -> None:
        """Publish a mailbox, retained; while the link is down it waits for the next one."""

    async def publish_mailboxes(self, mailboxes: AsyncIterator[tuple[str, bytes]]) -> None:
        """Publish many, as fast as the broker takes them."""


class Mailboxes:
    """The mailboxes of one database."""

    def __init__(self, *, database: Database, downlink: Downlink, clock: Clock) -> None:
        self._database = database
        self._downlink = downlink
        self._clock = clock

    async def of(self, device_id: str) -> bytes:
        """Return the mailbox of a device.

        Raises:
            UnavailableError: the database failed.
        """
        async with self._database.reading() as session:
            return (await self._read(session, [device_id]))[device_id]

    async def filled(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the mailbox of every device that has an open command.

        Raises:
            UnavailableError: the database failed.
        """
        after = ""
        while True:
            query = (
                select(DeviceCommand.device_id)
                .where(DeviceCommand.state == CommandState.OPEN, DeviceCommand.device_id > after)
                .distinct()
                .order_by(DeviceCommand.device_id)
                .limit(_PAGE)
            )
            async with self._database.reading() as session:
                ids = list(await session.scalars(query))
                found = await self._read(session, ids)
            for device_id in ids:
                yield device_id, found[device_id]
            if len(ids) < _PAGE:
                return
            after = ids[-1]

    async def publish(self, device_ids: Sequence[str]) -> None:
        """Publish the mailboxes of some devices as they are now.

        Raises:
            UnavailableError: the database failed.
        """
        for start in range(0, len(device_ids), _PAGE):
            async with self._database.reading() as session:
                found = await self._read(session, device_ids[start : start + _PAGE])
            for device_id, mailbox in found.items():
                self._downlink.publish_commands(device_id, mailbox)
            await asyncio.sleep(0)  # let others have the loop

    async def publish_filled(self) -> None:
        """Publish every mailbox with an open command: the broker may have forgotten them.

        Raises:
            UnavailableError: the database failed.
            TimeoutError: the broker takes none.
        """
        await self._downlink.publish_mailboxes(self.filled())

    async def _read(self, session: AsyncSession, device_ids: Sequence[str]) -> dict[str, bytes]:
        query = (
            select(DeviceCommand.device_id, DeviceCommand.document)
            .where(
                DeviceCommand.device_id.in_(device_ids),
                DeviceCommand.state == CommandState.OPEN,
                DeviceCommand.expires_ms > unix_ms(self._clock()),
            )
            .order_by(DeviceCommand.device_id, DeviceCommand.sequence)
        )
        found: dict[str, list[Envelope]] = {device_id: [] for device_id in device_ids}
        for device_id, document in await session.execute(query):
            found[device_id].append(msgspec.json.decode(document, type=Envelope))
        return {
            device_id: msgspec.json.encode(Mailbox(commands=envelopes[:MAX_OPEN]))
            for device_id, envelopes in found.items()
        }
