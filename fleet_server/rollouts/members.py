"""One device in a rollout: its states, and what its report says about it.

Success is the device's own word that the release is committed, which it gives only after it served
healthily on probation. Silence past the deadline counts as failure; a device that answers later is
counted as what it then says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleet_protocol.messages import Reported, RunningModel, UpdateStatus
from fleet_protocol.update_states import UpdateState
from fleet_server.clock import Span
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.windows import open_ms
from fleet_server.storable import storable


class MemberState(StrEnum):
    """Where a device stands in the rollout."""

    WAITING = "waiting"
    """It runs what it ran before."""
    PREPARED = "prepared"
    """It fetches the release ahead and must not activate it yet."""
    ACTIVATING = "activating"
    """In flight: it was told to activate the release and has not settled."""
    HEALTHY = "healthy"
    """It committed the release after its probation."""
    FAILED = "failed"
    """It refused the release or took it back."""
    SILENT = "silent"
    """It did not settle before the deadline."""
    RETURNING = "returning"
    """In flight: it was told to run what it ran before."""
    RETURNED = "returned"
    """It runs what it ran before, or by now something else, and not the release."""
    RECALLED = "recalled"
    """It was told to go back and nothing waits for it: it had not changed, or does not answer."""
    GONE = "gone"
    """It was decommissioned."""


_S = MemberState
IN_FLIGHT = frozenset({_S.ACTIVATING, _S.RETURNING})
"""What the disruption budget counts."""
WATCHED = frozenset({_S.ACTIVATING, _S.FAILED, _S.SILENT, _S.RETURNING, _S.RECALLED})
"""States that a report or the clock may end."""
TO_RETURN = (_S.ACTIVATING, _S.HEALTHY)
"""States from which going back disturbs the device; those in flight come first."""
TO_RECALL = (_S.PREPARED, _S.FAILED, _S.SILENT)
"""States in which the device does not run the release, as far as is known, but is assigned it."""

_UNSUCCESSFUL = frozenset({UpdateState.FAILED, UpdateState.ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device.

    Attributes:
        previous_version: what it was assigned before; None for nothing.
        ordered_ms: when it was told to activate or to go back; until the assignment that tells it
            is signed, when that was decided.
        assignment_version: of the assignment that tells it; None until that is signed.
    """

    device_id: str
    stage: int
    state: MemberState
    previous_version: str | None = None
    ordered_ms: int | None = None
    assignment_version: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A new state of a member, and why."""

    device_id: str
    state: MemberState
    detail: str


def settled(  # noqa: PLR0913 (what is known, by keyword)
    member: Member,
    plan: Plan,
    *,
    reported: Reported | None,
    decommissioned: bool,
    now_ms: int,
    deaf: Sequence[Span] = (),
) -> Outcome | None:
    """Return what became of a device that is watched; None while that is open.

    Args:
        member: the device.
        plan: of its rollout.
        reported: what it said last.
        decommissioned: whether it is no part of the fleet any more.
        now_ms: the moment.
        deaf: spans in which the fleet was not heard: they count against nobody.
    """
    if decommissioned:
        return Outcome(member.device_id, _S.GONE, "it was decommissioned")
    if member.state not in WATCHED:
        return None
    goes_back = member.state in {_S.RETURNING, _S.RECALLED}
    said = (_back_again if goes_back else _on_new)(member, plan, reported)
    if said is not None:
        return None if said.state is member.state else said
    told_ms = member.ordered_ms if member.assignment_version is not None else None
    if member.state not in IN_FLIGHT or told_ms is None:
        return None
    window = None if goes_back else plan.window
    if open_ms(window, told_ms, now_ms, deaf) < plan.timeout_s * 1000:
        return None
    return Outcome(
        member.device_id,
        _S.RECALLED if goes_back else _S.SILENT,
        f"{plan.timeout_s:g} s after it was told, it had not settled: {_last_word(plan, reported)}",
    )


def _on_new(member: Member, plan: Plan, reported: Reported | None) -> Outcome | None:
    if not _accepted(member, reported):
        return None
    running, update = _of_family(plan.family, reported)
    if _serves(running, plan.version):
        return Outcome(member.device_id, _S.HEALTHY, "it committed the release")
    if update is not None and update.version == plan.version and update.state in _UNSUCCESSFUL:
        why = storable(update.detail) or "without a reason"
        return Outcome(member.device_id, _S.FAILED, f"{update.state}: {why}")
    return None


def _back_again(member: Member, plan: Plan, reported: Reported | None) -> Outcome | None:
    if not _accepted(member, reported):
        return None
    running, _ = _of_family(plan.family, reported)
    if member.previous_version is None and running is None:
        return Outcome(member.device_id, _S.RETURNED, "it runs no release of the family")
    if running is None or not running.committed:
        return None
    if running.version == member.previous_version or running.version != plan.version:
        return Outcome(member.device_id, _S.RETURNED, f"it runs {running.version}")
    return None


def _accepted(member: Member, reported: Reported | None) -> bool:
    return (
        reported is not None
        and member.assignment_version is not None
        and reported.assignment_version >= member.assignment_version
        and reported.runtime_up
    )


def _of_family(
    family: str, reported: Reported | None
) -> tuple[RunningModel | None, UpdateStatus | None]:
    if reported is None:
        return None, None
    running = next((model for model in reported.running if model.family == family), None)
    update = next((status for status in reported.updates if status.family == family), None)
    return running, update


def _serves(running: RunningModel | None, version: str) -> bool:
    return running is not None and running.version == version and running.committed


def _last_word(plan: Plan, reported: Reported | None) -> str:
    running, update = _of_family(plan.family, reported)
    if reported is None:
        return "it never reported"
    state = f"{update.state} {update.version}" if update is not None else "no update"
    serves = running.version if running is not None else "nothing"
    return f"its last report has {state} and serves {serves}"
