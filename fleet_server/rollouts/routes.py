"""Routes of rollouts."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from fleet_server.accounts.authorization import Operator, Reader
from fleet_server.paging import AfterId, AfterName, Limit, following
from fleet_server.rollouts import views
from fleet_server.rollouts.interventions import Intervention
from fleet_server.rollouts.members import MemberState
from fleet_server.rollouts.schemas import (
    CreateRollout,
    DecisionPage,
    MemberPage,
    RolloutPage,
    RolloutView,
    Words,
)
from fleet_server.rollouts.state import Status
from fleet_server.services import Services, Wired

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"])

_SHOWN_DECISIONS = 20
_NOTHING_SAID = Words()

RolloutId = Annotated[int, Path(ge=1, le=2**63 - 1)]
DeviceId = Annotated[str, Path(max_length=63)]


@router.post("", status_code=201)
async def create_rollout(request: CreateRollout, services: Wired, account: Operator) -> RolloutView:
    """Create a rollout; it begins at once with its first stage."""
    plan = views.plan_of(request)
    await services.assignments.entry(plan.family, plan.version)
    rollout_id = await services.founding.create(
        plan,
        selector_text=request.selector,
        group=request.group,
        who=account.name,
    )
    return await _view(services, rollout_id)


@router.get("")
async def list_rollouts(
    services: Wired,
    _account: Reader,
    family: Annotated[str | None, Query(max_length=64)] = None,
    status: Status | None = None,
    after: AfterId = None,
    limit: Limit = 100,
) -> RolloutPage:
    """List rollouts, the newest first."""
    rows = await services.rollouts.page(after=after, limit=limit, family=family, status=status)
    return RolloutPage(
        rollouts=[views.summary(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.id),
    )


@router.get("/{rollout_id}")
async def get_rollout(rollout_id: RolloutId, services: Wired, _account: Reader) -> RolloutView:
    """Show a rollout: stages, progress, what it waits for and why, and its newest decisions."""
    return await _view(services, rollout_id)


@router.get("/{rollout_id}/decisions")
async def list_decisions(
    rollout_id: RolloutId,
    services: Wired,
    _account: Reader,
    after: AfterId = None,
    limit: Limit = 100,
) -> DecisionPage:
    """List what was decided and observed, with the inputs of each decision, the newest first."""
    rows = await services.rollouts.decisions(rollout_id, after=after, limit=limit)
    return DecisionPage(
        decisions=[views.decision(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.number),
    )


@router.get("/{rollout_id}/devices")
async def list_rollout_devices(
    rollout_id: RolloutId,
    services: Wired,
    _account: Reader,
    state: MemberState | None = None,
    after: AfterName = None,
    limit: Limit = 100,
) -> MemberPage:
    """List the devices of a rollout in the order of their ids."""
    rows = await services.rollouts.members(rollout_id, after=after, limit=limit, state=state)
    return MemberPage(
        devices=[views.member(row) for row in rows],
        next_after=following(rows, limit, lambda row: row.device_id),
    )


@router.post("/{rollout_id}/pause")
async def pause_rollout(
    rollout_id: RolloutId, services: Wired, account: Operator, words: Words = _NOTHING_SAID
) -> RolloutView:
    """Decide nothing until it is resumed; devices that are changing go on."""
    return await _intervene(services, rollout_id, Intervention.PAUSE, account.name, words)


@router.post("/{rollout_id}/resume")
async def resume_rollout(
    rollout_id: RolloutId, services: Wired, account: Operator, words: Words = _NOTHING_SAID
) -> RolloutView:
    """Go on. After a stop this accepts the devices that failed or fell silent until now."""
    return await _intervene(services, rollout_id, Intervention.RESUME, account.name, words)


@router.post("/{rollout_id}/abort")
async def abort_rollout(
    rollout_id: RolloutId, services: Wired, account: Operator, words: Words = _NOTHING_SAID
) -> RolloutView:
    """End it where it is; devices keep what they have."""
    return await _intervene(services, rollout_id, Intervention.ABORT, account.name, words)


@router.post("/{rollout_id}/rollback")
async def roll_back_rollout(
    rollout_id: RolloutId, services: Wired, account: Operator, words: Words = _NOTHING_SAID
) -> RolloutView:
    """Let every device that has the release go back to what it ran before."""
    return await _intervene(services, rollout_id, Intervention.ROLL_BACK, account.name, words)


@router.post("/{rollout_id}/devices/{device_id}/retry")
async def retry_device(
    rollout_id: RolloutId, device_id: DeviceId, services: Wired, account: Operator
) -> RolloutView:
    """Let one device that failed or fell silent try again, when the budget has room."""
    await services.rollouts.retry(rollout_id, device_id, who=account.name)
    return await _view(services, rollout_id)


async def _intervene(
    services: Services, rollout_id: int, wanted: Intervention, who: str, words: Words
) -> RolloutView:
    await services.rollouts.intervene(rollout_id, wanted, who=who, why=words.reason)
    return await _view(services, rollout_id)


async def _view(services: Services, rollout_id: int) -> RolloutView:
    standing = await services.rollouts.standing(rollout_id)
    rows = await services.rollouts.decisions(rollout_id, after=None, limit=_SHOWN_DECISIONS)
    return views.rollout(standing, [views.decision(row) for row in rows])
