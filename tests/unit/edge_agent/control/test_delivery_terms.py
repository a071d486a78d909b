"""The device obeys the terms of delivery and says what it waits for."""

from datetime import timedelta

import pytest

from edge_agent import status
from edge_agent.control.observation import reported
from fleet_protocol import delivery
from fleet_protocol.assignments import Binding, extra_fields
from fleet_protocol.delivery import Terms, Window
from fleet_protocol.messages import Capabilities, EventKind, UpdateStatus
from fleet_protocol.update_states import UpdateState
from tests.simulators.control_device import DEVICE, ControlDevice
from tests.simulators.device_clock import START_MS
from tests.simulators.device_releases import release
from tests.simulators.device_repository import START, target_file

HOUR_S = 3600.0
ONE, TWO = release("1.0.0"), release("2.0.0")
WINDOW = Window(
    start_minute=((START + timedelta(hours=2)).hour * 60 + START.minute) % (24 * 60),
    duration_minutes=60,
)


def update_of(device: ControlDevice) -> UpdateStatus:
    situation = device.parts.observation.situation
    assert situation is not None
    capabilities = Capabilities(machine="m", cpu_count=1)
    state = reported(situation, at_ms=1, agent_version="1", capabilities=capabilities)
    (update,) = state.updates
    return update


async def ordered(device: ControlDevice, terms: Terms) -> None:
    """Let a device on release 1 be assigned release 2 on terms, and do what it may do now."""
    device.repository.add(ONE, TWO)
    await device.receive(device.director.assign(DEVICE, 1, [ONE]))
    await device.settle()
    await device.receive(device.director.assign(DEVICE, 2, [TWO], terms={"animals": terms}))
    await rest(device)


async def rest(device: ControlDevice) -> None:
    """Let control work until it waits."""
    for _ in range(20):
        if not await device.step():
            device.clock.advance(0.1)


def asked_for(device: ControlDevice, file: str) -> bool:
    return any(file in path for path, _ in device.repository.requests)


async def test_nothing_is_fetched_before_its_time(device: ControlDevice) -> None:
    later = START_MS + int(HOUR_S * 1000)
    await ordered(device, Terms(download_not_before_ms=later))
    assert not asked_for(device, TWO.manifest.variants[0].sha256)
    update = update_of(device)
    assert (update.version, update.state) == ("2.0.0", UpdateState.IDLE)
    assert update.detail.startswith("the download is set for ")
    device.clock.set_wall_clock(later)
    await device.settle()
    assert device.active() == {"animals": "2.0.0"}


async def test_it_is_fetched_ahead_and_starts_in_the_window(device: ControlDevice) -> None:
    await ordered(device, Terms(window=WINDOW))
    assert device.record().state is UpdateState.VERIFIED
    update = update_of(device)
    assert update.state is UpdateState.VERIFIED
    assert update.detail.startswith("the activation waits for the maintenance window, which opens")
    await device.restarted()
    await rest(device)
    assert device.runtime.serving("animals") == "1.0.0"
    device.clock.advance(2 * HOUR_S)
    await rest(device)
    assert device.record().state is UpdateState.PROBATION
    device.clock.advance(HOUR_S)  # the window has closed; what began in it is finished
    await device.settle()
    assert device.active() == {"animals": "2.0.0"}


async def test_a_turned_back_clock_does_not_reopen_a_window(device: ControlDevice) -> None:
    later = START_MS + int(HOUR_S * 1000)
    await ordered(device, Terms(activate_not_before_ms=later))
    device.clock.set_wall_clock(START_MS - 10**9)
    await rest(device)
    assert device.record().state is UpdateState.VERIFIED
    assert device.events(EventKind.UPDATE_STATE)[-1].state is UpdateState.VERIFIED


async def test_a_download_stops_when_the_window_closes_and_goes_on_later(
    device: ControlDevice,
) -> None:
    big = release("2.0.0", model=b"0123456789abcdef" * 100_000)
    device.repository.add(ONE, big)
    await device.receive(device.director.assign(DEVICE, 1, [ONE]))
    await device.settle()
    terms = Terms(window=WINDOW, download_in_window=True)
    device.clock.advance(2.5 * HOUR_S)
    device.repository.faults.break_after = 100_000
    await device.receive(device.director.assign(DEVICE, 2, [big], terms={"animals": terms}))
    for _ in range(20):
        await device.step()
    device.clock.advance(HOUR_S)
    device.repository.faults.break_after = None
    await rest(device)
    asked = len(device.repository.requests)
    await rest(device)
    assert len(device.repository.requests) == asked
    assert update_of(device).state is UpdateState.DOWNLOADING
    assert "the download waits for the maintenance window" in update_of(device).detail
    device.clock.advance(23 * HOUR_S)
    await device.settle()
    assert device.active() == {"animals": "2.0.0"}
    resumed = [wanted for _, wanted in device.repository.requests[asked:] if wanted is not None]
    assert resumed
    assert all(wanted != "bytes=0-" for wanted in resumed)


async def test_other_terms_of_the_same_release_do_not_start_it_over(device: ControlDevice) -> None:
    await ordered(device, Terms(activate_not_before_ms=START_MS * 2))
    (family,) = status.read(device.state).families
    assert family.detail.startswith("the activation is set for ")
    fetched = len(device.repository.requests)
    await device.receive(device.director.assign(DEVICE, 3, [TWO]))
    await device.settle()
    assert device.active() == {"animals": "2.0.0"}
    assert len(device.repository.requests) == fetched


@pytest.mark.parametrize(
    "stated", [{"stones": {}}, {"animals": {"max_bytes_per_s": -5}}, {"animals": {"later": 1}}]
)
async def test_an_assignment_with_malformed_terms_is_refused(
    device: ControlDevice, stated: object
) -> None:
    target = target_file(ONE.manifest_path, ONE.manifest_bytes)
    fields = {**extra_fields(Binding(device_id=DEVICE)), delivery.FIELD: stated}
    await device.receive(
        device.director.assign_targets(DEVICE, 1, {ONE.manifest_path: target}, fields=fields)
    )
    (refused,) = device.events(EventKind.ASSIGNMENT_REFUSED)
    assert "deliver" in refused.detail
