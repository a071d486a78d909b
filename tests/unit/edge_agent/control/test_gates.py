"""The gates of a manifest on a whole device: shadowing, probation against the release before."""

import pytest

from edge_agent.runtime_api import ShadowReport
from fleet_protocol.manifest import Acceptance, Shadowing
from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_releases import release

TRIAL, PROBATION, FAILED = UpdateState.TRIAL, UpdateState.PROBATION, UpdateState.FAILED
SHADOW = Acceptance(shadow=Shadowing(requests=20, min_agreement=0.9, timeout_s=60))


async def updating(device: ControlDevice, acceptance: Acceptance, *, calls: int = 0) -> None:
    """Bring the device from its first release to the trial or probation of a second one."""
    first, second = release("1.0.0"), release("1.1.0", acceptance=acceptance)
    device.repository.add(first, second)
    await device.receive(device.director.assign(DEVICE, 1, [first]))
    await device.settle()
    device.runtime.answer_calls("animals", good=calls)
    await device.receive(device.director.assign(DEVICE, 2, [second]))
    await device.until(TRIAL if acceptance.shadow else PROBATION)


async def shadowing(device: ControlDevice) -> None:
    await updating(device, SHADOW)
    while not device.record().shadow_epoch:
        await device.step()


def said(compared: int, agreed: int, *, running_s: float = 0.0) -> list[ShadowReport]:
    return [ShadowReport(compared=compared, agreed=agreed, running_s=running_s)]


async def test_a_candidate_that_agrees_is_switched_to(device: ControlDevice) -> None:
    await shadowing(device)
    device.runtime.shadowed = said(19, 18)
    assert not await device.step()
    assert device.runtime.serving("animals") == "1.0.0"
    device.runtime.shadowed = said(20, 18)
    await device.step()
    assert device.record().state is PROBATION
    assert "18 of 20" in device.record().detail
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}
    assert device.record().attempts == 1


@pytest.mark.parametrize(
    ("compared", "agreed", "running_s"), [(20, 17, 0.0), (3, 3, 31.0)], ids=["disagrees", "hangs"]
)
async def test_a_candidate_that_does_not_is_refused_before_it_serves(
    device: ControlDevice, compared: int, agreed: int, running_s: float
) -> None:
    await shadowing(device)
    device.runtime.shadowed = said(compared, agreed, running_s=running_s)
    await device.settle()
    assert device.record().state is FAILED
    assert "live request" in device.record().detail
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.runtime.loaded() == {"1.0.0"}


@pytest.mark.parametrize(
    ("compared", "agreed", "expected"), [(0, 0, PROBATION), (3, 2, PROBATION), (8, 2, FAILED)]
)
async def test_requests_that_do_not_come_are_not_waited_for_without_end(
    device: ControlDevice, compared: int, agreed: int, expected: UpdateState
) -> None:
    await shadowing(device)
    device.runtime.shadowed = said(compared, agreed)
    device.clock.advance(59)
    await device.step()
    assert device.record().state is TRIAL
    device.clock.advance(2)
    await device.step()
    assert device.record().state is expected
    assert "20 were asked for" in device.record().detail


async def test_shadowing_survives_control_and_begins_anew_with_the_runtime(
    device: ControlDevice,
) -> None:
    await shadowing(device)
    await device.restarted()
    await device.step()
    assert device.record().attempts == 1
    for attempts in (2, 3):
        device.runtime.boot()
        await device.step()
        assert device.record().attempts == attempts
        assert device.runtime.serving("animals") == "1.0.0"
    device.runtime.boot()
    await device.settle()
    assert device.record().state is FAILED


async def test_a_first_release_has_nothing_to_shadow(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0", acceptance=SHADOW))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0", acceptance=SHADOW)]))
    await device.settle()
    assert device.active() == {"animals": "1.0.0"}


async def test_errors_are_compared_with_the_release_before(device: ControlDevice) -> None:
    await updating(device, Acceptance(max_error_rate=1.0, max_error_rate_increase=0.0), calls=500)
    device.runtime.answer_calls("animals", good=80, bad=20)
    await device.settle()
    assert device.record().state is UpdateState.ROLLED_BACK
    assert "0 of 500 before it" in device.record().detail
    assert device.runtime.serving("animals") == "1.0.0"


@pytest.mark.parametrize(("slower", "expected"), [(1.4, "1.1.0"), (2.0, "1.0.0")])
async def test_p95_is_compared_with_the_release_before(
    device: ControlDevice, slower: float, expected: str
) -> None:
    await updating(device, Acceptance(max_p95_ratio=1.5), calls=500)
    device.runtime.latency_us *= slower
    device.runtime.answer_calls("animals", good=200)
    await device.settle()
    assert device.active() == {"animals": expected}


async def test_what_could_not_be_compared_is_said_with_the_commit(device: ControlDevice) -> None:
    await updating(device, Acceptance(max_p95_ratio=1.5), calls=5)
    await device.settle()
    assert "5 calls of the previous release" in device.record().detail
    assert device.events()[-1].detail == device.record().detail


async def test_what_cannot_be_counted_is_not_switched_to(device: ControlDevice) -> None:
    device.repository.add(release("1.0.0"), release("1.1.0"))
    await device.receive(device.director.assign(DEVICE, 1, [release("1.0.0")]))
    await device.settle()
    device.runtime.counting = False
    await device.receive(device.director.assign(DEVICE, 2, [release("1.1.0")]))
    await device.until(TRIAL)
    for _ in range(60):
        await device.step()
        device.clock.advance(10)
    assert device.record().state is TRIAL
    assert "run/" in device.record().detail
    assert device.runtime.serving("animals") == "1.0.0"
    assert ("1.1.0", PROBATION) not in device.states()
    device.runtime.counting = True
    await device.settle()
    assert device.active() == {"animals": "1.1.0"}


async def test_counts_that_vanish_on_probation_roll_back_after_some_patience(
    device: ControlDevice,
) -> None:
    await updating(device, Acceptance())
    for path in device.state.run.glob("counters-*.bin"):
        path.unlink()
    device.clock.advance(device.probation_s + 1)
    await device.step()
    assert device.record().state is PROBATION
    device.clock.advance(3 * device.probation_s)
    await device.step()
    assert device.record().state is UpdateState.ROLLED_BACK
    assert device.record().retry
    assert device.runtime.serving("animals") == "1.0.0"


async def test_a_call_that_never_returns_on_probation_rolls_back(device: ControlDevice) -> None:
    await updating(device, Acceptance())
    device.runtime.running_s = {"animals 1.1.0": 31.0, "others 1.0.0": 400.0}
    await device.step()
    assert device.ended_runtimes == 1
    await device.step()
    assert device.record().state is UpdateState.ROLLED_BACK
    assert "a call of animals 1.1.0 had not ended" in device.record().detail
    assert device.runtime.serving("animals") == "1.0.0"
    (restart,) = [event for event in device.events() if event.kind == "runtime_restarted"]
    assert "had not ended after 31 s" in restart.detail


async def test_calls_of_others_that_take_long_end_nothing(device: ControlDevice) -> None:
    await updating(device, Acceptance())
    device.runtime.running_s = {"others 1.0.0": 400.0}
    await device.settle()
    assert device.ended_runtimes == 0
    assert device.active() == {"animals": "1.1.0"}
