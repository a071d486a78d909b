"""The alarm against a freeze: judged by time that nobody else can turn."""

from datetime import timedelta

from fleet_protocol.messages import EventKind
from tests.simulators.control_device import ControlDevice
from tests.simulators.device_clock import START_MS
from tests.simulators.device_releases import release
from tests.simulators.device_repository import START, SimulatedRepository
from tests.simulators.director import Director

DAY_S = 86_400.0


def alarms(device: ControlDevice) -> tuple[str, ...]:
    situation = device.parts.observation.situation
    assert situation is not None
    return situation.alarms


async def confirmed(device: ControlDevice, repository: SimulatedRepository) -> None:
    """Let the device verify a state whose timestamp lives for a day."""
    repository.publish(timestamp_expires=START + timedelta(days=1))
    assert await device.parts.freshness.check()
    await device.step()
    assert alarms(device) == ()


async def test_a_repository_that_stands_still_raises_the_alarm_when_it_expires(
    device: ControlDevice, repository: SimulatedRepository
) -> None:
    await confirmed(device, repository)
    device.clock.advance(DAY_S - 60)
    assert await device.parts.freshness.check(), "the same state, as long as it is valid"
    await device.step()
    assert alarms(device) == ()
    device.clock.advance(120)
    assert not await device.parts.freshness.check()
    await device.step()
    (raised,) = device.events(EventKind.METADATA_STALE)
    assert "last confirmed on 2027-01-16 07:59 UTC" in raised.detail
    assert "expired on 2027-01-16 08:00 UTC, and nothing newer could be verified" in raised.detail
    assert alarms(device) == (raised.detail,)
    (refused,) = device.events(EventKind.DELIVERY_REFUSED)
    assert "timestamp.json is expired" in refused.detail
    await device.step()
    assert len(device.events(EventKind.METADATA_STALE)) == 1


async def test_the_alarm_is_over_once_something_newer_is_verified(
    device: ControlDevice, repository: SimulatedRepository
) -> None:
    await confirmed(device, repository)
    device.clock.advance(2 * DAY_S)
    await device.step()
    repository.publish()
    assert await device.parts.freshness.check()
    await device.step()
    assert alarms(device) == ()
    assert [event.detail for event in device.events(EventKind.METADATA_FRESH)] == [
        "the release repository is up to date again"
    ]


async def test_a_clock_that_is_held_still_does_not_hold_the_alarm_back(
    device: ControlDevice, repository: SimulatedRepository
) -> None:
    await confirmed(device, repository)
    for _ in range(50):
        device.clock.advance(DAY_S / 48)
        device.clock.set_wall_clock(START_MS)
        await device.step()
        await device.restarted()
    await device.step()
    assert len(device.events(EventKind.METADATA_STALE)) == 1


async def test_a_server_that_was_never_reached_raises_it_after_a_day(
    device: ControlDevice, repository: SimulatedRepository
) -> None:
    repository.faults.unreachable = True
    await device.step()
    assert not await device.parts.freshness.check()
    device.clock.advance(DAY_S - 1)
    await device.step()
    assert alarms(device) == ()
    device.clock.advance(2)
    await device.step()
    assert len(device.events(EventKind.METADATA_STALE)) == 1
    assert device.events(EventKind.DELIVERY_REFUSED) == []


async def test_an_assignment_that_is_not_renewed_raises_it(
    device: ControlDevice, repository: SimulatedRepository, director: Director
) -> None:
    one = release()
    repository.add(one)
    expires = START + timedelta(days=30)
    await device.receive(director.assign("cam-01", 7, [one], expires=expires))
    await device.settle()
    device.clock.advance(30 * DAY_S)
    repository.publish()
    assert await device.parts.freshness.check()
    await device.step()
    (raised,) = device.events(EventKind.METADATA_STALE)
    assert raised.detail.startswith("assignment 7 expired on 2027-02-14 08:00 UTC and no newer")
    assert device.runtime.serving("animals") == "1.0.0"
    await device.receive(director.assign("cam-01", 8, [one], expires=START + timedelta(days=60)))
    await device.step()
    assert alarms(device) == ()
