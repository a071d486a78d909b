"""Devices in a database, and receivers of webhooks in processes of their own."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select, update

from fleet_protocol.histogram import of_values
from fleet_protocol.messages import ErrorKind, ModelWindow, SystemWindow
from fleet_server.alerts.book import AlertBook
from fleet_server.alerts.deliveries import Deliveries
from fleet_server.alerts.loop import AlertLoop
from fleet_server.alerts.sender import Sender
from fleet_server.alerts.tables import Alert, AlertDelivery
from fleet_server.alerts.targets import TargetPolicy
from fleet_server.alerts.watch import Watch
from fleet_server.alerts.webhooks import Webhooks
from fleet_server.clock import unix_ms
from fleet_server.database import Database
from fleet_server.devices.tables import Device
from fleet_server.telemetry.tables import DeviceEvent, ModelCounts, Window
from tests.simulators.webhook_receiver import WebhookReceiver, running
from tests.unit.fleet_server.conftest import FakeClock

LOOPBACK = TargetPolicy(plain_http=True, private_addresses=True)


@dataclass
class World:
    """One fleet, and as many servers as a test makes."""

    database: Database
    clock: FakeClock
    sequence: int = 0
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = self.server()

    @property
    def now_ms(self) -> int:
        return unix_ms(self.clock())

    @property
    def book(self) -> AlertBook:
        return AlertBook(database=self.database, clock=self.clock)

    @property
    def webhooks(self) -> Webhooks:
        return Webhooks(database=self.database, clock=self.clock, policy=LOOPBACK)

    @property
    def deliveries(self) -> Deliveries:
        return Deliveries(database=self.database, clock=self.clock)

    def server(self) -> Watch:
        return Watch(database=self.database, clock=self.clock, interval_s=1)

    async def add(self, device_id: str = "cam-01", **columns: object) -> None:
        stated: dict[str, object] = {
            "public_key_pem": "",
            "public_key_sha256": "",
            "certificate_pem": "",
            "certificate_serial": "",
            "certificate_expires_ms": self.now_ms + 80 * 86_400_000,
            "enrolled_ms": 0,
            "online": True,
            "last_seen_ms": self.now_ms,
            "runtime_up": True,
            "facts": '{"runs.animals":["1.0.0"]}',
        }
        async with self.database.writing() as session:
            session.add(Device(id=device_id, **(stated | columns)))

    async def change(self, device_id: str = "cam-01", **columns: object) -> None:
        async with self.database.writing() as session:
            await session.execute(update(Device).where(Device.id == device_id).values(**columns))

    async def hear(self, device_id: str = "cam-01", **columns: object) -> None:
        await self.change(device_id, last_seen_ms=self.now_ms, **columns)

    async def window(
        self,
        device_id: str = "cam-01",
        *,
        latencies_ms: tuple[float, ...] = (5.0,) * 100,
        errors: int = 0,
        celsius: float | None = None,
    ) -> None:
        """Store a window of telemetry that ends now."""
        self.sequence += 1
        start_ms = self.now_ms - 60_000
        model = ModelWindow(
            family="animals",
            version="1.0.0",
            variant="int8",
            requests=len(latencies_ms),
            errors={ErrorKind.BACKEND: errors},
            latency_us=of_values(1000 * each for each in latencies_ms),
        )
        system = msgspec.json.encode(SystemWindow(temperature_celsius=celsius)).decode()
        window = Window(
            device_id=device_id, stream="telemetry", sequence=self.sequence,
            covers_from=self.sequence, start_ms=start_ms, end_ms=self.now_ms,
            received_ms=self.now_ms, system=system,
        )  # fmt: skip
        async with self.database.writing() as session:
            session.add(window)
            await session.flush()
            session.add(
                ModelCounts(
                    device_id=device_id, start_ms=start_ms, family="animals", version="1.0.0",
                    variant="int8", requests=model.requests, window_id=window.id,
                    counts=msgspec.json.encode(model).decode(),
                )
            )  # fmt: skip

    async def dropped(self, device_id: str = "cam-01") -> None:
        self.sequence += 1
        async with self.database.writing() as session:
            session.add(
                DeviceEvent(
                    device_id=device_id, stream="event", sequence=self.sequence,
                    at_ms=self.now_ms, received_ms=self.now_ms, kind="outbox_dropped", detail="",
                )
            )  # fmt: skip

    async def look(self, seconds: float = 0.0, *, every_s: float = 60.0) -> None:
        """Let time pass, with a server that looks at the devices."""
        while True:
            await self.watch.once()
            if seconds <= 0:
                return
            self.clock.advance(seconds=min(every_s, seconds))
            seconds -= every_s

    async def states(self) -> dict[tuple[str, str], str]:
        """Return the state of the newest alert by device and rule."""
        async with self.database.reading() as session:
            rows = await session.scalars(select(Alert).order_by(Alert.id))
            return {(row.device_id, row.rule): row.state for row in rows}

    async def queue(self) -> list[AlertDelivery]:
        async with self.database.reading() as session:
            return list(await session.scalars(select(AlertDelivery).order_by(AlertDelivery.id)))

    async def told(self) -> list[tuple[str, str]]:
        """Return what is or was on the queue: kinds and subjects."""
        return [(row.kind, json.loads(row.body)["subject"]) for row in await self.queue()]

    async def send(self, sender: Sender | None = None) -> None:
        """Send everything that is due now, as the loop of a server does."""
        made = sender or Sender(policy=LOOPBACK, clock=self.clock, timeout_s=5)
        loop = AlertLoop(watch=self.watch, deliveries=self.deliveries, sender=made, interval_s=1)
        async with made, asyncio.TaskGroup() as tasks:
            await loop.send(tasks)


@pytest.fixture
def world(database: Database, clock: FakeClock) -> World:
    return World(database, clock)


Start = Callable[..., WebhookReceiver]


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Start]:
    """Start receivers; they end with the test."""
    with ExitStack() as stack:
        yield lambda *tls: stack.enter_context(running(tmp_path / "webhooks.jsonl", *tls))
