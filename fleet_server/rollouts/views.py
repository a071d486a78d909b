"""From what is stored to what the API says, and from what it is asked to a plan."""

import msgspec

from fleet_server.assignments.schemas import DeliveryBody
from fleet_server.assignments.terms import terms_of
from fleet_server.errors import RefusedError
from fleet_server.rollouts import plan as plans
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.plan import Plan
from fleet_server.rollouts.schemas import (
    CreateRollout,
    DecisionView,
    MemberView,
    RolloutSummary,
    RolloutView,
    StageView,
)
from fleet_server.rollouts.service import Standing
from fleet_server.rollouts.state import Kind, StageCounts, Status
from fleet_server.rollouts.tables import Rollout, RolloutDecision, RolloutMember


def plan_of(request: CreateRollout) -> Plan:
    """Return the plan that a request asks for.

    Raises:
        RefusedError: its parts contradict each other.
    """
    stated = request.plan.model_dump(exclude={"window"}, mode="json")
    terms = terms_of(DeliveryBody(window=request.plan.window))
    try:
        return msgspec.convert(
            {
                **stated,
                "family": request.family,
                "version": request.version,
                "window": msgspec.to_builtins(terms.window) if terms.window else None,
            },
            Plan,
        )
    except msgspec.ValidationError as error:
        raise RefusedError(f"plan: {error}") from error


def summary(row: Rollout) -> RolloutSummary:
    """Return a rollout as lists show it."""
    return RolloutSummary(
        id=row.id,
        family=row.family,
        version=row.version,
        group=row.group_name,
        selector=row.selector,
        status=Status(row.status),
        stage=row.stage + 1,
        stages=len(plans.decode(row.plan).stages),
        reason=row.reason,
        superseded_by=row.superseded_by,
        created_by=row.created_by,
        created_ms=row.created_ms,
        changed_ms=row.changed_ms,
    )


def rollout(standing: Standing, decisions: list[DecisionView]) -> RolloutView:
    """Return a rollout with everything that explains it."""
    seen = standing.seen
    view = seen.view
    return RolloutView(
        **summary(seen.row).model_dump(),
        explanation=standing.explanation,
        devices=sum(counts.size for counts in view.stages),
        healthy=view.total(MemberState.HEALTHY),
        failed=view.total(MemberState.FAILED),
        silent=view.total(MemberState.SILENT),
        in_flight=view.in_flight,
        progress=[
            _stage(index, seen.plan, counts, is_open=index <= view.head.stage)
            for index, counts in enumerate(view.stages)
        ],
        plan=msgspec.json.decode(seen.row.plan),
        decisions=decisions,
    )


def decision(row: RolloutDecision) -> DecisionView:
    """Return a row of the history."""
    return DecisionView(
        number=row.number,
        at_ms=row.at_ms,
        kind=Kind(row.kind),
        reason=row.reason,
        inputs=msgspec.json.decode(row.inputs),
        devices=msgspec.json.decode(row.devices),
    )


def member(row: RolloutMember) -> MemberView:
    """Return a device of a rollout."""
    return MemberView(
        device_id=row.device_id,
        stage=row.stage + 1,
        state=MemberState(row.state),
        excused=row.excused,
        retries=row.retries,
        previous_version=row.previous_version or None,
        assignment_version=row.assignment_version,
        ordered_ms=row.ordered_ms,
        settled_ms=row.settled_ms,
        detail=row.detail,
    )


def _stage(index: int, plan: Plan, counts: StageCounts, *, is_open: bool) -> StageView:
    stage = plan.stages[index]
    return StageView(
        number=index + 1,
        percent=stage.percent,
        count=stage.count,
        soak_s=stage.soak_s,
        open=is_open,
        devices=counts.size,
        states={state: count for state, count in sorted(counts.states.items()) if count},
        excused=counts.excused_failed + counts.excused_silent,
    )
