"""What to do next: a pure function from what is wanted and what is there to actions.

It knows nothing of how an action is done or how long it takes; whoever carries them out looks
again after each round. It is the crash recovery too: a restart in any state of an update gives a
situation that this table has an answer for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edge_agent.control.assignment import AssignedRelease, Assignment, ManifestRef
from edge_agent.control.blob_audit import Damage
from edge_agent.control.journal import MAX_ATTEMPTS, Committed, UpdateRecord
from edge_agent.control.waiting import AT_ONCE, Waiting, held_back
from edge_agent.runtime_api import ActiveRelease, LoadedRelease, RuntimeStatus
from fleet_protocol.update_states import UpdateState


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is wanted and what is there.

    Attributes:
        assignment: the accepted one; None before the first, which is not an order to stop.
        may_install: false once the assignment has expired.
        active: ``active.json`` by family: what the runtime serves after a restart.
        committed: what the journal knows of committed releases.
        runtime: its status, None while it does not answer.
        damaged: by family, what is wrong with its committed file.
        waiting: what the terms of delivery keep a family from now.
        withdrawn: by family, why the update that is under way must not be committed.
        alarms: what the operator should look after; decides nothing here.
    """

    assignment: Assignment | None
    may_install: bool
    records: Mapping[str, UpdateRecord]
    active: Mapping[str, ActiveRelease]
    committed: Mapping[str, Committed]
    runtime: RuntimeStatus | None
    damaged: Mapping[str, Damage] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()

    def waits(self, family: str) -> Waiting:
        """Return what the terms keep a family from: a change, never a repair."""
        wanted = None if self.assignment is None else self.assignment.releases.get(family)
        committed = self.committed.get(family)
        if wanted is not None and committed is not None and committed.manifest == wanted.manifest:
            return AT_ONCE
        return self.waiting.get(family, AT_ONCE)

    def held_back(self, record: UpdateRecord) -> str:
        """Return what the terms keep an update from that is under way; empty for nothing."""
        return held_back(record.state, self.waits(record.family))


@dataclass(frozen=True, slots=True)
class Begin:
    """Start an update to an assigned release."""

    release: AssignedRelease


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download and verify; resumes what is there."""

    family: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Fetch the damaged file of a committed release anew, beside whatever update is under way.

    The journal knows what was verified at its commit, so neither an assignment nor fresh metadata
    is asked for: no other bytes can come of it.
    """

    release: ActiveRelease
    manifest: ManifestRef

    @property
    def family(self) -> str:
        """Whose file it is."""
        return self.release.family


@dataclass(frozen=True, slots=True)
class Try:
    """Load the candidate, check it, switch to it; safe to repeat."""

    family: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Look how the candidate's answers to live requests agree, and switch if they do."""

    family: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Judge the candidate that serves on probation."""

    family: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Write the candidate to ``active.json`` if it is not there, then the journal."""

    family: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Settle an update as failed or rolled back, whichever its state asks for.

    Attributes:
        retry: the release may be tried again under the same assignment.
    """

    family: str
    reason: str
    retry: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop serving a family that is not assigned and forget it; ``active.json`` first."""

    family: str


@dataclass(frozen=True, slots=True)
class Serve:
    """Let the runtime serve the committed release, which it does not."""

    release: ActiveRelease


@dataclass(frozen=True, slots=True)
class StopFamily:
    """Stop what the runtime serves without being committed or on probation."""

    family: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Drop a release that nobody needs from the runtime's memory."""

    family: str
    version: str


Action = (
    Begin
    | Fetch
    | Repair
    | Try
    | Compare
    | Watch
    | Commit
    | GiveUp
    | Remove
    | Serve
    | StopFamily
    | Unload
)


def reconcile(situation: Situation) -> list[Action]:
    """Return what to do now, in order; empty when everything is as it shall be."""
    families: set[str] = {*situation.records, *situation.active, *situation.committed}
    if situation.assignment is not None:
        families.update(situation.assignment.releases)
    if situation.runtime is not None:
        families.update(release.family for release in situation.runtime.releases)
    return [action for family in sorted(families) for action in _family(family, situation)]


def is_committed(release: AssignedRelease, situation: Situation) -> bool:
    """Say whether an assigned release is what ``active.json`` and journal agree on."""
    committed = situation.committed.get(release.family)
    return (
        committed is not None
        and committed.manifest == release.manifest
        and committed.release == situation.active.get(release.family)
    )


def _family(family: str, situation: Situation) -> Iterator[Action]:
    record = situation.records.get(family)
    if record is not None and not record.settled:
        yield from _under_way(record, situation)
    elif situation.assignment is not None:
        wanted = situation.assignment.releases.get(family)
        if wanted is None:
            yield Remove(family)
            return
        begin = _begin(wanted, record, situation)
        if begin is not None:
            yield begin
    yield from _repair(family, situation)
    if situation.runtime is not None:
        yield from _serving(family, record, situation, situation.runtime)


def _repair(family: str, situation: Situation) -> Iterator[Action]:
    committed = situation.committed.get(family)
    if (
        family in situation.damaged
        and committed is not None
        and committed.release == situation.active.get(family)
    ):
        yield Repair(committed.release, committed.manifest)


