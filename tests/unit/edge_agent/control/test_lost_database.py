"""What a device still knows when its ``state.db`` was damaged and moved away."""

import pytest

from fleet_protocol.messages import EventKind
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release
from tests.unit.edge_agent.control.test_telemetry import windows


@pytest.fixture
async def serving(device: ControlDevice) -> ControlDevice:
    """A device that serves a release of security counter 2, assigned in version 5."""
    one = release("1.1.0", security_counter=2)
    device.repository.add(one)
    await device.receive(device.director.assign(DEVICE, 5, [one]))
    await device.settle()
    return device


async def lose_database(device: ControlDevice) -> None:
    await device.kill()
    for path in device.state.root.glob("state.db*"):
        path.unlink()
    device.start()
    await device.parts.prepare()


async def test_what_the_living_runtime_counted_is_not_counted_again(
    serving: ControlDevice,
) -> None:
    serving.runtime.answer_calls("animals", good=5)
    await serving.parts.telemetry.close_window()
    await lose_database(serving)
    serving.runtime.answer_calls("animals", good=2)
    await serving.parts.telemetry.close_window()
    assert [m.requests for w in windows(serving) for m in w.models] == [2]


async def test_the_fleet_is_told_once(serving: ControlDevice) -> None:
    await lose_database(serving)
    await serving.restarted()
    (event,) = serving.events()
    assert event.kind is EventKind.OUTBOX_DROPPED
    assert "new state.db" in event.detail


async def test_a_new_device_has_lost_nothing(device: ControlDevice) -> None:
    assert [event.kind for event in device.events()] == [EventKind.ENROLLED]


async def test_floors_stay(serving: ControlDevice) -> None:
    await lose_database(serving)
    assert serving.floor() == 2
    old = release("1.0.0", security_counter=1)
    serving.repository.add(old)
    await serving.receive(serving.director.assign(DEVICE, 6, [old]))
    await serving.settle()
    assert serving.runtime.serving("animals") == "1.1.0"
    assert "security counter 1" in serving.record().detail


@pytest.mark.parametrize(("version", "accepted"), [(4, 0), (5, 0), (6, 1)])
async def test_an_older_assignment_stays_refused(
    serving: ControlDevice, version: int, accepted: int
) -> None:
    await lose_database(serving)
    await serving.receive(serving.director.assign(DEVICE, version, []))
    assert len(serving.events(EventKind.ASSIGNMENT_ACCEPTED)) == accepted
    assert len(serving.events(EventKind.ASSIGNMENT_REFUSED)) == 1 - accepted


async def test_the_same_assignment_is_accepted_again(serving: ControlDevice) -> None:
    await serving.restarted()  # the copy outlives restarts of the agent too
    document = serving.director.assign(DEVICE, 6, [release("1.1.0", security_counter=2)])
    await serving.receive(document)
    await lose_database(serving)
    await serving.receive(document)
    assert len(serving.events(EventKind.ASSIGNMENT_ACCEPTED)) == 1
    assert serving.events(EventKind.ASSIGNMENT_REFUSED) == []


async def test_a_damaged_copy_is_written_anew(serving: ControlDevice) -> None:
    serving.state.high_water.write_bytes(b"{")
    await serving.restarted()
    await lose_database(serving)
    assert serving.floor() == 2


async def test_the_model_goes_on_serving(serving: ControlDevice) -> None:
    one = release("1.1.0", security_counter=2)
    await lose_database(serving)
    await serving.settle()
    assert serving.runtime.serving("animals") == "1.1.0"
    await serving.receive(serving.director.assign(DEVICE, 5, [one]))
    await serving.settle()
    assert serving.runtime.serving("animals") == "1.1.0"
    assert serving.active() == {"animals": "1.1.0"}
    assert serving.runtime.calls.count("stop_family") == 0
