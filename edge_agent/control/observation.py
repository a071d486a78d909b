"""The device as last looked at: what the reconciler decides on and what is reported."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import msgspec

from edge_agent.control.pulse import Pulse
from edge_agent.control.reconcile import Situation, is_committed
from edge_agent.control.variants import placements_of
from edge_agent.runtime_api import Placement, RuntimeStatus
from fleet_protocol.messages import (
    MAX_CHOICE,
    MAX_DETAIL,
    Capabilities,
    Reported,
    RunningModel,
    UpdateStatus,
)
from fleet_protocol.remote_settings import NO_CONFIGURATION, ConfigurationStatus
from fleet_protocol.update_states import UpdateState


@dataclass
class Observation:
    """Shared by the updater, which writes it, and the reporter.

    Attributes:
        changed: bumped when a new situation differs from the one before.
        troubles: by family, why its journal could not be written; gone when it could.
        max_bytes_per_s: that downloads of this device may take; 0 for no limit.
    """

    situation: Situation | None = None
    changed: Pulse = field(default_factory=Pulse)
    troubles: dict[str, str] = field(default_factory=dict)
    max_bytes_per_s: int = 0

    def see(self, situation: Situation) -> None:
        """Take note of a new situation."""
        differs = self.situation is None or _steady(situation) != _steady(self.situation)
        before = {} if self.situation is None else self.situation.records
        for family in list(self.troubles):
            if situation.records.get(family) != before.get(family):
                del self.troubles[family]
        self.situation = situation
        if differs:
            self.changed.bump()

    def rate_limit(self, family: str) -> int | None:
        """Return how many bytes per second the newest assignment allows, None for any number."""
        if self.situation is None or self.situation.assignment is None:
            return None
        release = self.situation.assignment.releases.get(family)
        stated = None if release is None else release.terms.max_bytes_per_s
        return min((limit for limit in (stated, self.max_bytes_per_s) if limit), default=None)

    def note(self, family: str, trouble: str) -> None:
        """Keep in memory what a full disk does not let the journal say."""
        if self.troubles.get(family) != trouble:
            self.troubles[family] = trouble
            self.changed.bump()


def _steady(situation: Situation) -> Situation:
    """Return a situation without what changes all the time."""
    if situation.runtime is None:
        return situation
    runtime = msgspec.structs.replace(
        situation.runtime, resident_bytes=0, running_s={}, loading_s=0.0
    )
    return replace(situation, runtime=runtime)


def reported(  # noqa: PLR0913 (what is reported, by keyword)
    situation: Situation,
    *,
    at_ms: int,
    agent_version: str,
    capabilities: Capabilities,
    configuration: ConfigurationStatus = NO_CONFIGURATION,
    command_sequence: int = 0,
    troubles: Mapping[str, str] = MappingProxyType({}),
) -> Reported:
    """Return the reported state of a situation; troubles by family go before what it says."""
    assignment = situation.assignment
    return Reported(
        at_ms=at_ms,
        agent_version=agent_version,
        assignment_version=0 if assignment is None else assignment.version,
        runtime_up=situation.runtime is not None,
        running=_running(situation.runtime, situation) if situation.runtime is not None else [],
        updates=[
            msgspec.structs.replace(
                status, detail=troubles.get(status.family, status.detail)[:MAX_DETAIL]
            )
            for status in _updates(situation)
        ],
        alarms=list(situation.alarms),
        capabilities=capabilities,
        configuration=configuration,
        command_sequence=command_sequence,
    )


def backends_of(situation: Situation | None) -> Mapping[str, str]:
    """Return the backends that the runtime reports, none while it does not answer."""
    if situation is None or situation.runtime is None:
        return {}
    return situation.runtime.backends


def placements_seen(situation: Situation | None) -> list[Placement]:
    """Return what the runtime can do where, nothing while it does not answer."""
    return placements_of(None if situation is None else situation.runtime)


def _running(runtime: RuntimeStatus, situation: Situation) -> list[RunningModel]:
    return [
        RunningModel(
            family=release.family,
            version=release.version,
            variant=release.variant,
            backend=release.backend,
            accelerator=release.accelerator,
            choice=release.choice[:MAX_CHOICE],
            committed=(committed := situation.active.get(release.family)) is not None
            and committed.version == release.version,
        )
        for release in runtime.releases
        if release.active
    ]


def _updates(situation: Situation) -> list[UpdateStatus]:
    """Return where each assigned family stands with what it is assigned now."""
    if situation.assignment is None:
        return []
    statuses = []
    for family, wanted in sorted(situation.assignment.releases.items()):
        record = situation.records.get(family)
        state, detail = UpdateState.IDLE, ""
        if record is not None and not record.settled:
            statuses.append(
                UpdateStatus(
                    family=family,
                    version=record.version,
                    state=record.state,
                    detail=situation.held_back(record) or record.detail,
                )
            )
            continue
        if is_committed(wanted, situation):
            state, detail = _committed(wanted.version, family, situation)
        elif record is not None and record.manifest == wanted.manifest:
            state, detail = record.state, record.detail
        elif not situation.may_install:
            detail = "the assignment has expired; nothing new is installed"
        else:
            detail = situation.waits(family).download
        statuses.append(
            UpdateStatus(family=family, version=wanted.version, state=state, detail=detail)
        )
    return statuses


def _committed(version: str, family: str, situation: Situation) -> tuple[UpdateState, str]:
    """Return how a committed release stands: it counts as updated only where it serves."""
    runtime = situation.runtime
    if runtime is None:
        return UpdateState.IDLE, "it is committed; the runtime does not answer"
    if any(
        release.active and (release.family, release.version) == (family, version)
        for release in runtime.releases
    ):
        return UpdateState.COMMITTED, ""
    record = situation.records.get(family)
    if record is not None and record.state is not UpdateState.COMMITTED and record.detail:
        return record.state, record.detail
    if family in runtime.failed:
        return UpdateState.FAILED, f"the runtime cannot serve it: {runtime.failed[family]}"[:4000]
    return UpdateState.IDLE, "it is committed; the runtime does not serve it yet"
