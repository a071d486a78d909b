"""The reported state: the truth about what serves and where updates stand."""

import pytest

from edge_agent.control.observation import reported
from edge_agent.store import DiskFullError
from fleet_protocol.messages import Capabilities, Reported, decode
from fleet_protocol.topics import Channel
from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release


def state_of(device: ControlDevice) -> Reported:
    situation = device.parts.observation.situation
    assert situation is not None
    capabilities = Capabilities(machine="m", cpu_count=1)
    return reported(
        situation,
        at_ms=1,
        agent_version="1",
        capabilities=capabilities,
        troubles=device.parts.observation.troubles,
    )


async def install(device: ControlDevice, version: str, number: int) -> None:
    device.repository.add(release(version))
    await device.receive(device.director.assign(DEVICE, number, [release(version)]))


async def test_a_committed_release_is_reported_as_such(device: ControlDevice) -> None:
    await install(device, "1.0.0", 4)
    await device.settle()
    state = state_of(device)
    assert state.assignment_version == 4
    assert state.runtime_up
    assert [(m.version, m.committed) for m in state.running] == [("1.0.0", True)]
    assert [(u.version, u.state) for u in state.updates] == [("1.0.0", UpdateState.COMMITTED)]


async def test_on_probation_the_candidate_runs_uncommitted(device: ControlDevice) -> None:
    await install(device, "1.0.0", 1)
    await device.until(UpdateState.PROBATION)
    await device.step()
    state = state_of(device)
    assert [(m.version, m.committed) for m in state.running] == [("1.0.0", False)]
    assert [u.state for u in state.updates] == [UpdateState.PROBATION]


async def test_a_failure_is_reported_with_its_reason_until_the_assignment_changes(
    device: ControlDevice,
) -> None:
    await install(device, "1.0.0", 1)
    await device.settle()
    device.runtime.unloadable = {"1.1.0"}
    await install(device, "1.1.0", 2)
    await device.settle()
    (update,) = state_of(device).updates
    assert (update.version, update.state) == ("1.1.0", UpdateState.FAILED)
    assert update.detail == "this is not a model"
    await install(device, "1.0.0", 3)
    await device.settle()
    (update,) = state_of(device).updates
    assert (update.version, update.state) == ("1.0.0", UpdateState.COMMITTED)


async def test_a_runtime_that_is_away_is_reported(device: ControlDevice) -> None:
    await install(device, "1.0.0", 1)
    await device.settle()
    device.runtime.down = True
    await device.step()
    state = state_of(device)
    assert not state.runtime_up
    assert state.running == []


async def test_a_committed_release_that_does_not_serve_is_not_reported_as_such(
    device: ControlDevice,
) -> None:
    await install(device, "1.0.0", 1)
    await device.settle()
    device.runtime.down = True
    await device.step()
    (update,) = state_of(device).updates
    assert update.state is UpdateState.IDLE
    assert "does not answer" in update.detail
    device.runtime.unloadable = {"1.0.0"}
    device.runtime.boot()
    await device.settle()
    (update,) = state_of(device).updates
    assert update.state is UpdateState.FAILED
    assert "this is not a model" in update.detail
    device.runtime.unloadable = set()
    device.clock.advance(10.0)
    await device.settle()
    (update,) = state_of(device).updates
    assert (update.state, update.detail) == (UpdateState.COMMITTED, "")


async def test_an_expired_assignment_says_why_nothing_happens(device: ControlDevice) -> None:
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    device.clock.advance(40 * 86_400)
    await device.step()
    (update,) = state_of(device).updates
    assert update.state is UpdateState.IDLE
    assert "expired" in update.detail


async def test_only_a_change_is_a_reason_to_report(device: ControlDevice) -> None:
    await install(device, "1.0.0", 1)
    await device.settle()
    seen = device.parts.observation.changed.count
    await device.step()
    await device.step()
    assert device.parts.observation.changed.count == seen
    device.runtime.boot()
    await device.step()
    assert device.parts.observation.changed.count > seen


async def test_the_report_keeps_the_backends_of_a_runtime_that_is_away(
    device: ControlDevice,
) -> None:
    device.link.connect()
    await device.step()
    device.parts.reporter._report()
    device.runtime.down = True
    await device.step()
    device.parts.reporter._report()
    reports = [decode(p, Reported) for c, p in device.link.published if c is Channel.REPORTED]
    assert [r.runtime_up for r in reports] == [True, False]
    assert reports[1].capabilities.backends == {"onnxruntime": "1.0"}


async def test_what_a_full_disk_keeps_out_of_the_journal_is_reported_all_the_same(
    device: ControlDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal lies on the disk that is full."""
    await install(device, "1.0.0", 1)
    await device.settle()
    await install(device, "2.0.0", 2)

    async def refuses(*_arguments: object, **_named: object) -> None:
        raise DiskFullError("the database of the device refused a write: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(device.parts.updater._ledger, "begin", refuses)
        await device.step()
        troubles = device.parts.observation.troubles
        assert "disk is full" in troubles["animals"]
        (update,) = state_of(device).updates
        assert "disk is full" in update.detail
        device.clock.advance(5.0)
    await device.settle()
    assert device.parts.observation.troubles == {}
    (update,) = state_of(device).updates
    assert (update.state, update.detail) == (UpdateState.COMMITTED, "")
