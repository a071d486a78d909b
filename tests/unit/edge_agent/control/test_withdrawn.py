"""Withdrawn releases on a device: what serves goes on, nothing of them comes anew."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import ControlDevice
from tests.simulators.device_releases import release
from tests.simulators.device_repository import SimulatedRepository
from tests.simulators.director import Director

OLD = release("0.9.0", security_counter=0)
ONE = release("1.0.0", security_counter=1)
NEXT = release("1.1.0", security_counter=2)


@pytest.fixture
async def serving(
    device: ControlDevice, repository: SimulatedRepository, director: Director
) -> ControlDevice:
    """A device that has committed to 1.0.0."""
    repository.add(OLD, ONE, NEXT)
    await device.receive(director.assign("cam-01", 1, [ONE]))
    await device.settle()
    return device


def alarms(device: ControlDevice) -> tuple[str, ...]:
    situation = device.parts.observation.situation
    assert situation is not None
    return situation.alarms


async def test_what_serves_goes_on_and_is_reported_until_another_release_is_committed(
    serving: ControlDevice, repository: SimulatedRepository, director: Director
) -> None:
    repository.withdraw("1.0.0", floor=2)
    for _ in range(2):
        assert await serving.parts.freshness.check()
        await serving.restarted()
        await serving.settle()
    (told,) = serving.events(EventKind.RELEASE_WITHDRAWN)
    assert (told.family, told.version) == ("animals", "1.0.0")
    assert "mislabelled" in told.detail
    (alarm,) = alarms(serving)
    assert "still serving, assign others: animals 1.0.0 (mislabelled)" in alarm
    assert serving.runtime.serving("animals") == "1.0.0"
    await serving.receive(director.assign("cam-01", 2, [NEXT]))
    await serving.settle()
    assert serving.runtime.serving("animals") == "1.1.0"
    assert alarms(serving) == ()


async def test_a_withdrawn_release_is_not_installed(
    serving: ControlDevice, repository: SimulatedRepository, director: Director
) -> None:
    repository.withdraw("1.1.0", floor=5)
    await serving.receive(director.assign("cam-01", 2, [NEXT]))
    await serving.settle()
    assert serving.record().state is UpdateState.FAILED
    assert "1.1.0 was withdrawn by its publisher: mislabelled" in serving.record().detail
    assert serving.runtime.serving("animals") == "1.0.0"
    assert serving.floor() == 5, "the refusal itself keeps the floor"
    (alarm,) = alarms(serving)
    assert "animals 1.0.0 (its security counter 1 is below 5)" in alarm


ENDS = {UpdateState.VERIFIED: UpdateState.FAILED, UpdateState.PROBATION: UpdateState.ROLLED_BACK}
NEWS = {
    "withdrawn by its publisher: mislabelled": (("1.1.0",), 0),
    "its security counter 2 is below 5": ((), 5),
}


@pytest.mark.parametrize("reached", ENDS)
@pytest.mark.parametrize("said", NEWS)
async def test_an_update_that_is_withdrawn_on_its_way_is_not_committed(
    serving: ControlDevice,
    repository: SimulatedRepository,
    director: Director,
    reached: UpdateState,
    said: str,
) -> None:
    versions, floor = NEWS[said]
    await serving.receive(director.assign("cam-01", 2, [NEXT]))
    await serving.until(reached)
    repository.withdraw(*versions, floor=floor)
    assert await serving.parts.freshness.check()
    await serving.restarted()
    await serving.settle()
    assert serving.record().state is ENDS[reached]
    assert said in serving.record().detail
    assert serving.active() == {"animals": "1.0.0"}
    assert serving.runtime.serving("animals") == "1.0.0"


async def test_a_withdrawal_in_the_middle_of_a_download_is_not_forgotten(
    serving: ControlDevice, repository: SimulatedRepository, director: Director
) -> None:
    """What the download was told when it began is older than what the device learns meanwhile."""
    repository.faults.break_after = 4096
    await serving.receive(director.assign("cam-01", 2, [NEXT]))
    await serving.step()
    fetch = serving.parts.updater._blobs.fetch

    def meanwhile(path: str, **how: Any) -> Path:  # noqa: ANN401 (handed on)
        if path == NEXT.model_path:
            repository.withdraw("1.1.0")
            checking = serving.parts.freshness.check()
            assert asyncio.run_coroutine_threadsafe(checking, loop).result()
        return fetch(path, **how)

    loop = asyncio.get_running_loop()
    repository.faults.break_after = None
    serving.parts.updater._blobs.fetch = meanwhile  # type: ignore[method-assign, assignment]
    serving.clock.advance(60.0)
    await serving.settle()
    assert serving.record().state is UpdateState.FAILED
    assert "withdrawn by its publisher" in serving.record().detail


@pytest.mark.parametrize("lost", ["nothing", "database"])
async def test_the_floor_outlives_restart_and_database(
    serving: ControlDevice, repository: SimulatedRepository, director: Director, lost: str
) -> None:
    repository.withdraw("0.9.0", floor=3)
    assert await serving.parts.freshness.check()
    await serving.kill()
    if lost == "database":
        for path in serving.state.root.glob("state.db*"):
            path.unlink()
    serving.start()
    await serving.parts.prepare()
    assert serving.floor() == 3
    await serving.receive(director.assign("cam-01", 2, [NEXT]))
    await serving.settle()
    assert "has security counter 2, this device accepts 3 and higher" in serving.record().detail
    assert serving.runtime.serving("animals") == "1.0.0"
    safe = release("1.2.0", security_counter=3)
    repository.add(safe)
    await serving.receive(director.assign("cam-01", 3, [safe]))
    await serving.settle()
    assert serving.runtime.serving("animals") == "1.2.0"
