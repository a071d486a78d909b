"""Updates from assignment to commit, with everything outside simulated."""

from dataclasses import replace

import pytest

from fleet_protocol.manifest import Acceptance
from fleet_protocol.messages import EventKind
from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import Release, release

GOOD_PATH = [
    UpdateState.DOWNLOADING,
    UpdateState.VERIFIED,
    UpdateState.TRIAL,
    UpdateState.PROBATION,
    UpdateState.COMMITTED,
]


async def installed(device: ControlDevice, *releases: Release, version: int = 1) -> None:
    """Publish and assign releases and let the device settle."""
    device.repository.add(*releases)
    await assigned(device, *releases, version=version)


async def assigned(device: ControlDevice, *releases: Release, version: int) -> None:
    await device.receive(device.director.assign(DEVICE, version, releases))
    await device.settle()


async def test_a_good_release_is_committed_and_serves(device: ControlDevice) -> None:
    await installed(device, release("1.0.0", security_counter=2))
    assert device.active() == {"animals": "1.0.0"}
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.states() == [("1.0.0", state) for state in GOOD_PATH]
    assert device.floor() == 2


async def test_nothing_is_committed_before_the_probation_is_over(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.until(UpdateState.PROBATION)
    device.clock.advance(device.probation_s - 0.1)
    await device.step()
    assert device.record().state is UpdateState.PROBATION
    assert device.active() == {}
    device.clock.advance(0.2)
    await device.step()
    assert device.active() == {"animals": "1.0.0"}


async def test_after_an_update_the_old_release_leaves_memory_and_disk(
    device: ControlDevice,
) -> None:
    old, new = release("1.0.0"), release("1.1.0")
    await installed(device, old)
    await installed(device, new, version=2)
    assert device.runtime.serving("animals") == "1.1.0"
    assert device.runtime.loaded() == {"1.1.0"}
    names = {path.name for path in device.state.blobs.iterdir()}
    assert names == {
        new.manifest.variants[0].sha256,
        device.record().manifest.sha256,
    }


async def test_a_wrong_model_is_refused_before_it_serves(device: ControlDevice) -> None:
    await installed(device, release("1.0.0"))
    device.runtime.models["1.1.0"] = lambda value: 3 * value
    await installed(device, release("1.1.0"), version=2)
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.runtime.loaded() == {"1.0.0"}
    assert device.active() == {"animals": "1.0.0"}
    assert device.record().state is UpdateState.FAILED
    assert "off by" in device.record().detail
    assert (("1.1.0", UpdateState.PROBATION)) not in device.states()


async def test_a_failed_release_is_not_tried_again_before_the_assignment_changes(
    device: ControlDevice,
) -> None:
    device.runtime.unloadable = {"1.0.0"}
    await installed(device, release("1.0.0"))
    before = device.states()
    device.runtime.unloadable = set()
    await device.restarted()
    await device.settle()
    assert device.states() == before
    await assigned(device, release("1.0.0"), version=2)
    assert device.active() == {"animals": "1.0.0"}


async def test_errors_of_the_backend_during_probation_roll_back(device: ControlDevice) -> None:
    await installed(device, release("1.0.0"))
    device.repository.add(release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.until(UpdateState.PROBATION)
    assert device.runtime.serving("animals") == "1.1.0"
    device.runtime.answer_calls("animals", good=10, bad=5)
    await device.settle()
    assert device.record().state is UpdateState.ROLLED_BACK
    assert "5 of 15 calls failed" in device.record().detail
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.runtime.loaded() == {"1.0.0"}


async def test_a_first_release_that_fails_on_probation_leaves_nothing_serving(
    device: ControlDevice,
) -> None:
    device.repository.add(release("1.0.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.until(UpdateState.PROBATION)
    device.runtime.answer_calls("animals", bad=5)
    await device.settle()
    assert device.runtime.serving("animals") is None
    assert device.runtime.loaded() == set()


async def test_a_candidate_that_kills_the_runtime_fails_after_three_attempts(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    device.runtime.deadly = {"1.1.0"}
    device.repository.add(release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    for _ in range(40):
        await device.step()
        if device.runtime.down:
            device.runtime.boot()
        device.clock.advance(1.0)
    assert device.record().state is UpdateState.FAILED
    assert device.record().attempts == 3
    assert device.runtime.serving("animals") == "1.0.0"


async def test_a_family_that_is_no_longer_assigned_stops(device: ControlDevice) -> None:
    await installed(device, release("1.0.0", security_counter=3))
    await assigned(device, version=2)
    assert device.active() == {}
    assert device.runtime.serving("animals") is None
    assert device.records() == {}
    assert list(device.state.blobs.iterdir()) == []
    assert device.floor() == 3
    assert device.states()[-1] == (None, UpdateState.IDLE)


async def test_going_back_to_an_older_release_of_equal_counter_is_an_ordinary_update(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    await installed(device, release("1.1.0"), version=2)
    await assigned(device, release("1.0.0"), version=3)
    assert device.active() == {"animals": "1.0.0"}


async def test_a_release_below_the_floor_is_refused(device: ControlDevice) -> None:
    await installed(device, release("1.0.0", security_counter=0))
    await installed(device, release("1.1.0", security_counter=1), version=2)
    await assigned(device, release("1.0.0", security_counter=0), version=3)
    assert device.active() == {"animals": "1.1.0"}
    assert device.record().state is UpdateState.FAILED
    assert "security counter 0" in device.record().detail


async def test_a_new_assignment_supersedes_an_update_under_way(device: ControlDevice) -> None:
    await installed(device, release("1.0.0"))
    device.repository.add(release("1.1.0"), release("1.2.0"))
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.until(UpdateState.PROBATION)
    await assigned(device, release("1.2.0"), version=3)
    assert ("1.1.0", UpdateState.ROLLED_BACK) in device.states()
    assert device.active() == {"animals": "1.2.0"}


async def test_pulling_a_release_back_during_its_probation_restores_the_old_one(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    device.repository.add(release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.until(UpdateState.PROBATION)
    await assigned(device, release("1.0.0"), version=3)
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.active() == {"animals": "1.0.0"}


async def test_a_server_that_is_away_is_waited_for(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0"))
    device.repository.faults.unreachable = True
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    for _ in range(20):
        await device.step()
        device.clock.advance(1.0)
    assert device.record().state is UpdateState.DOWNLOADING
    assert device.record().attempts == 0
    assert "away" in device.record().detail
    device.repository.faults.unreachable = False
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}


async def test_a_full_disk_is_waited_for(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0"))
    blobs = device.parts.updater._blobs
    free, blobs._free_bytes = blobs._free_bytes, lambda _path: 1000
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    for _ in range(20):
        await device.step()
        device.clock.advance(1.0)
    assert device.record().state is UpdateState.DOWNLOADING
    assert device.record().attempts == 0
    assert "the disk is too full" in device.record().detail
    blobs._free_bytes = free
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}


async def test_bytes_that_are_not_the_signed_ones_fail_after_three_attempts(
    device: ControlDevice,
) -> None:
    one = release("1.0.0")
    device.repository.add(one)
    device.repository.faults.content["model.onnx"] = b"x" * len(one.model)
    await device.receive(device.director.assign(DEVICE, 1, [one]))
    await device.settle()
    assert device.record().state is UpdateState.FAILED
    assert "SHA-256" in device.record().detail
    assert one.manifest.variants[0].sha256 not in {p.name for p in device.state.blobs.iterdir()}


async def test_a_manifest_that_the_publisher_did_not_sign_is_not_installed(
    device: ControlDevice,
) -> None:
    device.repository.add(release("1.0.0"))
    forged = release("1.0.0", model=b"evil")
    await device.receive(device.director.assign(DEVICE, 1, [forged]))
    await device.settle()
    assert device.record().state is UpdateState.FAILED
    assert "disagree" in device.record().detail
    assert device.runtime.calls.count("load") == 0


async def test_a_release_that_needs_other_hardware_is_refused(device: ControlDevice) -> None:
    await installed(device, release("1.0.0", accelerators=["edgetpu"]))
    assert device.record().state is UpdateState.FAILED
    assert "edgetpu" in device.record().detail


async def test_a_release_that_does_not_fit_into_memory_is_not_loaded(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0", memory_bytes=2**60))
    assert device.record().state is UpdateState.FAILED
    assert "bytes of memory, this device has" in device.record().detail
    assert device.runtime.calls.count("load") == 0


async def test_an_expired_assignment_installs_nothing_and_stops_nothing(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    device.repository.add(release("1.1.0"))
    device.repository.faults.unreachable = True
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.step()
    device.clock.advance(40 * 86400)
    device.repository.faults.unreachable = False
    for _ in range(10):
        await device.step()
        device.clock.advance(1.0)
    assert device.record().state is UpdateState.DOWNLOADING
    assert device.runtime.serving("animals") == "1.0.0"


async def test_a_damaged_active_set_is_restored_from_the_journal(device: ControlDevice) -> None:
    await installed(device, release("1.0.0"))
    device.state.active_set.write_bytes(b"{")
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}


async def test_a_missing_active_set_is_restored_and_stops_nothing(device: ControlDevice) -> None:
    one = release("1.0.0")
    await installed(device, one)
    device.state.active_set.unlink()
    before = device.states()
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.runtime.calls.count("stop_family") == 0
    assert device.states() == before
    assert device.state.blob(one.manifest.variants[0].sha256).exists()


async def test_a_whole_release_that_did_not_load_is_served_without_a_download(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    before = device.states()
    device.runtime.unloadable = {"1.0.0"}
    device.runtime.boot()
    await device.settle()
    assert device.runtime.serving("animals") is None
    tries = device.runtime.calls.count("load")
    device.runtime.unloadable = set()
    device.repository.faults.unreachable = True
    device.clock.advance(10.0)
    await device.settle()
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.states() == before
    assert 2 <= tries < 20


async def test_the_file_of_a_committed_release_is_never_collected(device: ControlDevice) -> None:
    one = release("1.0.0")
    await installed(device, one)
    situation = device.parts.observation.situation
    assert situation is not None
    device.parts.updater._tidy = False
    await device.parts.updater._collect(replace(situation, active={}))
    assert device.state.blob(one.manifest.variants[0].sha256).exists()


async def test_two_families_are_updated_beside_each_other(device: ControlDevice) -> None:
    one = release("1.0.0")
    await installed(device, one)
    # The repository delegates one family only: the other one cannot come from it.
    other = release("1.0.0", family="plants")
    device.repository.add(release("1.1.0"))
    await assigned(device, release("1.1.0"), other, version=2)
    assert device.active() == {"animals": "1.1.0"}
    assert device.record("plants").state is UpdateState.FAILED


async def test_a_republished_version_with_other_content_is_refused(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    await installed(device, release("1.0.0", model=b"other"), version=2)
    assert device.record().state is UpdateState.FAILED
    assert "a version never changes" in device.record().detail
    assert device.runtime.serving("animals") == "1.0.0"


async def test_a_slow_candidate_is_refused(device: ControlDevice) -> None:
    limits = Acceptance(max_p95_latency_ms=0.000001)
    await installed(device, release("1.0.0", acceptance=limits))
    assert device.record().state is UpdateState.FAILED
    assert "p95" in device.record().detail


async def test_a_restart_of_the_runtime_is_an_event(device: ControlDevice) -> None:
    await installed(device, release("1.0.0"))
    assert device.events(EventKind.RUNTIME_RESTARTED) == []
    device.runtime.boot()
    await device.settle()
    assert len(device.events(EventKind.RUNTIME_RESTARTED)) == 1
    assert device.runtime.serving("animals") == "1.0.0"


async def test_a_runtime_that_hangs_on_probation_is_ended_and_rolled_back(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    device.repository.add(release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.until(UpdateState.PROBATION)
    device.runtime.down = True
    for _ in range(40):
        await device.step()
        device.clock.advance(1.0)
        if not device.runtime.down:
            break
    assert device.ended_runtimes == 1
    await device.step()
    assert device.runtime.serving("animals") == "1.0.0"
    assert ("1.1.0", UpdateState.ROLLED_BACK) in device.states()


async def test_the_runtime_is_not_ended_when_no_candidate_is_at_stake(
    device: ControlDevice,
) -> None:
    await installed(device, release("1.0.0"))
    device.runtime.down = True
    for _ in range(40):
        await device.step()
        device.clock.advance(2.0)
    assert device.ended_runtimes == 0


@pytest.mark.parametrize("leftover", ["0" * 64, "1" * 64 + ".part"])
async def test_blobs_that_nothing_refers_to_are_collected(
    device: ControlDevice, leftover: str
) -> None:
    (device.state.blobs / leftover).write_bytes(b"x")
    await installed(device, release("1.0.0"))
    assert leftover not in {path.name for path in device.state.blobs.iterdir()}
