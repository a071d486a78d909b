"""The route of deltas."""

from fastapi import APIRouter, Request, Response

from fleet_protocol import names
from fleet_server import http_errors
from fleet_server.accounts.authorization import bearer_token
from fleet_server.deltas.service import NotReadyError, Pair
from fleet_server.errors import NotFoundError
from fleet_server.releases.repository import Repository
from fleet_server.releases.routes import parse_hashed
from fleet_server.releases.target_response import TargetResponse
from fleet_server.releases.verification import StoredFile, files_of
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
    pair = _pair(services.releases.repository, family, target, stored, base=base)
    try:
        location = await services.deltas.get(pair)
    except NotReadyError as error:
        return http_errors.answer(202, "not_ready", str(error), {"Retry-After": "60"})
    return TargetResponse(location, media_type="application/octet-stream")


def _pair(
    repository: Repository, family: str, target: str, stored: StoredFile, *, base: str
) -> Pair:
    role = repository.published.families.get(family)
    files = {} if role is None else files_of(role)
    if target not in files or files[target].sha256 != stored.sha256:
        raise NotFoundError(f"there is no target {target!r}")
    for held, file in files.items():
        if file.sha256 == base:
            return Pair(
                base_sha256=base,
                new_sha256=stored.sha256,
                base=repository.target_file(held, file),
                new=repository.target_file(target, StoredFile(0, stored.sha256)),
            )
    raise NotFoundError(f"{family} has no file with the SHA-256 {base[:64]!r}")
