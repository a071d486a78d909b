"""A fleet in a database: devices read what is published to them and write their reports."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import insert, select, update
from tuf.api.metadata import Metadata, Targets

from fleet_protocol import delivery
from fleet_protocol.histogram import of_values
from fleet_protocol.messages import ErrorKind, ModelWindow
from fleet_protocol.names import parse_target_path
from fleet_server.clock import Clock, unix_ms
from fleet_server.database import Database
from fleet_server.devices import terms as device_terms
from fleet_server.devices.tables import Device as DeviceRow
from fleet_server.telemetry.tables import ModelCounts, Window
from tests.simulators.rollout_ledger import Device

FAMILY = "animals"


@dataclass
class Downlink:
    """Implements the assignments' `Downlink`: keeps what is retained for each device."""

    documents: dict[str, bytes] = field(default_factory=dict)

    def publish_assignment(self, device_id: str, document: bytes) -> None:
        self.documents[device_id] = document


@dataclass
class Fleet:
    """Devices that behave as `Device` says.

    Attributes:
        assigned: version of the family in each device's newest document; None for none.
        held: devices that may not activate yet.
        claims: with which devices enrol.
    """

    database: Database
    downlink: Downlink
    clock: Clock
    devices: dict[str, Device]
    assigned: dict[str, str | None] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    windows: int = 0
    claims: dict[str, str] = field(default_factory=dict)

    async def enroll(self) -> None:
        rows = [
            {
                "id": name,
                "claim": self.claims.get(name, ""),
                "public_key_pem": "",
                "public_key_sha256": "",
                "certificate_pem": "",
                "certificate_serial": "",
                "certificate_expires_ms": 2**52,
                "enrolled_ms": 0,
                "online": True,
            }
            for name in self.devices
        ]
        async with self.database.writing() as session:
            await session.execute(insert(DeviceRow), rows)
            for device in await session.scalars(select(DeviceRow)):
                await device_terms.add(session, device)

    async def step(self) -> None:
        """Let every device read its assignment, work, and report."""
        now_ms = unix_ms(self.clock())
        for name, document in self.downlink.documents.items():
            signed = Metadata[Targets].from_bytes(document).signed
            versions = {parse_target_path(path)[:2] for path in signed.targets}
            version = next((v for family, v in versions if family == FAMILY), None)
            device = self.devices[name]
            terms = delivery.terms_of(
                signed.unrecognized_fields, families={family for family, _ in versions}
            )
            self.assigned[name] = version
            self.held.discard(name)
            if version is not None and terms[FAMILY].activate_not_before_ms > now_ms:
                self.held.add(name)
            elif signed.version != device.assignment:
                device.tell(version, signed.version, now_ms)
        reports = {name: device.reported(now_ms) for name, device in self.devices.items()}
        rows = [
            {"id": name, "reported": msgspec.json.encode(report).decode() if report else None}
            for name, report in reports.items()
        ]
        async with self.database.writing() as session:
            await session.execute(update(DeviceRow), rows)

    async def serve(
        self, latency_us: Callable[[str, str], float], *, at_ms: int, errors: int = 0
    ) -> None:
        """Store a window of a hundred calls of every device on what it runs."""
        async with self.database.writing() as session:
            for name, device in self.devices.items():
                self.windows += 1
                center = latency_us(name, device.version)
                model = ModelWindow(
                    family=FAMILY,
                    version=device.version,
                    variant="v",
                    requests=100,
                    errors={ErrorKind.BACKEND: errors} if errors else {},
                    latency_us=of_values(center * (0.9 + 0.002 * n) for n in range(100)),
                )
                window = Window(
                    device_id=name,
                    stream="telemetry-0000000000000000",
                    sequence=self.windows,
                    covers_from=self.windows,
                    start_ms=at_ms,
                    end_ms=at_ms,
                    received_ms=at_ms,
                    system="{}",
                )
                session.add(window)
                await session.flush()
                session.add(
                    ModelCounts(
                        window_id=window.id,
                        device_id=name,
                        start_ms=at_ms,
                        family=FAMILY,
                        version=device.version,
                        variant="v",
                        requests=100,
                        counts=msgspec.json.encode(model).decode(),
                    )
                )
