"""What becomes of each document that arrives."""

import threading
from datetime import timedelta

import pytest

from edge_agent.control import assignment_desk
from fleet_protocol.messages import EventKind
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release
from tests.simulators.device_repository import START


async def test_an_accepted_assignment_is_announced_once(device: ControlDevice) -> None:
    document = device.director.assign(DEVICE, 1, [release()])
    seen = device.parts.desk.accepted.count
    await device.receive(document)
    await device.receive(document)
    (event,) = device.events(EventKind.ASSIGNMENT_ACCEPTED)
    assert event.detail == "assignment 1: animals 1.0.0"
    assert device.parts.desk.accepted.count == seen + 1


@pytest.mark.parametrize("document", [b"", b"{}", b"\xff" * 100, b"x" * 300_000, b"[" * 100_000])
async def test_a_malformed_document_is_an_event_and_changes_nothing(
    device: ControlDevice, document: bytes
) -> None:
    await device.receive(device.director.assign(DEVICE, 1, []))
    await device.receive(document)
    assert len(device.events(EventKind.ASSIGNMENT_REFUSED)) == 1
    await device.receive(device.director.assign(DEVICE, 2, []))
    assert len(device.events(EventKind.ASSIGNMENT_ACCEPTED)) == 2


async def test_the_same_refused_document_is_one_event_also_after_a_restart(
    device: ControlDevice,
) -> None:
    await device.receive(b"junk")
    await device.restarted()
    await device.receive(b"junk")
    assert len(device.events(EventKind.ASSIGNMENT_REFUSED)) == 1
    await device.receive(b"other junk")
    assert len(device.events(EventKind.ASSIGNMENT_REFUSED)) == 2


async def test_turning_the_clock_back_does_not_revive_an_expired_assignment(
    device: ControlDevice,
) -> None:
    late = device.clock.now_ms() + 40 * 86_400_000
    expired = device.director.assign(DEVICE, 2, [])
    start = device.clock.now_ms()
    device.clock.set_wall_clock(late)
    month_later = START + timedelta(days=70)
    device.repository.add(release())
    await device.receive(device.director.assign(DEVICE, 1, [release()], expires=month_later))
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}
    device.clock.set_wall_clock(start)
    await device.receive(expired)
    (event,) = device.events(EventKind.ASSIGNMENT_REFUSED)
    assert "expired" in event.detail


async def test_a_clock_that_jumps_ahead_does_not_lock_the_device_out(
    device: ControlDevice,
) -> None:
    start = device.clock.now_ms()
    device.clock.set_wall_clock(start + 50 * 365 * 86_400_000)
    await device.receive(device.director.assign(DEVICE, 1, []))
    assert len(device.events(EventKind.ASSIGNMENT_REFUSED)) == 1
    device.clock.set_wall_clock(start)
    await device.receive(device.director.assign(DEVICE, 2, []))
    assert len(device.events(EventKind.ASSIGNMENT_ACCEPTED)) == 1


async def test_an_assignment_that_lives_for_weeks_does_not_set_the_clock(
    device: ControlDevice,
) -> None:
    start = device.clock.now_ms()
    device.clock.set_wall_clock(start + 25 * 86_400_000)
    await device.receive(device.director.assign(DEVICE, 1, []))
    assert len(device.events(EventKind.ASSIGNMENT_ACCEPTED)) == 1
    device.clock.set_wall_clock(start)
    soon = START + timedelta(days=7)
    await device.receive(device.director.assign(DEVICE, 2, [], expires=soon))
    assert len(device.events(EventKind.ASSIGNMENT_ACCEPTED)) == 2


async def test_a_root_that_trickles_keeps_no_assignment_back(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment_desk, "_ROOTS_WITHIN_S", 0.05)
    over, asked = threading.Event(), []

    def trickles() -> bool:
        asked.append("once")
        return over.wait(20)

    monkeypatch.setattr(device.parts.desk._roots, "refresh", trickles)
    for version in (1, 2):
        await device.receive(device.director.assign(DEVICE, version, []))
    assert not await device.parts.desk.receive(b"junk"), "it is worth another look"
    over.set()
    assert len(device.events(EventKind.ASSIGNMENT_ACCEPTED)) == 2
    assert asked == ["once"], "another one would only wait, too"
