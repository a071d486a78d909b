"""Ingest: refuses what is malformed, keeps a bounded backlog, acknowledges what is stored."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from fleet_protocol import messages
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import (
    Presence,
)
from fleet_protocol.topics import Channel, Topic
from fleet_server.database import Database
from fleet_server.devices.service import Devices
from fleet_server.errors import UnavailableError
from fleet_server.telemetry import uplink
from fleet_server.telemetry.backlog import MAX_BYTES, MAX_DEVICE_BYTES, MAX_MESSAGES
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.service import Period, Telemetry
from fleet_server.telemetry.store import Stored, TelemetryStore
from fleet_server.telemetry.uplink import Uplink
from tests.unit.fleet_server.assigning import add_devices
from tests.unit.fleet_server.conftest import FakeClock
from tests.unit.fleet_server.telemetry_messages import STREAM, window
from tests.unit.fleet_server.test_enrollment import NoConnections

EVER = Period(0, 31 * 86_400_000)
TOPIC = str(Topic("cam-1", Channel.TELEMETRY))


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> TelemetryStore:
    await add_devices(database, "cam-1", "cam-2")
    return TelemetryStore(database=database, clock=clock)


@pytest.fixture
def telemetry(database: Database) -> Telemetry:
    return Telemetry(database=database)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (TOPIC, b""),
        (TOPIC, b"{"),
        (TOPIC, b"\xff"),
        (TOPIC, b"[]"),
        (TOPIC, msgspec.json.encode(Presence(online=True))),
        (TOPIC, msgspec.json.encode(window(1)).replace(b'"schema":1', b'"schema":2')),
        (TOPIC, msgspec.json.encode(window(1, covers_from=2))),
        (TOPIC, msgspec.json.encode(msgspec.structs.replace(window(1), end_ms=0))),
        (
            TOPIC,
            msgspec.json.encode(
                msgspec.structs.replace(window(1), sequence=2**63 - 1, covers_from=1)
            ),
        ),
        (TOPIC, b" " * (messages.MAX_MESSAGE_BYTES + 1)),
        (str(Topic("cam-1", Channel.ACK)), b"{}"),
        ("skerry/v1/cam-1", b"{}"),
        ("", b"{}"),
    ],
)
def test_malformed_messages_are_refused(topic: str, payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        uplink.decode(uplink.topic_of(topic), payload, retained=False)


@dataclass
class Acks:
    sent: list[tuple[str, str, int]] = field(default_factory=list)

    def acknowledge(self, device_id: str, stream: str, sequence: int) -> None:
        self.sent.append((device_id, stream, sequence))


async def test_ingest_acknowledges_after_commit_and_ends_with_an_empty_queue(
    store: TelemetryStore, telemetry: Telemetry
) -> None:
    ingest, acks = Ingest(store, monotonic=lambda: 0.0), Acks()
    for number in range(1, 601):
        ingest.receive(TOPIC, messages.encode(window(number)), False)  # noqa: FBT003 (the signature of others)
    ingest.receive(TOPIC, b"nonsense", False)  # noqa: FBT003 (the signature of others)
    ingest.finish()
    await ingest.run(acks)
    assert acks.sent[-1] == ("cam-1", STREAM, 600)
    assert (await telemetry.totals(EVER)).windows == 600
    assert ingest.counts["malformed"] == 1


class FailingOnce(TelemetryStore):
    """A database that is locked at first."""

    failures = 1

    async def store(self, uplinks: Sequence[Uplink]) -> Stored:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("database is locked")
        return await super().store(uplinks)


async def test_ingest_waits_for_the_database(database: Database, clock: FakeClock) -> None:
    await add_devices(database, "cam-1")
    ingest, acks = (
        Ingest(FailingOnce(database=database, clock=clock), monotonic=lambda: 0.0),
        Acks(),
    )
    ingest.receive(TOPIC, messages.encode(window(1)), False)  # noqa: FBT003 (the signature of others)
    ingest.finish()
    await asyncio.wait_for(ingest.run(acks), 10)
    assert acks.sent == [("cam-1", STREAM, 1)]


def test_an_overflowing_queue_drops_and_counts(database: Database, clock: FakeClock) -> None:
    ingest = Ingest(TelemetryStore(database=database, clock=clock), monotonic=lambda: 0.0)
    payload = messages.encode(window(1))
    for _ in range(MAX_MESSAGES + 5):
        ingest.receive(TOPIC, payload, False)  # noqa: FBT003 (the signature of others)
    assert ingest.counts["dropped"] == 5


async def test_the_backlog_is_bounded_in_bytes_and_one_device_leaves_room(
    database: Database, clock: FakeClock
) -> None:
    await add_devices(database, "cam-0", "cam-1")
    ingest = Ingest(TelemetryStore(database=database, clock=clock), monotonic=lambda: 0.0)
    payload = b" " * 256 * 1024

    def send(device_id: str, content: bytes = payload) -> None:
        topic = str(Topic(device_id, Channel.TELEMETRY))
        ingest.receive(topic, content, False)  # noqa: FBT003 (the signature of others)

    share = MAX_DEVICE_BYTES // len(payload)
    for _ in range(share + 3):
        send("cam-0")
    assert ingest.counts["dropped"] == 3
    for number in range(1, MAX_BYTES // MAX_DEVICE_BYTES):
        for _ in range(share):
            send(f"cam-{number}")
    assert ingest.counts["dropped"] == 3
    send("cam-99")
    assert ingest.counts["dropped"] == 4
    ingest.receive(
        str(Topic("cam-1", Channel.PRESENCE)),
        messages.encode(Presence(online=True)),
        False,  # noqa: FBT003 (the signature of others)
    )
    assert ingest.counts["dropped"] == 4

    acks = Acks()
    running = asyncio.create_task(ingest.run(acks))
    async with asyncio.timeout(20):
        while ingest.counts["malformed"] < MAX_BYTES // len(payload):  # noqa: ASYNC110 (it runs in another thread)
            await asyncio.sleep(0.01)
        send("cam-0", messages.encode(window(1)))
        ingest.finish()
        await running
    assert acks.sent == [("cam-0", STREAM, 1)]
    devices = Devices(database=database, connections=[NoConnections()], clock=clock)
    assert (await devices.get("cam-1")).device.online
