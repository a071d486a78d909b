"""The engine's words: what a view means, as sentences and as the numbers behind them."""

from datetime import UTC, datetime

from fleet_protocol.counting import counted
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.state import Status, View, Wait
from fleet_server.rollouts.windows import next_opening

_S = MemberState


def inputs(view: View) -> dict[str, object]:
    """Return what a decision rests on, as JSON values."""
    return {
        "now_ms": view.now_ms,
        "status": view.head.status.value,
        "stage": view.head.stage + 1,
        "stages": [
            {
                "size": counts.size,
                **{state.value: count for state, count in sorted(counts.states.items()) if count},
                "excused": counts.excused_failed + counts.excused_silent,
            }
            for counts in view.stages
        ],
        "in_flight": view.in_flight,
        "untold": view.untold,
        "max_in_flight": view.plan.max_in_flight,
        "window_open": view.window_open,
        "min_samples": view.plan.min_samples,
        "failure_threshold": view.plan.failure_threshold,
        "timeout_threshold": view.plan.timeout_threshold,
    }


def stage(view: View, index: int) -> str:
    """Say how the devices of a stage ended."""
    counts = view.stages[index]
    healthy, verb = counts.of(_S.HEALTHY), "is" if counts.of(_S.HEALTHY) == 1 else "are"
    parts = [f"{healthy} of {counted(counts.size, 'device')} of stage {index + 1} {verb} healthy"]
    if counts.of(_S.FAILED):
        parts.append(f"{counts.of(_S.FAILED)} failed")
    if counts.of(_S.SILENT):
        parts.append(f"{counts.of(_S.SILENT)} fell silent")
    return ", ".join(parts)


def waiting(view: View) -> str:
    """Say what a running rollout waits for."""
    index = view.head.stage
    counts = view.stages[index]
    open_still = counts.of(_S.WAITING, _S.PREPARED, _S.ACTIVATING)
    where = f"stage {index + 1} of {len(view.stages)}"
    if view.turn and not view.window_open:
        opens = datetime.fromtimestamp(next_opening(view.plan.window, view.now_ms) / 1000, UTC)
        return f"{where} waits for the maintenance window that opens at {opens:%Y-%m-%d %H:%MZ}"
    if open_still:
        return (
            f"{where}: {stage(view, index)}, "
            + counted(counts.of(_S.ACTIVATING), "is changing", "are changing")
            + f"{untold(view)}, "
            + counted(
                counts.of(_S.WAITING, _S.PREPARED), "waits for its turn", "wait for their turn"
            )
        )
    soak_ms = view.plan.stages[index].soak_s * 1000
    if view.settled_ms is not None and view.watched_ms < soak_ms:
        left_s = (soak_ms - view.watched_ms) / 1000
        return f"{where} is watched for {left_s:.0f} s more: {stage(view, index)}"
    return f"{where} waits for enough calls to compare the releases: {stage(view, index)}"


def untold(view: View) -> str:
    """Say how many of those that change wait for the server itself, "" for none."""
    if not view.untold:
        return ""
    have = counted(view.untold, "of them has", "of them have")
    return f" ({have} no signed assignment yet, and no time is counted)"


def late(view: View) -> str:
    """Say whom a rollout that is rolled back still waits for, "" for nobody."""
    silent = view.total(_S.RECALLED)
    if view.head.status is not Status.ROLLED_BACK or not silent:
        return ""
    return "rolled back: " + counted(
        silent,
        "device has not answered and goes back when it does",
        "devices have not answered and go back when they do",
    )


def deaf(view: View) -> str:
    """Say until when no time counts because the fleet was not heard, "" if time counts."""
    ends_ms = [last for first, last in view.deaf if first <= view.now_ms < last]
    if not ends_ms or view.head.status not in {Status.RUNNING, Status.ROLLING_BACK}:
        return ""
    until = datetime.fromtimestamp(max(ends_ms) / 1000, UTC)
    return (
        f"; the servers did not hear the fleet, so no time counts before {until:%H:%M:%SZ}, which "
        "leaves devices time to connect again"
    )


def wait(view: View, reason: str) -> Wait:
    """Return that nothing is done now, and why."""
    said = f"{reason[:1].upper()}{reason[1:]}{deaf(view)}."
    return Wait(reason=said, inputs=inputs(view))
