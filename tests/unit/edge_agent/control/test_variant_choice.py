"""Which variant of a release a device runs, and that it survives whatever happens meanwhile."""

import pytest

from edge_agent.control.active_set import ActiveSetFile
from edge_agent.control.contest import winner
from edge_agent.runtime_api import ActiveRelease
from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice, Crash
from tests.simulators.device_releases import Release, release, with_more_variants


@pytest.fixture(autouse=True)
def measured(device: ControlDevice) -> None:
    """Let calls take their time: int8 is the fastest, fp16 the slowest."""
    device.runtime.clock = device.clock
    device.runtime.durations_s = {"fp32": 0.004, "int8": 0.001, "fp16": 0.009}


def several(version: str = "1.0.0") -> Release:
    return with_more_variants(release(version), "int8", "fp16")


async def install(device: ControlDevice, wanted: Release, version: int = 1) -> None:
    device.repository.add(wanted)
    await device.receive(device.director.assign(DEVICE, version, [wanted]))
    await device.settle()


def active(device: ControlDevice) -> ActiveRelease:
    return ActiveSetFile(device.state.active_set).read()["animals"]


async def test_the_fastest_variant_wins_and_the_choice_is_told(device: ControlDevice) -> None:
    await install(device, several())
    chosen = active(device)
    assert chosen.variant == "int8"
    assert chosen.choice.startswith("int8 on cpu 1.00 ms a run, fp32 on cpu 4.00 ms, fp16 on cpu")
    assert device.runtime.loaded() == {"1.0.0"}
    names = {path.name for path in device.state.blobs.iterdir()}
    assert names == {chosen.sha256, device.record().manifest.sha256}


async def test_one_variant_is_not_measured(device: ControlDevice) -> None:
    await install(device, release("1.0.0"))
    assert active(device).choice == ""
    assert device.runtime.calls.count("load") == 1
    assert device.runtime.calls.count("infer") == 2


async def test_a_difference_that_says_nothing_leaves_the_publishers_order(
    device: ControlDevice,
) -> None:
    device.runtime.durations_s = {"fp32": 0.00400, "int8": 0.00390, "fp16": 0.00401}
    await install(device, several())
    assert active(device).variant == "fp32"


@pytest.mark.parametrize(
    ("seconds", "wins"),
    [({0: 1.0, 1: 0.96}, 0), ({0: 1.0, 1: 0.9}, 1), ({1: 5.0, 3: 1.0}, 3), ({2: 1.0}, 2)],
)
def test_the_winner(seconds: dict[int, float], wins: int) -> None:
    assert winner(seconds) == wins


async def test_the_choice_is_remembered(device: ControlDevice) -> None:
    await install(device, several())
    other = release("2.0.0")
    await install(device, other, version=2)
    device.runtime.calls.clear()
    await install(device, several(), version=3)
    assert active(device).variant == "int8"
    assert "4.00 ms" in active(device).choice
    assert device.runtime.calls.count("load") == 1


async def test_a_variant_that_answers_wrongly_is_out_with_the_reason(
    device: ControlDevice,
) -> None:
    device.runtime.models["int8"] = lambda value: 3 * value
    await install(device, several())
    assert active(device).variant == "fp32"
    assert "not int8 on cpu: golden vector 0" in active(device).choice
    assert device.runtime.loaded() == {"1.0.0"}


async def test_a_variant_that_does_not_load_is_out_with_the_reason(device: ControlDevice) -> None:
    device.runtime.unloadable = {"int8", "fp16"}
    await install(device, several())
    assert active(device).variant == "fp32"
    assert active(device).choice.startswith("fp32 on cpu is all that works here; not int8 on cpu")


async def test_a_variant_that_the_device_cannot_hold_keeps_no_other_from_serving(
    device: ControlDevice,
) -> None:
    device.runtime.too_large = {"int8"}
    await install(device, several())
    assert active(device).variant == "fp32"
    assert "not int8 on cpu: this device failed: Failed to allocate" in active(device).choice
    assert device.runtime.loaded() == {"1.0.0"}


async def test_where_the_device_holds_no_variant_no_verdict_is_passed(
    device: ControlDevice,
) -> None:
    device.runtime.too_large = {"fp32", "fp16"}
    device.runtime.unloadable = {"int8"}
    device.repository.add(several())
    await device.receive(device.director.assign(DEVICE, 1, [several()]))
    for _ in range(100):
        await device.step()
        device.clock.advance(10)
        assert not device.record().settled
    device.runtime.too_large = set()
    await device.settle()
    assert active(device).variant == "fp32"


async def test_a_release_of_which_nothing_works_fails(device: ControlDevice) -> None:
    device.runtime.unloadable = {"fp32", "int8", "fp16"}
    await install(device, several())
    assert device.record().state is UpdateState.FAILED
    assert "no variant of animals 1.0.0 works here" in device.record().detail
    assert device.runtime.loaded() == set()


async def test_an_accelerator_that_is_absent_is_named_as_the_reason(device: ControlDevice) -> None:
    device.runtime.problems = {"cuda": "no NVIDIA GPU is here"}
    await install(device, with_more_variants(release("1.0.0"), "gpu", accelerator="cuda"))
    assert active(device).variant == "fp32"
    assert active(device).choice == (
        "fp32 on cpu is all that runs here; not gpu on cuda: no NVIDIA GPU is here"
    )


@pytest.mark.parametrize("deadly", [{"int8"}, {"int8", "fp16"}, {"fp32", "int8"}])
async def test_a_variant_that_kills_the_runtime_is_out(
    device: ControlDevice, deadly: set[str]
) -> None:
    device.runtime.deadly = deadly
    device.repository.add(several())
    await device.receive(device.director.assign(DEVICE, 1, [several()]))
    for _ in range(60):
        await device.step()
        if device.runtime.down:
            device.runtime.boot()
        device.clock.advance(1.0)
    assert device.record().state is UpdateState.COMMITTED
    assert active(device).variant not in deadly
    for name in deadly:
        assert f"not {name} on cpu: the runtime stopped while it was tried" in active(device).choice
    assert device.record().attempts == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 20))
async def test_control_dies_at_a_durable_write(
    device: ControlDevice, at: int, *, after: bool
) -> None:
    device.repository.add(several())
    device.plan.at, device.plan.after, device.plan.seen = at, after, 0
    try:
        await device.receive(device.director.assign(DEVICE, 1, [several()]))
        await device.settle()
    except Crash:
        device.plan.at = 0
        await device.restarted()
        await device.receive(device.director.assign(DEVICE, 1, [several()]))
        await device.settle()
    else:
        assert device.plan.seen < at
    assert active(device).variant == "int8"
    assert device.record().state is UpdateState.COMMITTED
    assert device.runtime.serving("animals") == "1.0.0"
    assert device.runtime.loaded() == {"1.0.0"}
    assert len(list(device.state.blobs.iterdir())) == 2
