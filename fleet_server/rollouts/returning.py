"""The way back: devices get what they ran before, within the disruption budget, at any hour.

A bad release does not wait for a maintenance window. Devices that only were assigned it, or do not
answer, are recalled at once: nothing waits for them and they take no room in the budget.
"""

import msgspec

from fleet_protocol.counting import counted
from fleet_server.rollouts import sentences
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.state import MAX_DEVICES, Decision, Kind, Status, View, Wait

_S = MemberState


def decide(view: View) -> Decision | Wait:
    """Return what to do next for a rollout that rolls back."""
    recalled = recall(view)
    if recalled is not None:
        return recalled
    # Those in flight only change their direction: the budget holds them already.
    turning = view.total(_S.ACTIVATING)
    devices = view.to_return[: min(turning + view.room, MAX_DEVICES)]
    if devices:
        return Decision(
            kind=Kind.RETURNED,
            reason=(
                counted(
                    len(devices),
                    "device goes back to what it ran",
                    "devices go back to what they ran",
                )
                + f": {view.in_flight} of at most {view.plan.max_in_flight} were changing."
            ),
            inputs=sentences.inputs(view),
            head=view.head,
            devices=devices,
            become=_S.RETURNING,
        )
    if view.to_return or view.in_flight:
        return sentences.wait(
            view,
            "rolling back: "
            + counted(
                view.in_flight,
                "device has not said that it is back",
                "devices have not said that they are back",
            )
            + sentences.untold(view),
        )
    silent = counted(
        view.total(_S.RECALLED),
        "has not answered and goes back when it does",
        "have not answered and go back when they do",
    )
    back = counted(
        view.total(_S.RETURNED),
        "device runs what it ran before",
        "devices run what they ran before",
    )
    return Decision(
        kind=Kind.ROLLED_BACK,
        reason=f"Rolled back: {back}{'; ' + silent if view.total(_S.RECALLED) else ''}.",
        inputs=sentences.inputs(view),
        head=msgspec.structs.replace(view.head, status=Status.ROLLED_BACK),
    )


def recall(view: View) -> Decision | None:
    """Let devices that do not run the release be assigned what they run; that disturbs none."""
    devices = view.to_recall[:MAX_DEVICES]
    if not devices:
        return None
    return Decision(
        kind=Kind.RECALLED,
        reason=counted(
            len(devices),
            f"device that refused {view.plan.version}, has not activated it or does not answer is "
            "assigned again what it ran; nothing waits for it.",
            f"devices that refused {view.plan.version}, have not activated it or do not answer are "
            "assigned again what they ran; nothing waits for them.",
        ),
        inputs=sentences.inputs(view),
        head=view.head,
        devices=devices,
        become=_S.RECALLED,
    )
