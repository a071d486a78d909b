"""The rollout engine: a pure function from what is known to what is done.

`decide` gets the plan, how every stage stands, and the clock; it returns one `Decision` with its
reason, or `Wait`. It reads nothing and writes nothing, so any server may run it, and the same view
gives the same decision. In this order it asks:

1. Is the release doing harm? Then the rollout stops, whatever else could be done.
2. Is a comparison due? (`wants_look` says so; whoever calls brings the samples.)
3. Is the newest stage done and good? Then the next one opens, or the rollout is complete.
4. Whose turn is it, within the disruption budget and the maintenance windows?
"""

import msgspec

from fleet_protocol.counting import counted
from fleet_server.rollouts import returning, sentences
from fleet_server.rollouts.comparison import Samples, compare, heard
from fleet_server.rollouts.harm import harm_of
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Inconclusive, OnFailure
from fleet_server.rollouts.state import (
    MAX_DEVICES,
    Decision,
    Head,
    Kind,
    StageCounts,
    Status,
    View,
    Wait,
)

_S = MemberState
_HEARD_AT_GATE = 0.9
"""Share of the devices with traffic of which a gate has enough calls before it compares."""

_HEARD_BEFORE = 0.5
"""The same of a look while the stage goes on."""

_AT_REST = {
    Status.COMPLETED: "complete; devices that join its group get the release too",
    Status.PAUSED: "paused by an operator: nothing is decided until it is resumed",
    Status.STOPPED: "stopped: an operator resumes it, rolls it back or aborts it",
    Status.ROLLED_BACK: "rolled back: nothing is left to do",
    Status.ABORTED: "aborted: devices keep what they have",
}


def decide(view: View, samples: Samples | None = None) -> Decision | Wait:
    """Return what to do now.

    Args:
        view: the rollout as it stands.
        samples: of devices, where `wants_look` asked for them; else None.
    """
    status = view.head.status
    if status is Status.RUNNING:
        return _running(view, samples)
    if status is Status.ROLLING_BACK:
        return returning.decide(view)
    done: Decision | None = None
    if status is Status.COMPLETED:
        done = _turn(view)
    elif status is Status.ABORTED:
        done = returning.recall(view)
    return done or sentences.wait(view, sentences.late(view) or _AT_REST[status])


def wants_look(view: View) -> bool:
    """Say whether a comparison is due: devices have doubled since the last, or a gate needs it."""
    if view.plan.comparison is None or view.head.status is not Status.RUNNING:
        return False
    if view.head.stage < 0 or harm_of(view):
        return False
    healthy = view.total(_S.HEALTHY)
    if _gate_waits_for_look(view):
        return True
    return healthy >= max(view.plan.min_samples, 2 * view.head.compared_devices, 1)


def without_release(view: View, why: str) -> Decision | None:
    """Return what follows when a release that is rolled out cannot be assigned any more.

    Args:
        view: the rollout as it stands.
        why: a sentence, such as that its publisher has withdrawn it.
    """
    if view.head.status is not Status.RUNNING:
        return None
    return _stop(view, f"it cannot be assigned any more: {why}")


def _running(view: View, samples: Samples | None) -> Decision | Wait:
    harm = harm_of(view)
    if harm:
        return _stop(view, harm)
    if samples is not None and wants_look(view):
        looked = _look(view, samples)
        if looked is not None:
            return looked
    return (
        _gate(view) or _turn(view) or _ahead(view) or sentences.wait(view, sentences.waiting(view))
    )


def _stop(view: View, why: str, inputs: dict[str, object] | None = None) -> Decision:
    back = view.plan.on_failure is OnFailure.ROLL_BACK
    then = "devices that have it go back" if back else "an operator decides what follows"
    return Decision(
        kind=Kind.STOPPED,
        reason=f"Stopped: {why}; {then}.",
        inputs=sentences.inputs(view) | (inputs or {}),
        head=_with(view.head, status=Status.ROLLING_BACK if back else Status.STOPPED),
    )


def _hold(view: View, why: str) -> Decision:
    """Stop without a verdict on the release: nothing is rolled back."""
    return Decision(
        kind=Kind.STOPPED,
        reason=f"Stopped: {why}; an operator decides what follows.",
        inputs=sentences.inputs(view),
        head=_with(view.head, status=Status.STOPPED),
    )


