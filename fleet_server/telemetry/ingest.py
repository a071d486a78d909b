"""Takes what devices send: a bounded queue, batches into the database, then acknowledgements.

A message that does not fit into the queue is dropped: the device has no acknowledgement for it and
sends it again. Nothing that a device sends ends this task.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from fleet_protocol.errors import ProtocolError
from fleet_server.errors import UnavailableError
from fleet_server.telemetry import uplink
from fleet_server.telemetry.store import Stored, TelemetryStore
from fleet_server.telemetry.uplink import Uplink

logger = logging.getLogger(__name__)

QUEUE_SIZE = 10_000
BATCH_SIZE = 500
_DATABASE_PAUSE_S = 1.0
_LOG_INTERVAL_S = 10.0


class Acknowledge(Protocol):
    """The way back to the devices."""

    def acknowledge(self, device_id: str, stream: str, sequence: int) -> None:
        """Tell a device what is committed."""


class Ingest:
    """Between the link and the store."""

    def __init__(self, store: TelemetryStore, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._queue: asyncio.Queue[Uplink | None] = asyncio.Queue(QUEUE_SIZE)
        self._complaints = Complaints(monotonic)
        self.counts: Counter[str] = Counter()

    def receive(self, topic: str, payload: bytes, retained: bool) -> None:  # noqa: FBT001 (a callback)
        """Take one message from the link; never blocks, never raises."""
        try:
            self._queue.put_nowait(uplink.decode(topic, payload, retained=retained))
        except ProtocolError as error:
            self.counts["malformed"] += 1
            self._complaints.log("uplink_malformed", topic=topic[:200], reason=str(error)[:500])
        except asyncio.QueueFull:
            self.counts["dropped"] += 1
            self._complaints.log("ingest_overloaded", topic=topic[:200])

    async def run(self, link: Acknowledge) -> None:
        """Store and acknowledge until `finish` is called and everything before it is stored."""
        while batch := await self._next_batch():
            stored = await self._stored(batch)
            self.counts.update(stored.counts)
            for (device_id, stream), sequence in stored.acks.items():
                link.acknowledge(device_id, stream, sequence)

    async def finish(self) -> None:
        """Make `run` end after what is queued now."""
        await self._queue.put(None)

    async def _stored(self, batch: list[Uplink]) -> Stored:
        while True:
            try:
                return await self._store.store(batch)
            except UnavailableError as error:
                self._complaints.log("ingest_database_failed", reason=str(error)[:500])
                await asyncio.sleep(_DATABASE_PAUSE_S)

    async def _next_batch(self) -> list[Uplink]:
        batch: list[Uplink] = []
        while len(batch) < BATCH_SIZE and not (batch and self._queue.empty()):
            message = await self._queue.get()
            if message is None:
                if batch:
                    self._queue.put_nowait(None)
                break
            batch.append(message)
        return batch


class Complaints:
    """Logs each kind of trouble at most once per interval, with how often it happened."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last: dict[str, float] = {}
        self._suppressed: Counter[str] = Counter()

    def log(self, event: str, **fields: object) -> None:
        """Log a warning, unless the same kind was logged just now."""
        now = self._monotonic()
        if now - self._last.get(event, float("-inf")) < _LOG_INTERVAL_S:
            self._suppressed[event] += 1
            return
        self._last[event] = now
        logger.warning(event, extra={**fields, "suppressed": self._suppressed.pop(event, 0)})
