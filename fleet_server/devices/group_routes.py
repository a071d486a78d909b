"""Routes of groups."""

from fastapi import APIRouter, Response

from fleet_server.accounts.authorization import Operator, Reader
from fleet_server.devices.schemas import GroupPage, GroupRequest, GroupView
from fleet_server.paging import AfterName, Limit, following
from fleet_server.services import Wired

router = APIRouter(prefix="/api/v1/groups", tags=["devices"])


@router.get("")
async def list_groups(
    services: Wired, _account: Reader, after: AfterName = None, limit: Limit = 100
) -> GroupPage:
    """List groups in the order of their names."""
    rows = await services.groups.page(after=after, limit=limit)
    return GroupPage(
        groups=[GroupView.model_validate(row, from_attributes=True) for row in rows],
        next_after=following(rows, limit, lambda row: row.name),
    )


@router.get("/{name}")
async def get_group(name: str, services: Wired, _account: Reader) -> GroupView:
    """Show one group; `GET /api/v1/devices?group=` lists its devices."""
    return GroupView.model_validate(await services.groups.get(name), from_attributes=True)


@router.put("/{name}")
async def put_group(
    name: str, request: GroupRequest, services: Wired, _account: Operator
) -> GroupView:
    """Save a selector under a name."""
    group = await services.groups.put(
        name, selector_text=request.selector, description=request.description
    )
    return GroupView.model_validate(group, from_attributes=True)


@router.delete("/{name}", status_code=204)
async def delete_group(name: str, services: Wired, _account: Operator) -> Response:
    """Remove a group; its devices stay as they are."""
    await services.groups.delete(name)
    return Response(status_code=204)
