"""Routes of releases: the TUF repository for devices and publishers, uploads, lists."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import JsonValue
from starlette.requests import ClientDisconnect

from fleet_protocol import manifest as manifests
from fleet_protocol import names
from fleet_protocol.errors import ProtocolError
from fleet_server.accounts.authorization import Publisher, Reader, bearer_token
from fleet_server.deltas import pairs
from fleet_server.errors import FleetError, NotFoundError
from fleet_server.paging import AfterName, Limit, following
from fleet_server.releases import multipart
from fleet_server.releases.schemas import PublishedView, ReleaseDetail, ReleasePage, ReleaseView
from fleet_server.releases.service import checked_metadata_name
from fleet_server.releases.target_response import TargetResponse
from fleet_server.releases.verification import StoredFile
from fleet_server.services import Services, Wired

MAX_DRAINED_BYTES = 64 * 1024**2

device_router = APIRouter(prefix="/device/v1/repository", tags=["device"])
publisher_router = APIRouter(prefix="/api/v1/repository", tags=["repository"])
operator_router = APIRouter(prefix="/api/v1/releases", tags=["releases"])


@device_router.get("/metadata/{name}")
async def device_metadata(name: str, request: Request, services: Wired) -> Response:
    """Hand TUF metadata to a device (consistent snapshots)."""
    await services.devices.authenticate(bearer_token(request))
    return await _metadata(name, request, services)


@device_router.get("/targets/{path:path}")
async def device_target(path: str, request: Request, services: Wired) -> Response:
    """Hand a target to a device: ``models/<family>/<version>/<sha256>.<file>``; takes ``Range``."""
    await services.devices.authenticate(bearer_token(request))
    target, file = parse_hashed(path)
    await services.releases.check_owned(names.parse_target_path(target)[0])
    location = services.releases.repository.files.location(target, file)
    tag = f'"{file.sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
    try:
        status = await asyncio.to_thread(location.stat)
    except OSError:
        raise NotFoundError(f"there is no target {path[:300]!r}") from None
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return TargetResponse(
        location, headers=headers, media_type="application/octet-stream", stat_result=status
    )


@publisher_router.get("/metadata/{name}")
async def publisher_metadata(
    name: str, request: Request, services: Wired, _account: Publisher
) -> Response:
    """Hand TUF metadata to a publisher, who signs the next version of a family's role."""
    return await _metadata(name, request, services)


@operator_router.post("", status_code=201)
async def publish(request: Request, services: Wired, _account: Publisher) -> PublishedView:
    """Publish releases of one family.

    The body is ``multipart/form-data``, in this order: one field ``metadata`` with the family's
    newly signed TUF metadata (JSON), whose version is the current one plus 1; then, for every
    target that this metadata adds, one file field ``targets`` whose file name is the full target
    path ``models/<family>/<version>/<file>``. Everything is checked before anything is published,
    and on any refusal nothing is kept.
    """
    body = request.stream()
    try:
        upload = await services.releases.publish(
            multipart.pieces(request.headers.get("content-type"), body)
        )
    except FleetError:
        await _drain(body)
        raise
    for version in upload.releases:
        for pair in pairs.likely(services.releases.repository, upload.family, version):
            services.deltas.prepare(pair)
    return PublishedView(
        family=upload.family, metadata_version=upload.version, releases=upload.releases
    )


@operator_router.get("")
async def list_releases(
    services: Wired,
    _account: Reader,
    family: Annotated[str | None, Query(max_length=64)] = None,
    after: AfterName = None,
    limit: Limit = 100,
) -> ReleasePage:
    """List releases."""
    rows = await services.releases.page(family=family, after=after, limit=limit)
    return ReleasePage(
        releases=[ReleaseView.model_validate(row, from_attributes=True) for row in rows],
        next_after=following(rows, limit, lambda row: f"{row.family}/{row.version}"),
    )


@operator_router.get("/{family}/{version}")
async def get_release(
    family: str, version: str, services: Wired, _account: Reader
) -> ReleaseDetail:
    """Show one release with its manifest."""
    row, manifest = await services.releases.get(family, version)
    view = ReleaseView.model_validate(row, from_attributes=True)
    return ReleaseDetail(**view.model_dump(), manifest=_without_golden(manifest))


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Read what a refused client is still sending: many clients hear no answer before that."""
    drained = 0
    with contextlib.suppress(ClientDisconnect):
        async for chunk in body:
            drained += len(chunk)
            if drained > MAX_DRAINED_BYTES:
                return


def _without_golden(manifest: manifests.Manifest) -> dict[str, JsonValue]:
    shown: dict[str, JsonValue] = msgspec.to_builtins(manifest)
    shown["variants"] = [
        {key: value for key, value in msgspec.to_builtins(variant).items() if key != "golden"}
        for variant in manifest.variants
    ]
    return shown


async def _metadata(name: str, request: Request, services: Services) -> Response:
    location = services.releases.repository.metadata_file(checked_metadata_name(name))
    role = name.removesuffix(".json").rpartition(".")[2]
    if role in (await services.releases.published()).families:
        await services.releases.check_owned(role)
    try:
        content = await asyncio.to_thread(location.read_bytes)
    except OSError:
        raise NotFoundError(f"there is no metadata file {name}") from None
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    changes = name == "timestamp.json"
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache" if changes else "private, max-age=31536000, immutable",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


def parse_hashed(path: str) -> tuple[str, StoredFile]:
    """Return target path and hash of a target's consistent name.

    Raises:
        NotFoundError: it is not such a name.
    """
    folder, _, hashed = path.rpartition("/")
    digest, _, file = hashed.partition(".")
    try:
        target = f"{folder}/{file}"
        names.parse_target_path(target)
        msgspec.convert(digest, names.Sha256)
    except (ProtocolError, msgspec.ValidationError):
        raise NotFoundError(
            f"{path[:300]!r} is not models/<family>/<version>/<sha256>.<file>"
        ) from None
    return target, StoredFile(0, digest)
