"""Devices in a database, and a server that commands them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from fleet_protocol.command_answers import Answer, Outcome
from fleet_protocol.commands import (
    Diagnostics,
    action_of,
    decode_command,
    decode_mailbox,
    payload_of,
)
from fleet_server.assignments.signer import AssignmentSigner
from fleet_server.assignments.signer_client import VersionTakenError
from fleet_server.clock import unix_ms
from fleet_server.commands import wiring
from fleet_server.commands.signer import SequenceNotHigherError
from fleet_server.commands.signing import SignCommand
from fleet_server.commands.tables import DeviceCommand
from fleet_server.database import Database
from fleet_server.devices import terms
from fleet_server.devices.tables import Device
from tests.unit.fleet_server.authority import Fleet
from tests.unit.fleet_server.conftest import FakeClock

DEVICES = ("cam-001", "cam-002", "cam-003")


@dataclass
class Broker:
    """Keeps what is published, as retained messages are."""

    retained: dict[str, bytes] = field(default_factory=dict)

    def publish_commands(self, device_id: str, mailbox: bytes) -> None:
        self.retained[device_id] = mailbox

    async def publish_mailboxes(self, mailboxes: AsyncIterator[tuple[str, bytes]]) -> None:
        async for device_id, mailbox in mailboxes:
            self.publish_commands(device_id, mailbox)


@dataclass
class DirectSigner:
    """The real signer without its process."""

    signer: AssignmentSigner

    async def sign_commands(self, requests: list[SignCommand]) -> list[bytes]:
        try:
            return [document.encode() for document in self.signer.commands.sign(requests)]
        except SequenceNotHigherError as error:
            raise VersionTakenError(str(error), highest=error.highest) from error


@dataclass
class World:
    database: Database
    clock: FakeClock
    signer: DirectSigner
    broker: Broker = field(default_factory=Broker)

    def server(self) -> wiring.CommandServices:
        return wiring.wired(self.database, self.clock, signer=self.signer, downlink=self.broker)

    @property
    def now_ms(self) -> int:
        return unix_ms(self.clock())

    def mailbox(self, device_id: str = DEVICES[0]) -> list[int]:
        """Return the sequences in what the broker retains."""
        envelopes = decode_mailbox(self.broker.retained[device_id]).commands
        return [decode_command(payload_of(one)).sequence for one in envelopes]

    def actions(self, device_id: str) -> list[object]:
        envelopes = decode_mailbox(self.broker.retained[device_id]).commands
        return [action_of(decode_command(payload_of(one))) for one in envelopes]

    async def order(self, *devices: str, action: object = None) -> list[DeviceCommand]:
        return await self.server().issuing.issue(
            devices=devices or DEVICES[:1],
            action=action or Diagnostics(),  # type: ignore[arg-type]
            lifetime_s=3600,
            who="ann",
        )

    def answer(self, command_id: str, outcome: Outcome = Outcome.DONE, **more: object) -> Answer:
        made = {"command_id": command_id, "outcome": outcome, "detail": "said", "ended_ms": 5}
        return Answer(**(made | more))  # type: ignore[arg-type]


@pytest.fixture
async def world(
    fleet: Fleet, database: Database, clock: FakeClock, invitations: dict[str, str]
) -> World:
    async with database.writing() as session:
        for device_id in DEVICES:
            device = Device(
                id=device_id,
                claim=invitations[device_id],
                public_key_pem="",
                public_key_sha256="",
                certificate_pem="",
                certificate_serial="",
                certificate_expires_ms=0,
                enrolled_ms=0,
                online=True,
                last_seen_ms=unix_ms(clock()),
                labels="{}",
                facts="{}",
            )
            session.add(device)
            await session.flush()
            await terms.add(session, device)
    return World(database, clock, DirectSigner(AssignmentSigner.open(fleet.data, clock)))
