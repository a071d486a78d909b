"""What has come from devices and is not stored yet: bounded, undecoded, in the order of arrival.

Only what a device sends again until it is acknowledged is ever turned away. Of what it says about
its state only the newest counts, so there the newer message replaces the one that waits.
"""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

from fleet_protocol.topics import Channel, Topic

MAX_MESSAGES = 10_000
MAX_BYTES = 64 * 1024 * 1024
MAX_DEVICE_BYTES = 8 * 1024 * 1024
"""The share of one device: many have to flood the server together before others wait."""

BATCH_MESSAGES = 500
BATCH_BYTES = 4 * 1024 * 1024

_SEQUENCED = frozenset({Channel.TELEMETRY, Channel.EVENT})


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came."""

    topic: Topic
    payload: bytes
    retained: bool


class Backlog:
    """Between the connection to the broker and the database."""

    def __init__(self) -> None:
        self._sequenced: deque[Arrival] = deque()
        self._states: dict[Topic, Arrival] = {}
        self._bytes: Counter[str] = Counter()
        self._total_bytes = 0
        self._taken: list[Arrival] = []
        self._changed = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._sequenced) + len(self._states)

    def add(self, arrival: Arrival) -> bool:
        """Take a message in; False if there is no room and the device has to send it again."""
        if arrival.topic.channel not in _SEQUENCED:
            self._states.pop(arrival.topic, None)
            self._states[arrival.topic] = arrival
            self._changed.set()
            return True
        device_id, size = arrival.topic.device_id, len(arrival.payload)
        if (
            len(self._sequenced) >= MAX_MESSAGES
            or self._total_bytes + size > MAX_BYTES
            or self._bytes[device_id] + size > MAX_DEVICE_BYTES
        ):
            return False
        self._sequenced.append(arrival)
        self._total_bytes += size
        self._bytes[device_id] += size
        self._changed.set()
        return True

    async def take(self) -> list[Arrival]:
        """Wait for messages and return the next ones; what was taken before is done with.

        Returns:
            Nothing once the backlog is closed and empty.
        """
        self._release()
        while not self._sequenced and not self._states and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        size = 0
        states = list(self._states)[:BATCH_MESSAGES]
        batch = [self._states.pop(topic) for topic in states]
        while self._sequenced and len(self._taken) < BATCH_MESSAGES and size < BATCH_BYTES:
            arrival = self._sequenced.popleft()
            size += len(arrival.payload)
            self._taken.append(arrival)
        return batch + self._taken

    def close(self) -> None:
        """Let `take` end after what is here now."""
        self._closed = True
        self._changed.set()

    def _release(self) -> None:
        for arrival in self._taken:
            size = len(arrival.payload)
            self._total_bytes -= size
            self._bytes[arrival.topic.device_id] -= size
            if not self._bytes[arrival.topic.device_id]:
                del self._bytes[arrival.topic.device_id]
        self._taken = []
