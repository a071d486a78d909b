"""What an operator may do to a rollout: pure functions from its state to a decision.

They make the same `Decision` as the engine does, so that one history holds both.
"""

from enum import StrEnum

import msgspec

from fleet_protocol.counting import counted
from fleet_server.errors import ConflictError
from fleet_server.rollouts import sentences
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.state import Decision, Head, Kind, Status, View


class Intervention(StrEnum):
    """What an operator asks for."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll_back"


_ALLOWED = {
    Intervention.PAUSE: (Status.RUNNING,),
    Intervention.RESUME: (Status.PAUSED, Status.STOPPED),
    Intervention.ABORT: (Status.RUNNING, Status.PAUSED, Status.STOPPED),
    Intervention.ROLL_BACK: (
        Status.RUNNING,
        Status.PAUSED,
        Status.STOPPED,
        Status.COMPLETED,
        Status.ABORTED,
    ),
}
_KINDS = {
    Intervention.PAUSE: Kind.PAUSED,
    Intervention.RESUME: Kind.RESUMED,
    Intervention.ABORT: Kind.ABORTED,
    Intervention.ROLL_BACK: Kind.ROLL_BACK_ASKED,
}
_BECOMES = {
    Intervention.PAUSE: Status.PAUSED,
    Intervention.RESUME: Status.RUNNING,
    Intervention.ABORT: Status.ABORTED,
    Intervention.ROLL_BACK: Status.ROLLING_BACK,
}
_RETRYABLE = (Status.RUNNING, Status.PAUSED, Status.COMPLETED)


def intervene(view: View, wanted: Intervention, *, who: str, why: str) -> Decision:
    """Return the decision that an operator takes.

    Resuming a rollout that the engine stopped accepts what had failed by then: those devices are
    excused, and what was compared counts as compared.

    Args:
        view: the rollout as it stands.
        wanted: what to do.
        who: the operator.
        why: the operator's own words; may be empty.

    Raises:
        ConflictError: the rollout's status does not allow it.
    """
    status = view.head.status
    if status not in _ALLOWED[wanted]:
        allowed = " or ".join(_ALLOWED[wanted])
        raise ConflictError(
            f"the rollout is {status}; {wanted.replace('_', ' ')} is for one that is {allowed}"
        )
    head = msgspec.structs.replace(view.head, status=_BECOMES[wanted])
    accepted = ""
    if wanted is Intervention.RESUME and status is Status.STOPPED:
        head = msgspec.structs.replace(
            head,
            compared_stage=head.stage,
            compared_devices=view.total(MemberState.HEALTHY),
        )
        bad = view.total(MemberState.FAILED, MemberState.SILENT)
        accepted = f" and accepted {counted(bad, 'failed or silent device')}" if bad else ""
    said = f": {why}" if why else ""
    return Decision(
        kind=_KINDS[wanted],
        reason=f"{who} {_WORDS[wanted]}{accepted}{said}.",
        inputs=sentences.inputs(view) | {"operator": who},
        head=head,
    )


def excuses(before: Head, decision: Decision) -> bool:
    """Say whether a decision excuses the devices that failed or fell silent before it."""
    return decision.kind is Kind.RESUMED and before.status is Status.STOPPED


def retry(view: View, device_id: str, state: MemberState, *, who: str) -> Decision:
    """Return the decision to let one device try again; its turn comes within the budget.

    Raises:
        ConflictError: the device has neither failed nor fallen silent, or the rollout is over.
    """
    if view.head.status not in _RETRYABLE:
        allowed = " or ".join(_RETRYABLE)
        raise ConflictError(
            f"the rollout is {view.head.status}; a device is tried again in one that is {allowed}"
        )
    if state not in {MemberState.FAILED, MemberState.SILENT}:
        raise ConflictError(
            f"{device_id} is {state} in this rollout; only a failed or silent device is tried again"
        )
    return Decision(
        kind=Kind.RETRIED,
        reason=f"{who} lets {device_id} try {view.plan.version} again.",
        inputs=sentences.inputs(view) | {"operator": who},
        head=view.head,
        devices=(device_id,),
        become=MemberState.WAITING,
    )


_WORDS = {
    Intervention.PAUSE: "paused the rollout",
    Intervention.RESUME: "resumed the rollout",
    Intervention.ABORT: "aborted the rollout; devices keep what they have",
    Intervention.ROLL_BACK: "asked for a roll-back",
}
