"""What the operator is told about an update, for every word that a device can say."""

import pytest

from fleet_protocol.messages import Capabilities, Reported, RunningModel, UpdateStatus
from fleet_protocol.update_states import UpdateState
from fleet_server.assignments.entries import Entry, with_release
from fleet_server.devices.update_progress import Progress, of_device


def entry(family: str = "a", version: str = "2.0.0") -> Entry:
    path = f"models/{family}/{version}/manifest.json"
    return Entry(family=family, version=version, path=path, length=1, sha256="0" * 64)


def reported(
    *,
    assignment: int = 1,
    running: str | None = None,
    committed: bool = True,
    state: UpdateState | None = None,
    runtime_up: bool = True,
) -> Reported:
    model = RunningModel(
        family="a",
        version=running or "",
        variant="v",
        backend="b",
        accelerator="cpu",
        committed=committed,
    )
    update = UpdateStatus(
        family="a", version="2.0.0", state=state or UpdateState.IDLE, detail="why"
    )
    return Reported(
        at_ms=1,
        agent_version="1",
        assignment_version=assignment,
        runtime_up=runtime_up,
        running=[model] if running else [],
        updates=[update] if state else [],
        capabilities=Capabilities(machine="x86_64", cpu_count=1),
    )


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (None, Progress.WAITING),
        (reported(assignment=0, running="2.0.0"), Progress.WAITING),
        (reported(), Progress.UPDATING),
        (reported(running="1.0.0"), Progress.UPDATING),
        (reported(running="1.0.0", state=UpdateState.DOWNLOADING), Progress.UPDATING),
        (reported(running="1.0.0", state=UpdateState.TRIAL), Progress.UPDATING),
        (
            reported(running="2.0.0", committed=False, state=UpdateState.PROBATION),
            Progress.UPDATING,
        ),
        (reported(running="2.0.0", state=UpdateState.COMMITTED), Progress.UPDATED),
        (
            reported(running="2.0.0", state=UpdateState.COMMITTED, runtime_up=False),
            Progress.UPDATING,
        ),
        (reported(running="1.0.0", state=UpdateState.FAILED), Progress.FAILED),
        (reported(running="1.0.0", state=UpdateState.ROLLED_BACK), Progress.FAILED),
        (reported(running="1.0.0", state=UpdateState.COMMITTED), Progress.UPDATING),
    ],
)
def test_one_family(report: Reported | None, expected: Progress) -> None:
    word, families = of_device([entry()], assignment_version=1, reported=report)
    assert (word, families[0].progress) == (expected, expected)


def test_the_reason_of_a_failure_is_handed_on() -> None:
    report = reported(running="1.0.0", state=UpdateState.FAILED)
    _, families = of_device([entry()], assignment_version=1, reported=report)
    assert (families[0].running_version, families[0].detail) == ("1.0.0", "why")


def test_a_device_is_as_far_as_its_slowest_family() -> None:
    report = reported(running="2.0.0", state=UpdateState.COMMITTED)
    word, _ = of_device([entry(), entry("b")], assignment_version=1, reported=report)
    assert word is Progress.UPDATING


def test_nothing_assigned() -> None:
    assert of_device([], assignment_version=0, reported=None) == (Progress.UNASSIGNED, [])


def test_other_families_are_kept() -> None:
    entries = with_release([entry("a", "1.0.0"), entry("b", "1.0.0")], entry("a", "2.0.0"))
    assert [(each.family, each.version) for each in entries] == [("a", "2.0.0"), ("b", "1.0.0")]
