"""The engine as tables: a view goes in, a decision with its reason comes out."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest

from fleet_protocol.delivery import Window
from fleet_protocol.histogram import of_values
from fleet_server.errors import ConflictError, RefusedError
from fleet_server.rollouts import engine, interventions, membership
from fleet_server.rollouts.comparison import Period, Sample, Samples
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import (
    ComparisonPolicy,
    Inconclusive,
    OnFailure,
    Plan,
    Stage,
)
from fleet_server.rollouts.state import Decision, Head, Kind, StageCounts, Status, View, Wait

S = MemberState
NOW = 1_800_000_000_000  # a Friday, 08:00 UTC
Counts = Mapping[MemberState, int]


def plan(**changes: object) -> Plan:
    stated: dict[str, object] = {
        "family": "animals",
        "version": "2.0.0",
        "stages": (Stage(count=5), Stage(percent=50), Stage(percent=100)),
        "min_samples": 3,
        "failure_threshold": 0.2,
        "max_in_flight": 4,
        "comparison": None,
    }
    return Plan(**(stated | changes))  # type: ignore[arg-type]


def view(*stages: Counts, stage: int = 0, status: Status = Status.RUNNING, **more: object) -> View:
    counted = [StageCounts(states=counts) for counts in stages]
    counted += [StageCounts(states={S.WAITING: 10})] * (3 - len(counted))
    stated: dict[str, object] = {
        "plan": plan(),
        "head": Head(status=status, stage=stage),
        "stages": tuple(counted),
        "now_ms": NOW,
    }
    return View(**(stated | more))  # type: ignore[arg-type]


def decision(seen: View, samples: Samples | None = None) -> Decision:
    decided = engine.decide(seen, samples)
    assert isinstance(decided, Decision), decided.reason
    return decided


def reason_of_waiting(seen: View) -> str:
    decided = engine.decide(seen)
    assert isinstance(decided, Wait), decided
    return decided.reason


def test_the_canaries_open_first() -> None:
    opened = decision(view(stage=-1))
    assert (opened.kind, opened.head.stage) == (Kind.OPENED_STAGE, 0)


@pytest.mark.parametrize(
    ("counts", "kind", "said"),
    [
        ({S.HEALTHY: 5}, Kind.OPENED_STAGE, "5 of 5 devices of stage 1 are healthy"),
        ({S.HEALTHY: 4, S.FAILED: 1}, Kind.OPENED_STAGE, "1 failed"),
        ({S.HEALTHY: 4, S.SILENT: 1}, Kind.OPENED_STAGE, "1 fell silent"),
        ({S.HEALTHY: 3, S.FAILED: 2}, Kind.STOPPED, "of 5 judged devices 2 failed, at most"),
        (
            {S.HEALTHY: 3, S.FAILED: 1, S.SILENT: 1},
            Kind.STOPPED,
            "of 5 judged devices 1 failed and 1 fell silent, at most 1 of its 5 may (20 %)",
        ),
        ({S.WAITING: 2, S.HEALTHY: 1, S.FAILED: 2}, Kind.STOPPED, "of 3 judged devices 2 failed"),
        ({S.HEALTHY: 2, S.GONE: 3}, Kind.STOPPED, "is judged from 3 on"),
    ],
)
def test_gates(counts: Counts, kind: Kind, said: str) -> None:
    decided = decision(view(counts))
    assert decided.kind is kind
    assert said in decided.reason
    assert decided.inputs["stage"] == 1


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({S.HEALTHY: 4, S.ACTIVATING: 1}, "1 is changing"),
        ({S.WAITING: 3, S.FAILED: 2}, "3 wait for their turn"),  # two are fewer than three
        ({S.WAITING: 3, S.SILENT: 2}, "2 fell silent"),
    ],
)
def test_nothing_is_judged_too_early(counts: Counts, said: str) -> None:
    assert said in reason_of_waiting(view(counts))


def test_silence_may_have_its_own_threshold() -> None:
    counts = {S.HEALTHY: 3, S.SILENT: 2}
    assert decision(view(counts)).kind is Kind.STOPPED
    patient = plan(timeout_threshold=0.5)
    assert decision(view(counts, plan=patient)).kind is Kind.OPENED_STAGE
    strict = plan(timeout_threshold=0.0, failure_threshold=0.9)
    assert "fell silent" in decision(view(counts, plan=strict)).reason


def test_a_large_stage_stops_before_its_share_is_used_up() -> None:
    counts = {S.HEALTHY: 7, S.FAILED: 3, S.WAITING: 990}
    small = plan(failure_threshold=0.01)
    stopped = decision(view({S.HEALTHY: 5}, counts, stage=1, plan=small))
    assert "exact binomial test" in stopped.reason
    rare = {S.HEALTHY: 200, S.FAILED: 3, S.WAITING: 797}
    assert "waiting" in str(engine.decide(view({S.HEALTHY: 5}, rare, stage=1, plan=small)).inputs)


def test_a_bad_early_stage_stops_the_rollout_later_too() -> None:
    late = {S.HEALTHY: 2, S.FAILED: 3}
    assert "stage 1 of 3" in decision(view(late, {S.ACTIVATING: 1}, stage=1)).reason


@pytest.mark.parametrize(
    ("on_failure", "status"),
    [(OnFailure.ROLL_BACK, Status.ROLLING_BACK), (OnFailure.STOP, Status.STOPPED)],
)
def test_what_follows_a_stop(on_failure: OnFailure, status: Status) -> None:
    stopped = decision(view({S.HEALTHY: 2, S.FAILED: 3}, plan=plan(on_failure=on_failure)))
    assert stopped.head.status is status


def test_the_last_gate_completes() -> None:
    done = view({S.HEALTHY: 5}, {S.HEALTHY: 10}, {S.HEALTHY: 10}, stage=2)
    assert decision(done).head.status is Status.COMPLETED


def test_the_budget_and_the_order_of_turns() -> None:
    counts = {S.WAITING: 4, S.ACTIVATING: 1}
    turn = ("b", "a", "d", "c")
    assert decision(view(counts, turn=turn)).devices == ("b", "a", "d")
    full = view({S.WAITING: 1, S.ACTIVATING: 4}, turn=("b",))
    assert "4 are changing" in reason_of_waiting(full)


def test_outside_the_windows_devices_only_fetch() -> None:
    night = plan(window=Window(start_minute=0, duration_minutes=60))
    counts = {S.WAITING: 5}
    waits = view(counts, plan=night, turn=("a",), ahead=("a",))
    assert "opens at 2027-01-16 00:00Z" in reason_of_waiting(waits)
    ahead = plan(window=night.window, download_ahead=True)
    fetched = decision(view(counts, plan=ahead, turn=("a",), ahead=("a",)))
    assert (fetched.kind, fetched.become) == (Kind.PREPARED, S.PREPARED)


def test_a_stage_is_watched_for_its_soak_time() -> None:
    soaking = plan(stages=(Stage(count=5, soak_s=60), Stage(percent=50), Stage(percent=100)))
    early = view({S.HEALTHY: 5}, plan=soaking, settled_ms=NOW - 59_000)
    assert "watched for 1 s more" in reason_of_waiting(early)
    late = view({S.HEALTHY: 5}, plan=soaking, settled_ms=NOW - 60_000)
    assert decision(late).kind is Kind.OPENED_STAGE


def calls(factor: float, count: int = 100) -> Period:
    return Period(count, 0, of_values([1000 * factor * (1 + 0.01 * n) for n in range(count)]))


def samples(factor: float) -> Samples:
    new = [Sample(calls(1 + n / 100), calls(factor * (1 + n / 100))) for n in range(5)]
    old = [Sample(calls(1 + n / 100), calls(1 + n / 100)) for n in range(10)]
    return Samples(new, old)


def test_a_gate_needs_its_comparison() -> None:
    compared = plan(comparison=ComparisonPolicy())
    gate = view({S.HEALTHY: 5}, plan=compared, settled_ms=NOW)
    assert engine.wants_look(gate)
    assert "to compare the releases" in reason_of_waiting(gate)
    good = decision(gate, samples(1.0))
    assert (good.kind, good.head.looks, good.head.compared_stage) == (Kind.COMPARED, 1, 0)
    assert decision(view({S.HEALTHY: 5}, plan=compared, head=good.head)).kind is Kind.OPENED_STAGE
    slow = decision(gate, samples(1.2))
    assert slow.kind is Kind.STOPPED
    assert "latency p50 +" in slow.reason
    assert slow.inputs["findings"]


@pytest.mark.parametrize(("group", "quiet"), [("new", 1), ("old", 2)])
def test_a_gate_waits_for_the_calls_of_nearly_all(group: str, quiet: int) -> None:
    asked = plan(comparison=ComparisonPolicy(patience_s=60))
    full = samples(1.2)
    some = list(getattr(full, group))
    some[-quiet:] = [replace(each, after=Period()) for each in some[-quiet:]]
    partly = replace(full, **{group: some})
    early = view({S.HEALTHY: 5}, plan=asked, settled_ms=NOW - 59_000)
    assert isinstance(engine.decide(early, partly), Wait)
    late = view({S.HEALTHY: 5}, plan=asked, settled_ms=NOW - 60_000)
    assert decision(late, partly).kind is not Kind.OPENED_STAGE
    going_on = view({S.HEALTHY: 5, S.ACTIVATING: 5}, plan=asked)
    assert decision(going_on, full).kind is Kind.STOPPED


def test_looks_come_when_the_devices_have_doubled() -> None:
    compared = plan(comparison=ComparisonPolicy())
    head = Head(stage=1, looks=1, compared_devices=5, compared_stage=0)
    healthy = {S.HEALTHY: 4, S.ACTIVATING: 6}
    assert not engine.wants_look(view({S.HEALTHY: 5}, healthy, head=head, plan=compared))
    healthy = {S.HEALTHY: 5, S.ACTIVATING: 5}
    assert engine.wants_look(view({S.HEALTHY: 5}, healthy, head=head, plan=compared))


@pytest.mark.parametrize(
    ("policy", "kind"), [(Inconclusive.CONTINUE, Kind.COMPARED), (Inconclusive.STOP, Kind.STOPPED)]
)
def test_a_gate_without_traffic_has_patience(policy: Inconclusive, kind: Kind) -> None:
    asked = plan(comparison=ComparisonPolicy(when_inconclusive=policy, patience_s=60))
    early = view({S.HEALTHY: 5}, plan=asked, settled_ms=NOW - 59_000)
    assert isinstance(engine.decide(early, Samples()), Wait)
    late = view({S.HEALTHY: 5}, plan=asked, settled_ms=NOW - 60_000)
    decided = decision(late, Samples())
    assert decided.kind is kind
    assert "no comparison was possible" in decided.reason
    assert decided.head.status is not Status.ROLLING_BACK


def test_rolling_back_recalls_at_once_and_returns_within_the_budget() -> None:
    counts = {S.ACTIVATING: 2, S.HEALTHY: 6, S.FAILED: 2}
    going = partial(view, counts, status=Status.ROLLING_BACK, to_return=tuple("abcdefgh"))
    recalled = decision(going(to_recall=("x", "y")))
    assert (recalled.devices, recalled.become) == (("x", "y"), S.RECALLED)
    returned = decision(going())
    assert returned.devices == ("a", "b", "c", "d")  # two of them in flight already, room for two
    assert "2 devices have not said" in reason_of_waiting(
        view({S.RETURNING: 2}, status=Status.ROLLING_BACK)
    )
    done = view({S.RETURNED: 8, S.RECALLED: 2}, status=Status.ROLLING_BACK)
    assert decision(done).head.status is Status.ROLLED_BACK


def test_who_joins_a_completed_rollout_gets_its_turn() -> None:
    joined = view({S.HEALTHY: 5}, status=Status.COMPLETED, stage=2, turn=("late",))
    assert decision(joined).devices == ("late",)


@pytest.mark.parametrize("status", [Status.PAUSED, Status.STOPPED, Status.ROLLED_BACK])
def test_at_rest_nothing_is_decided(status: Status) -> None:
    seen = view({S.FAILED: 5}, status=status, turn=("a",), to_return=("b",), to_recall=("c",))
    assert isinstance(engine.decide(seen), Wait)


def test_resuming_after_a_stop_accepts_what_failed() -> None:
    stopped = view({S.HEALTHY: 3, S.FAILED: 2}, status=Status.STOPPED)
    resumed = interventions.intervene(stopped, Intervention.RESUME, who="ann", why="known boards")
    assert resumed.reason == (
        "ann resumed the rollout and accepted 2 failed or silent devices: known boards."
    )
    assert interventions.excuses(stopped.head, resumed)
    counts = StageCounts(states={S.HEALTHY: 3, S.FAILED: 2}, excused_failed=2)
    again = view(head=resumed.head, stages=(counts, *stopped.stages[1:]))
    assert decision(again).kind is Kind.OPENED_STAGE


@pytest.mark.parametrize("wanted", list(Intervention))
def test_interventions_against_the_status_are_refused(wanted: Intervention) -> None:
    seen = view(status=Status.ROLLED_BACK)
    with pytest.raises(ConflictError, match="the rollout is rolled_back"):
        interventions.intervene(seen, wanted, who="ann", why="")


def test_only_a_device_that_failed_is_tried_again() -> None:
    seen = view({S.HEALTHY: 1, S.FAILED: 1})
    assert interventions.retry(seen, "a", S.FAILED, who="ann").become is S.WAITING
    with pytest.raises(ConflictError, match="a is healthy"):
        interventions.retry(seen, "a", S.HEALTHY, who="ann")
    with pytest.raises(ConflictError, match="stopped"):
        interventions.retry(view(status=Status.STOPPED), "a", S.FAILED, who="ann")


def test_stages_are_cumulative_and_their_order_is_that_of_the_hash() -> None:
    names = [f"cam-{number}" for number in range(40)]
    ordered = membership.in_order("r1", names)
    assert ordered == membership.in_order("r1", reversed(names))
    assert ordered != membership.in_order("r2", names)
    assert membership.stage_ends(plan(), 40) == [5, 20, 40]
    stages = dict(membership.staged(ordered, [5, 20, 40]))
    assert [stages[name] for name in ordered] == [0] * 5 + [1] * 15 + [2] * 20


@pytest.mark.parametrize(
    ("stages", "members", "said"),
    [
        ((Stage(count=5), Stage(percent=100)), 5, "stage 2 would add no device"),
        ((Stage(count=1), Stage(percent=100)), 9, "stage 1 adds 1 of the 9 devices"),
    ],
)
def test_stages_that_cannot_be_judged_are_refused(
    stages: tuple[Stage, ...], members: int, said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        membership.stage_ends(plan(stages=stages), members)
