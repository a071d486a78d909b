"""What works in this process now, for the health routes and the metrics."""

import asyncio
from typing import Protocol

from sqlalchemy import select

from fleet_server.assignments.signer_client import SignerClient
from fleet_server.database import Database
from fleet_server.errors import FleetError
from fleet_server.telemetry.mqtt_link import MqttLink


class Components(Protocol):
    """What the health routes and the metrics ask about."""

    @property
    def stopping(self) -> bool:
        """Whether the process was told to stop."""

    async def states(self) -> dict[str, bool]:
        """Say of each component of the process whether it works now."""


class ServingBroker(Protocol):
    """The broker, embedded or not."""

    @property
    def serving(self) -> bool:
        """Whether connections are accepted now."""


class ProcessComponents:
    """The parts of one process."""

    def __init__(
        self,
        *,
        database: Database,
        broker: ServingBroker,
        link: MqttLink,
        signer: SignerClient,
        stop: asyncio.Event,
    ) -> None:
        self._database = database
        self._broker = broker
        self._link = link
        self._signer = signer
        self._stop = stop

    @property
    def stopping(self) -> bool:
        """Whether the process was told to stop."""
        return self._stop.is_set()

    async def states(self) -> dict[str, bool]:
        """Say of each component whether it works now."""
        try:
            async with self._database.reading() as session:
                await session.execute(select(1))
            database = self._database.stores
        except FleetError:
            database = False
        return {
            "database": database,
            "broker": self._broker.serving,
            "ingest": self._link.connected,
            "signer": await self._signer.answers(),
        }
