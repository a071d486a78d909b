"""What arrives reaches those whom it concerns, also when the disk refuses at first."""

import sqlite3

import pytest

from edge_agent.store import StoreError
from fleet_protocol.messages import Ack, EventKind, encode
from fleet_protocol.topics import Channel
from tests.simulators.control_device import DEVICE, ControlDevice


async def test_assignments_and_acknowledgements_are_delivered(device: ControlDevice) -> None:
    (message,) = await device.database.transact(device.parts.outbox.take)
    ack = Ack(stream=message.stream, sequence=message.sequence)
    device.link.arrives(Channel.ACK, encode(ack))
    device.link.arrives(Channel.ASSIGNMENT, device.director.assign(DEVICE, 1, []))
    await device.parts.inbound.deliver()
    assert [event.kind for event in device.events()] == [EventKind.ASSIGNMENT_ACCEPTED]


async def test_an_assignment_that_could_not_be_stored_is_not_lost(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.link.arrives(Channel.ASSIGNMENT, device.director.assign(DEVICE, 1, []))
    transact = device.database._transact

    def full(_work: object) -> None:
        raise StoreError("the disk is full") from sqlite3.OperationalError()

    monkeypatch.setattr(device.database, "_transact", full)
    with pytest.raises(StoreError):
        await device.parts.inbound.deliver()
    monkeypatch.setattr(device.database, "_transact", transact)
    await device.parts.inbound.deliver()
    assert len(device.events(EventKind.ASSIGNMENT_ACCEPTED)) == 1
