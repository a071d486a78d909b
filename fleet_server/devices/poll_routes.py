"""The route by which devices poll for their assignment, for fleets and hours without MQTT."""

from fastapi import APIRouter, Request, Response

from fleet_server.accounts.authorization import bearer_token
from fleet_server.devices import polls
from fleet_server.services import Wired

router = APIRouter(tags=["device"])


@router.get(polls.PATH)
async def poll_assignment(request: Request, services: Wired) -> Response:
    """Return the newest signed assignment; 304 if the device has it, 204 if there is none.

    Most polls do not come here: `fleet_server.guarded_http` answers them with 304 from memory.
    """
    document = await services.polls.newest(bearer_token(request))
    headers = {"ETag": document.etag, "Cache-Control": "no-cache"}
    held = request.headers.get("if-none-match", "")
    if document.etag in {tag.strip().removeprefix("W/") for tag in held.split(",")}:
        return Response(status_code=304, headers=headers)
    if document.content is None:
        return Response(status_code=204, headers=headers)
    return Response(document.content, headers=headers, media_type="application/json")
