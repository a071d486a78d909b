"""The route of assignments."""

from fastapi import APIRouter

from fleet_server.accounts.authorization import Operator
from fleet_server.assignments.schemas import AssignedDevice, AssignRequest, AssignResponse
from fleet_server.assignments.terms import terms_of
from fleet_server.services import Wired

router = APIRouter(prefix="/api/v1/assignments", tags=["assignments"])


@router.put("")
async def assign(request: AssignRequest, services: Wired, _account: Operator) -> AssignResponse:
    """Assign a release to devices; repeating it makes a device try a failed release again.

    `delivery` says when and how fast the release may come; without it: now, as fast as it goes.
    While a rollout of the family is under way on one of the devices it is refused with 409.
    """
    await services.rollouts.check_assignable(request.family, request.devices)
    rows = await services.assignments.assign(
        family=request.family,
        version=request.version,
        devices=request.devices,
        terms=terms_of(request.delivery),
    )
    return AssignResponse(
        family=request.family,
        version=request.version,
        assigned=[
            AssignedDevice(device_id=row.device_id, assignment_version=row.version) for row in rows
        ],
    )