def _look(view: View, samples: Samples) -> Decision | None:
    policy = view.plan.comparison
    if policy is None:
        return None
    at_gate = _gate_waits_for_look(view)
    waits_still = not (at_gate and _patience_is_over(view))
    if waits_still and heard(policy, samples) < (_HEARD_AT_GATE if at_gate else _HEARD_BEFORE):
        return None
    findings = compare(policy, samples, look=view.head.looks + 1)
    answered = [finding for finding in findings if finding.conclusive]
    inputs: dict[str, object] = {"findings": msgspec.to_builtins(findings)}
    said = "; ".join(str(finding) for finding in findings)
    worse = [str(finding) for finding in findings if finding.worse]
    if worse:
        return _stop(view, f"it is worse than the old release: {'; '.join(worse)}", inputs)
    if len(answered) < len(findings) and waits_still:
        return None
    if not answered and policy.when_inconclusive is Inconclusive.STOP:
        return _hold(view, f"no comparison was possible: {said}")
    head = _with(
        view.head,
        looks=view.head.looks + (1 if answered else 0),
        compared_devices=view.total(_S.HEALTHY),
        compared_stage=view.head.stage if at_gate else view.head.compared_stage,
    )
    word = "not worse than the old release" if answered else "no comparison was possible"
    return Decision(
        kind=Kind.COMPARED,
        reason=f"Comparison {head.looks}: {word}: {said}.",
        inputs=sentences.inputs(view) | inputs,
        head=head,
    )


def _gate(view: View) -> Decision | None:
    stage, plan = view.head.stage, view.plan
    if stage >= 0:
        counts = view.stages[stage]
        if not _all_settled(counts):
            return None
        if counts.answered < plan.min_samples:
            return _hold(
                view,
                f"stage {stage + 1} has {counted(counts.answered, 'device')} that answered, and is "
                f"judged from {plan.min_samples} on",
            )
        if not _soaked(view) or _gate_waits_for_look(view):
            return None
    if stage + 1 == len(plan.stages):
        return Decision(
            kind=Kind.COMPLETED,
            reason=f"Complete: {sentences.stage(view, stage)}; it was the last stage.",
            inputs=sentences.inputs(view),
            head=_with(view.head, status=Status.COMPLETED),
        )
    because = f"{sentences.stage(view, stage)}" if stage >= 0 else "the canaries come first"
    return Decision(
        kind=Kind.OPENED_STAGE,
        reason=f"Stage {stage + 2} of {len(plan.stages)} opens: {because}.",
        inputs=sentences.inputs(view),
        head=_with(view.head, stage=stage + 1),
    )


def _turn(view: View) -> Decision | None:
    devices = view.turn[: min(view.room, MAX_DEVICES)]
    if not devices or not view.window_open:
        return None
    return Decision(
        kind=Kind.ACTIVATED,
        reason=(
            counted(len(devices), "device activates", "devices activate")
            + f" {view.plan.version}: {view.in_flight} of at most {view.plan.max_in_flight} were "
            "changing."
        ),
        inputs=sentences.inputs(view),
        head=view.head,
        devices=devices,
        become=_S.ACTIVATING,
    )


def _ahead(view: View) -> Decision | None:
    devices = view.ahead[:MAX_DEVICES]
    if not view.plan.download_ahead or not devices:
        return None
    why = "their turn comes" if view.window_open else "the maintenance window opens"
    return Decision(
        kind=Kind.PREPARED,
        reason=counted(len(devices), "device fetches", "devices fetch")
        + f" {view.plan.version} before {why}.",
        inputs=sentences.inputs(view),
        head=view.head,
        devices=devices,
        become=_S.PREPARED,
    )


def _all_settled(counts: StageCounts) -> bool:
    return counts.of(_S.WAITING, _S.PREPARED, _S.ACTIVATING) == 0


def _soaked(view: View) -> bool:
    soak_ms = view.plan.stages[view.head.stage].soak_s * 1000
    return view.settled_ms is None or view.watched_ms >= soak_ms


def _gate_waits_for_look(view: View) -> bool:
    stage = view.head.stage
    return (
        view.plan.comparison is not None
        and stage >= 0
        and view.head.compared_stage < stage
        and _all_settled(view.stages[stage])
        and view.stages[stage].answered >= view.plan.min_samples
        and _soaked(view)
    )


def _patience_is_over(view: View) -> bool:
    policy = view.plan.comparison
    if policy is None or view.settled_ms is None:
        return True
    soak_s = view.plan.stages[view.head.stage].soak_s
    return view.watched_ms >= (soak_s + policy.patience_s) * 1000


def _with(head: Head, **changes: object) -> Head:
    return msgspec.structs.replace(head, **changes)
