"""Death of control, or of the whole device, at every durable write of an update."""

import pytest

from fleet_protocol.update_states import TRANSITIONS, UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice, Crash
from tests.simulators.device_releases import release

WRITES = range(1, 19)
"""More than an update has: the last ones prove that the test saw all of them."""

IN_FLIGHT = [
    UpdateState.DOWNLOADING,
    UpdateState.VERIFIED,
    UpdateState.TRIAL,
    UpdateState.PROBATION,
]


async def committed_to_the_first_release(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0"), release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}


async def assign_the_second(device: ControlDevice) -> None:
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))


async def reach(device: ControlDevice, state: UpdateState) -> None:
    """Bring the update to the second release into a state; a trial is seen only cut short."""
    await assign_the_second(device)
    if state is not UpdateState.TRIAL:
        await device.until(state)
        return
    await device.until(UpdateState.VERIFIED)
    device.plan.seen, device.plan.at, device.plan.after = 0, 1, True
    with pytest.raises(Crash):
        await device.step()
    device.plan.at = 0
    await device.restarted()
    assert device.record().state is state


def check_history(device: ControlDevice) -> None:
    """Every transition that the fleet learns of is one of the table, and commits come once."""
    state = UpdateState.IDLE
    states = [following for _, following in device.states() if following is not None]
    for following in states:
        assert following in TRANSITIONS[state], f"{state} -> {following} in {device.states()}"
        state = following
    assert device.states().count(("1.1.0", UpdateState.COMMITTED)) == 1


async def dies(device: ControlDevice, *, at: int, after: bool) -> bool:
    """Update until the device dies at a durable write; say whether it did."""
    device.plan.seen, device.plan.at, device.plan.after = 0, at, after
    try:
        await assign_the_second(device)
        await device.settle()
    except Crash:
        return True
    finally:
        device.plan.at = 0
    return False


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", WRITES)
async def test_control_dies_at_a_durable_write(
    device: ControlDevice, at: int, *, after: bool
) -> None:
    await committed_to_the_first_release(device)
    died = await dies(device, at=at, after=after)
    assert device.runtime.serving("animals") in {"1.0.0", "1.1.0"}
    await device.restarted()
    if died:
        await assign_the_second(device)  # the broker keeps it
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    assert device.runtime.serving("animals") == "1.1.0"
    assert device.runtime.loaded() == {"1.1.0"}
    assert len(list(device.state.blobs.iterdir())) == 2
    check_history(device)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", WRITES)
async def test_the_power_is_cut_at_a_durable_write(
    device: ControlDevice, at: int, *, after: bool
) -> None:
    await committed_to_the_first_release(device)
    died = await dies(device, at=at, after=after)
    device.runtime.boot()
    assert device.runtime.serving("animals") == device.active()["animals"]
    await device.restarted()
    if died:
        await assign_the_second(device)
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    assert device.runtime.serving("animals") == "1.1.0"
    check_history(device)


async def test_the_table_above_has_every_durable_write(device: ControlDevice) -> None:
    await committed_to_the_first_release(device)
    assert not await dies(device, at=WRITES[-1], after=False)
    assert 0 < device.plan.seen < WRITES[-1]


@pytest.mark.parametrize("state", IN_FLIGHT)
async def test_control_restarts_in_a_state(device: ControlDevice, state: UpdateState) -> None:
    await committed_to_the_first_release(device)
    await reach(device, state)
    await device.restarted()
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    check_history(device)


@pytest.mark.parametrize("state", IN_FLIGHT)
async def test_the_runtime_restarts_in_a_state(device: ControlDevice, state: UpdateState) -> None:
    await committed_to_the_first_release(device)
    await reach(device, state)
    device.runtime.boot()
    assert device.runtime.serving("animals") == "1.0.0"
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    rolled_back = ("1.1.0", UpdateState.ROLLED_BACK) in device.states()
    assert rolled_back == (state is UpdateState.PROBATION)
    check_history(device)


async def test_a_runtime_that_restarts_in_every_probation_fails_for_good(
    device: ControlDevice,
) -> None:
    await committed_to_the_first_release(device)
    await assign_the_second(device)
    for _ in range(3):
        await device.until(UpdateState.PROBATION)
        device.runtime.boot()
        await device.step()
    await device.settle()
    assert device.record().state is UpdateState.ROLLED_BACK
    assert device.record().attempts == 3
    assert device.active() == {"animals": "1.0.0"}
    assert device.runtime.serving("animals") == "1.0.0"


@pytest.mark.parametrize("state", IN_FLIGHT)
async def test_the_disk_refuses_writes_in_a_state(
    device: ControlDevice, state: UpdateState, monkeypatch: pytest.MonkeyPatch
) -> None:
    await committed_to_the_first_release(device)
    await reach(device, state)
    free = device.parts.updater._blobs._free_bytes
    monkeypatch.setattr(device.parts.updater._blobs, "_free_bytes", lambda _path: 0)
    await device.step()
    assert device.runtime.serving("animals") in {"1.0.0", "1.1.0"}
    monkeypatch.setattr(device.parts.updater._blobs, "_free_bytes", free)
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