def _under_way(record: UpdateRecord, situation: Situation) -> Iterator[Action]:
    candidate = record.candidate.release if record.candidate is not None else None
    if record.state is UpdateState.PROBATION and situation.active.get(record.family) == candidate:
        yield Commit(record.family)  # died between active.json and the journal
    elif _is_superseded(record, situation):
        yield GiveUp(record.family, "the assignment no longer asks for it", retry=True)
    elif candidate is not None and record.family in situation.withdrawn:
        yield GiveUp(record.family, situation.withdrawn[record.family], retry=False)
    elif record.state is UpdateState.DOWNLOADING:
        if situation.may_install and not situation.held_back(record):
            yield Fetch(record.family)
    elif situation.runtime is not None:
        yield from _tried(record, situation, situation.runtime)


def _tried(record: UpdateRecord, situation: Situation, runtime: RuntimeStatus) -> Iterator[Action]:
    """Take a verified release through trial and probation."""
    if record.state is UpdateState.PROBATION:
        yield _on_probation(record, runtime)
    elif _serves_unwatched(record, situation, runtime):
        return  # `_serving` puts back what is committed
    elif _shadows(record, runtime):
        yield Compare(record.family)
    elif record.attempts >= MAX_ATTEMPTS:
        last = (
            record.ended_because
            or record.detail
            or "runtime or control stopped in the middle of the trial"
        )
        reason = f"{record.attempts} attempts did not get through, the last one because: {last}"
        yield GiveUp(record.family, reason, retry=False)
    elif situation.held_back(record):
        return
    elif situation.may_install or record.state is UpdateState.TRIAL:
        yield Try(record.family)


def _is_superseded(record: UpdateRecord, situation: Situation) -> bool:
    if situation.assignment is None:
        return False
    wanted = situation.assignment.releases.get(record.family)
    return wanted is None or wanted.manifest != record.manifest


def _serves_unwatched(record: UpdateRecord, situation: Situation, runtime: RuntimeStatus) -> bool:
    """Say whether a candidate serves of which the journal does not know that it was switched to."""
    serving = _serving_release(runtime, record.family)
    committed = situation.active.get(record.family)
    return (
        serving is not None
        and serving.version == record.version
        and (committed is None or committed.version != record.version)
    )


def _shadows(record: UpdateRecord, runtime: RuntimeStatus) -> bool:
    return record.state is UpdateState.TRIAL and record.shadow_epoch == runtime.epoch


def _on_probation(record: UpdateRecord, runtime: RuntimeStatus) -> Action:
    retry = record.attempts < MAX_ATTEMPTS
    if runtime.epoch != record.epoch:
        why = "the runtime restarted during the probation"
        if record.ended_because:
            why = f"the runtime was ended during the probation because {record.ended_because}"
        return GiveUp(record.family, why, retry=retry)
    serving = _serving_release(runtime, record.family)
    if serving is None or serving.version != record.version:
        return GiveUp(record.family, "the runtime no longer serves the candidate", retry=retry)
    return Watch(record.family)


def _begin(
    wanted: AssignedRelease, record: UpdateRecord | None, situation: Situation
) -> Begin | None:
    if not situation.may_install or situation.assignment is None:
        return None
    if situation.waits(wanted.family).download:
        return None
    tried_in_vain = (
        record is not None
        and record.state in {UpdateState.FAILED, UpdateState.ROLLED_BACK}
        and not record.retry
        and record.manifest == wanted.manifest
        and record.assignment_version == situation.assignment.version
    )
    if tried_in_vain:
        return None
    if is_committed(wanted, situation) and not _has_lost_its_place(wanted.family, situation):
        return None
    return Begin(wanted)


def _has_lost_its_place(family: str, situation: Situation) -> bool:
    """Say whether the runtime cannot serve the committed variant: its accelerator is gone."""
    runtime, committed = situation.runtime, situation.active.get(family)
    if runtime is None or committed is None or family not in runtime.failed:
        return False
    usable = [
        place
        for place in runtime.placements
        if not place.problem
        and (place.format, place.accelerator) == (committed.format, committed.accelerator)
        and committed.backend in {"", place.backend}
    ]
    return bool(runtime.placements) and not usable


def _serving(
    family: str, record: UpdateRecord | None, situation: Situation, runtime: RuntimeStatus
) -> Iterator[Action]:
    """Bring what the runtime holds in line with what is committed and what is on trial."""
    trial = record if record is not None and _holds_candidate(record) else None
    committed = situation.active.get(family)
    serving = _serving_release(runtime, family)
    if trial is None or trial.state is UpdateState.TRIAL:
        if committed is None and serving is not None:
            if family not in situation.committed:
                yield StopFamily(family)
            return
        damage = situation.damaged.get(family)
        if committed is not None and (damage is None or not damage.lost):
            served = serving.version if serving is not None else None
            if served != committed.version:
                yield Serve(committed)
    wanted = {committed.version} if committed is not None else set()
    if trial is not None:
        wanted.add(trial.version)
    for release in runtime.releases:
        if release.family == family and not release.active and release.version not in wanted:
            yield Unload(family, release.version)


def _holds_candidate(record: UpdateRecord) -> bool:
    return record.state in {UpdateState.TRIAL, UpdateState.PROBATION}


def _serving_release(runtime: RuntimeStatus, family: str) -> LoadedRelease | None:
    for release in runtime.releases:
        if release.family == family and release.active:
            return release
    return None
