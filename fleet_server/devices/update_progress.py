"""How far a device is with what it shall run: derived from assignment and report, never stored.

"Updated" means that the device says the assigned release is committed, which it does only after it
served healthily. Anything that the device has not said counts as not done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleet_protocol.messages import Reported
from fleet_protocol.update_states import UpdateState
from fleet_server.assignments.entries import Entry


class Progress(StrEnum):
    """One word for a device or for one of its families."""

    UNASSIGNED = "unassigned"
    """Nothing is assigned."""
    WAITING = "waiting"
    """The device has not said that it accepted the newest assignment."""
    UPDATING = "updating"
    UPDATED = "updated"
    FAILED = "failed"
    """The release was refused or taken back; the previous one serves."""


_OF_STATE = {
    UpdateState.FAILED: Progress.FAILED,
    UpdateState.ROLLED_BACK: Progress.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyProgress:
    """Where one family stands.

    Attributes:
        state: the device's own word for this release's update, if it has said one.
        detail: the device's reason for a failure.
    """

    family: str
    assigned_version: str
    running_version: str | None
    progress: Progress
    state: UpdateState | None
    detail: str


def of_device(
    entries: Sequence[Entry], *, assignment_version: int, reported: Reported | None
) -> tuple[Progress, list[FamilyProgress]]:
    """Compare what is assigned with what is reported.

    Returns:
        The word for the whole device (its slowest family) and the families.
    """
    accepted = reported is not None and reported.assignment_version >= assignment_version
    families = [_of_family(entry, reported, accepted=accepted) for entry in entries]
    if not families:
        return Progress.UNASSIGNED, []
    for word in (Progress.FAILED, Progress.WAITING, Progress.UPDATING):
        if any(family.progress is word for family in families):
            return word, families
    return Progress.UPDATED, families


def _of_family(entry: Entry, reported: Reported | None, *, accepted: bool) -> FamilyProgress:
    running = next(
        (model for model in (reported.running if reported else ()) if model.family == entry.family),
        None,
    )
    update = next(
        (
            status
            for status in (reported.updates if reported else ())
            if (status.family, status.version) == (entry.family, entry.version)
        ),
        None,
    )
    serves = running is not None and running.version == entry.version and running.committed
    if not accepted:
        progress = Progress.WAITING
    elif serves and reported is not None and reported.runtime_up:
        progress = Progress.UPDATED
    else:
        progress = _OF_STATE.get(update.state, Progress.UPDATING) if update else Progress.UPDATING
    return FamilyProgress(
        family=entry.family,
        assigned_version=entry.version,
        running_version=running.version if running else None,
        progress=progress,
        state=update.state if update and accepted else None,
        detail=update.detail if update and accepted else "",
    )
