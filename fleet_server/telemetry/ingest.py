"""Takes what devices send: a bounded backlog, batches into the database, then acknowledgements.

A window or event that does not fit into the backlog is dropped: the device has no acknowledgement
for it and sends it again. Nothing that a device sends ends this task.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from fleet_protocol.errors import ProtocolError
from fleet_server.complaints import Complaints
from fleet_server.errors import UnavailableError
from fleet_server.telemetry import uplink
from fleet_server.telemetry.backlog import Arrival, Backlog
from fleet_server.telemetry.store import Stored, TelemetryStore
from fleet_server.telemetry.uplink import Uplink

_DATABASE_PAUSE_S = 1.0


class Acknowledge(Protocol):
    """The way back to the devices."""

    def acknowledge(self, device_id: str, stream: str, sequence: int) -> None:
        """Tell a device what is committed."""


class Ingest:
    """Between the link and the store."""

    def __init__(self, store: TelemetryStore, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._backlog = Backlog()
        self._complaints = Complaints(monotonic)
        self.counts: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many messages wait for the database."""
        return len(self._backlog)

    def receive(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 (a callback)
        """Take one message from the link; never blocks, never raises."""
        try:
            arrival = Arrival(uplink.topic_of(topic), payload, retained)
        except ProtocolError as error:
            self._malformed(topic, error)
            return
        if not self._backlog.add(arrival):
            self.counts["dropped"] += 1
            self._complaints.log("ingest_overloaded", topic=topic[:200])

    async def run(self, link: Acknowledge) -> None:
        """Store and acknowledge until `finish` is called and everything before it is stored."""
        while arrivals := await self._backlog.take():
            batch = self._decoded(arrivals)
            if not batch:
                continue
            stored = await self._stored(batch)
            self.counts.update(stored.counts)
            for (device_id, stream), sequence in stored.acks.items():
                link.acknowledge(device_id, stream, sequence)

    def finish(self) -> None:
        """Make `run` end after what is queued now."""
        self._backlog.close()

    async def _stored(self, batch: list[Uplink]) -> Stored:
        while True:
            try:
                return await self._store.store(batch)
            except UnavailableError as error:
                self._complaints.log("ingest_database_failed", reason=str(error)[:500])
                await asyncio.sleep(_DATABASE_PAUSE_S)

    def _decoded(self, arrivals: list[Arrival]) -> list[Uplink]:
        batch: list[Uplink] = []
        for arrival in arrivals:
            try:
                batch.append(
                    uplink.decode(arrival.topic, arrival.payload, retained=arrival.retained)
                )
            except ProtocolError as error:
                self._malformed(str(arrival.topic), error)
        return batch

    def _malformed(self, topic: str, error: ProtocolError) -> None:
        self.counts["malformed"] += 1
        self._complaints.log("uplink_malformed", topic=topic[:200], reason=str(error)[:500])
