"""``/v2/repository``: which models there are, and on the admin socket loading and unloading them.

Source: Triton's model repository extension (protocol/extension_model_repository.md). What a device
serves is decided by its assignment, not by its applications, so these may look and not touch.
"""

import asyncio
from pathlib import Path

import msgspec

from edge_agent.inference.boot import ActiveSetError, read_active_set
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import LoadError, RequestError, UnknownModelError
from edge_agent.inference.http_messages import (
    Answer,
    HttpRequest,
    HttpResponse,
    no_such_path,
    require,
)
from edge_agent.inference.request_bodies import read_body
from edge_agent.runtime_api import ActiveRelease

_MAX_BODY_BYTES = 64 * 1024
_READY = "READY"
_UNAVAILABLE = "UNAVAILABLE"


class RepositoryIndexRequest(msgspec.Struct, frozen=True):
    """Body of ``index``."""

    ready: bool = False


class RepositoryModelRequest(msgspec.Struct, frozen=True):
    """Body of ``load`` and ``unload``."""

    parameters: dict[str, msgspec.Raw] = {}


class RepositoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of the index."""

    name: str
    version: str
    state: str
    reason: str = ""


class RepositoryRoutes:
    """Answers what lies below ``/v2/repository``."""

    def __init__(self, plane: DataPlane, *, active_set: Path | None) -> None:
        """Look at a data plane.

        Args:
            plane: holds the models.
            active_set: the committed releases, which may be loaded; None on sockets of
                applications, where nothing may be.
        """
        self._plane = plane
        self._active_set = active_set

    def answer(self, request: HttpRequest, what: list[str]) -> Answer:
        """Answer a request.

        Raises:
            HttpError: no such path or method.
            InferenceError: the model cannot be loaded or unloaded.
        """
        match what:
            case ["index"]:
                require(request, "POST")
                return self._index(request)
            case ["models", family, ("load" | "unload") as action]:
                require(request, "POST")
                return self._change(request, family, action)
        raise no_such_path(request)

    def _index(self, request: HttpRequest) -> HttpResponse:
        asked = read_body(request, RepositoryIndexRequest, max_bytes=_MAX_BODY_BYTES)
        entries = repository_index(
            self._plane, ready_only=asked.ready, every_version=self._active_set is not None
        )
        return HttpResponse(parts=[msgspec.json.encode(entries)])

    def _change(self, request: HttpRequest, family: str, action: str) -> Answer:
        if self._active_set is None:
            raise RequestError(
                f"applications cannot {action} models: this device serves what it has been "
                "assigned; assign another release, or ask on the admin socket"
            )
        body = read_body(request, RepositoryModelRequest, max_bytes=_MAX_BODY_BYTES)
        # `unload_dependents` is what Triton's clients always send; here no model has dependents.
        if unknown := body.parameters.keys() - {"unload_dependents"}:
            raise RequestError(
                f"{action} takes no parameters here, the request has {sorted(unknown)}: models "
                "come from signed releases only"
            )
        return self._load(family, self._active_set) if action == "load" else self._unload(family)

    async def _load(self, family: str, active_set: Path) -> HttpResponse:
        release = await asyncio.to_thread(_committed, family, active_set)
        if release is not None:
            await self._plane.load(release)
            self._plane.activate(family, release.version)
        elif versions := self._plane.versions(family):
            self._plane.activate(family, versions[0])
        else:
            raise UnknownModelError(
                f"this device has not committed to a release of {family[:80]!r} and holds none"
            )
        return HttpResponse()

    async def _unload(self, family: str) -> HttpResponse:
        if not await self._plane.unload_family(family):
            raise UnknownModelError(f"no model {family[:80]!r} is loaded")
        return HttpResponse()


def repository_index(
    plane: DataPlane, *, ready_only: bool, every_version: bool
) -> list[RepositoryEntry]:
    """Return the models of a data plane.

    Args:
        plane: holds them.
        ready_only: leave out those that could not be loaded.
        every_version: name all that are loaded, not only the active ones.
    """
    entries = [
        RepositoryEntry(name=family, version=version, state=_READY)
        for family in plane.families
        if family not in plane.problems
        for version in (
            plane.versions(family) if every_version else [plane.described(family).release.version]
        )
    ]
    if not ready_only:
        entries += [
            RepositoryEntry(name=family, version="", state=_UNAVAILABLE, reason=reason)
            for family, reason in sorted(plane.problems.items())
        ]
    return entries


def _committed(family: str, active_set: Path) -> ActiveRelease | None:
    try:
        releases = read_active_set(active_set).releases
    except ActiveSetError as error:
        raise LoadError(str(error)) from error
    return next((release for release in releases if release.family == family), None)
