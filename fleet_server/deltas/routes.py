"""The route of deltas."""

from fastapi import APIRouter, Request, Response

from fleet_protocol import names
from fleet_server import http_errors
from fleet_server.accounts.authorization import bearer_token
from fleet_server.deltas import pairs
from fleet_server.deltas.service import NotReadyError
from fleet_server.releases.routes import parse_hashed
from fleet_server.releases.target_response import TargetResponse
from fleet_server.services import Wired

device_router = APIRouter(prefix="/device/v1/repository/deltas", tags=["device"])


@device_router.get("/{base}/{path:path}")
async def delta(base: str, path: str, request: Request, services: Wired) -> Response:
    """Hand a device what makes a target of another file of its family.

    `base` is the SHA-256 of that file, `path` the target as under ``targets/``. 202 says that the
    delta is not made yet, 404 that there will be none: either way, fetch the target itself.
    """
    await services.devices.authenticate(bearer_token(request))
    target, stored = parse_hashed(path)
    family, _, _ = names.parse_target_path(target)
    await services.releases.check_owned(family)
    await services.releases.published()
    pair = pairs.asked_for(services.releases.repository, family, target, stored, base=base)
    try:
        location = await services.deltas.get(pair)
    except NotReadyError as error:
        return http_errors.answer(202, "not_ready", str(error), {"Retry-After": "60"})
    return TargetResponse(location, media_type="application/octet-stream")
