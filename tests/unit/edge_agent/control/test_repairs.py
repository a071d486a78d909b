"""Damaged files of committed releases: fetched anew, whatever else goes on, and never given up."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState
from tests.simulators.bad_sectors import unreadable
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release

ONE, NEXT = release("1.0.0"), release("1.1.0")


@pytest.fixture
async def serving(device: ControlDevice) -> ControlDevice:
    """A device that has committed to 1.0.0; 1.1.0 is published."""
    device.repository.add(ONE, NEXT)
    await device.receive(device.director.assign(DEVICE, 1, [ONE]))
    await device.settle()
    return device


def blob(device: ControlDevice) -> Path:
    return device.state.blob(ONE.manifest.variants[0].sha256)


def alarms(device: ControlDevice) -> str:
    situation = device.parts.observation.situation
    assert situation is not None
    return "; ".join(situation.alarms)


async def steps(device: ControlDevice, count: int = 30) -> None:
    for _ in range(count):
        await device.step()
        device.clock.advance(1.0)


def gone(path: Path) -> None:
    path.unlink()


def rotten(path: Path) -> None:
    path.write_bytes(b"x" * len(ONE.model))


@pytest.mark.parametrize("damage", [gone, rotten])
async def test_it_is_fetched_and_served_as_often_as_it_takes(
    serving: ControlDevice, damage: Callable[[Path], None]
) -> None:
    before = serving.states()
    for _ in range(3):
        damage(blob(serving))
        serving.runtime.boot()
        await steps(serving, 6)
        assert blob(serving).read_bytes() == ONE.model
        assert serving.runtime.serving("animals") == "1.0.0"
    assert len(serving.events(EventKind.MODEL_DAMAGED)) == 3
    assert len(serving.events(EventKind.MODEL_REPAIRED)) == 3
    assert alarms(serving) == ""
    assert serving.states() == before, "a repair is no update"


async def test_rotten_bytes_are_found_once_per_life_of_the_runtime(serving: ControlDevice) -> None:
    rotten(blob(serving))
    await steps(serving, 6)
    assert serving.events(EventKind.MODEL_DAMAGED) == []
    serving.runtime.boot()
    await steps(serving, 6)
    assert len(serving.events(EventKind.MODEL_DAMAGED)) == 1


async def test_a_bad_sector_is_replaced_by_another_copy(serving: ControlDevice) -> None:
    with unreadable(blob(serving)):
        serving.repository.faults.unreachable = True
        serving.runtime.boot()
        await steps(serving)
        assert serving.runtime.serving("animals") is None
        assert blob(serving).exists(), "the only copy stays until there is another one"
        (told,) = serving.events(EventKind.MODEL_DAMAGED)
        assert "the file of animals 1.0.0 cannot be read (Input/output error)" in told.detail
        assert "in vain so far: the simulated server is away" in alarms(serving)
        serving.repository.faults.unreachable = False
        await steps(serving)
        assert blob(serving).read_bytes() == ONE.model
        assert serving.runtime.serving("animals") == "1.0.0"
    assert {path.suffix for path in serving.state.blobs.iterdir()} == {""}


async def test_an_error_that_passes_costs_nothing(serving: ControlDevice) -> None:
    """The disk reads it again: it serves without a server and without a byte."""
    serving.repository.faults.unreachable = True
    with unreadable(blob(serving)):
        serving.runtime.boot()
        await steps(serving, 5)
        assert len(serving.events(EventKind.MODEL_DAMAGED)) == 1
    await steps(serving)
    assert serving.runtime.serving("animals") == "1.0.0"
    assert len(serving.events(EventKind.MODEL_REPAIRED)) == 1


async def test_a_repair_that_failed_is_tried_again_with_pauses(serving: ControlDevice) -> None:
    serving.repository.faults.content["model.onnx"] = b"x" * len(ONE.model)
    gone(blob(serving))
    serving.runtime.boot()
    asked = len(serving.repository.requests)
    await steps(serving, 60)
    assert 2 <= len(serving.repository.requests) - asked < 80
    assert "has SHA-256" in serving.events(EventKind.DELIVERY_REFUSED)[0].detail
    serving.repository.faults.content.clear()
    await steps(serving)
    assert serving.runtime.serving("animals") == "1.0.0"


async def wrong(device: ControlDevice) -> None:
    device.runtime.models["1.1.0"] = lambda value: 3 * value
    await device.receive(device.director.assign(DEVICE, 2, [NEXT]))
    await device.settle()
    assert device.record().state is UpdateState.FAILED


async def on_its_way(device: ControlDevice) -> None:
    device.repository.faults.too_slow = "1.1.0/"
    await device.receive(device.director.assign(DEVICE, 2, [NEXT]))
    await steps(device, 3)
    assert device.record().state is UpdateState.DOWNLOADING


async def on_probation(device: ControlDevice) -> None:
    await device.receive(device.director.assign(DEVICE, 2, [NEXT]))
    await device.until(UpdateState.PROBATION)


async def withdrawn(device: ControlDevice) -> None:
    device.repository.withdraw("1.0.0", floor=5)
    assert await device.parts.freshness.check()


async def expired(device: ControlDevice) -> None:
    device.clock.advance(40 * 86400)


@pytest.mark.parametrize("meanwhile", [wrong, on_its_way, on_probation, withdrawn, expired])
async def test_it_is_repaired_whatever_else_goes_on(
    serving: ControlDevice, meanwhile: Callable[[ControlDevice], object]
) -> None:
    """What was committed serves until another release is; its repair waits for nobody."""
    await meanwhile(serving)  # type: ignore[misc]
    blob(serving).unlink()
    await serving.step()
    assert blob(serving).read_bytes() == ONE.model
    if meanwhile is not on_probation:
        serving.runtime.boot()
        await steps(serving, 3)
        assert serving.runtime.serving("animals") == "1.0.0"


async def test_a_runtime_that_computes_with_rotten_bytes_loads_them_anew(
    serving: ControlDevice,
) -> None:
    serving.runtime.models["1.0.0"] = lambda value: value + 1
    stop = serving.runtime.stop_family

    def stopped(family: str) -> None:
        stop(family)
        serving.runtime.models.clear()

    serving.runtime.stop_family = stopped  # type: ignore[method-assign]
    rotten(blob(serving))
    serving.runtime.boot()
    await steps(serving, 6)
    assert serving.runtime.calls.count("stop_family") == 1
    assert serving.runtime.serving("animals") == "1.0.0"
