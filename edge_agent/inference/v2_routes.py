"""The V2 protocol over HTTP: paths to the data plane.

Source: https://github.com/kserve/open-inference-protocol (inference_rest) and the extensions of
Triton that `metadata` names.
"""

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import AsleepError, UnavailableError
from edge_agent.inference.http_messages import (
    Answer,
    HttpRequest,
    HttpResponse,
    json_response,
    no_such_path,
    require,
)
from edge_agent.inference.metadata import placed_model_metadata, server_metadata
from edge_agent.inference.model_configuration import configuration
from edge_agent.inference.repository_routes import RepositoryRoutes
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.shared_memory import Regions
from edge_agent.inference.shared_memory_routes import SharedMemoryRoutes
from edge_agent.inference.v2_inference import InferenceRoute
from edge_agent.inference.v2_messages import StatisticsAnswer

_REMEMBERED = 64
"""Paths, each of at most a request's head: applications call the same few models."""


class V2Routes:
    """Answers what lies below ``/v2``."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        max_request_bytes: int,
        regions: Regions | None = None,
        memory: RequestMemory | None = None,
        admin: Path | None = None,
    ) -> None:
        """Choose what is visible.

        Args:
            plane: holds the models.
            max_request_bytes: what a request may have, decompressed too.
            regions: of shared memory; None where it is not enabled.
            memory: from which is taken what requests need beside their bodies; None for any amount.
            admin: None on sockets of applications. On the admin socket the committed releases
                (``active.json``): models may be loaded and unloaded, and a loaded version can be
                addressed by its number though it is not active; such calls are not counted.
        """
        self._plane = plane
        self._every_version = admin is not None
        self._max_request_bytes = max_request_bytes
        self._inference = InferenceRoute(
            plane,
            regions=regions,
            memory=memory or RequestMemory(),
            max_request_bytes=max_request_bytes,
        )
        self._shared_memory = SharedMemoryRoutes(regions)
        self._repository = RepositoryRoutes(plane, active_set=admin)
        self._has_shared_memory = regions is not None

    def __call__(self, request: HttpRequest) -> Answer:
        """Answer a request.

        Raises:
            HttpError: no such path or method.
            AgentError: what the data plane raises.
        """
        if (called := _called(request.path)) is not None:
            return self._infer(request, *called)
        match request.path.split("/")[1:]:
            case ["v2", "models", family, "versions", version, *what]:
                return self._of_model(request, family, version, what)
            case ["v2", "models", "stats"]:  # with a family of that name, too, as Triton has it
                return _read(request, self._all_statistics)
            case ["v2", "models", family, *what]:
                return self._of_model(request, family, None, what)
            case ["v2", *what]:
                return self._of_server(request, what)
        raise no_such_path(request)

    def _of_server(self, request: HttpRequest, what: list[str]) -> Answer:
        match what:
            case [] | [""]:
                return _read(request, self._server_metadata)
            case ["health", "live"]:
                return _read(request, HttpResponse)
            case ["health", "ready"]:
                return _read(request, self._ready)
            case ["systemsharedmemory", *rest]:
                return self._shared_memory.system(request, rest)
            case ["cudasharedmemory", *rest]:
                return self._shared_memory.cuda(request, rest)
            case ["repository", *rest]:
                return self._repository.answer(request, rest)
        raise no_such_path(request)

    def _of_model(
        self, request: HttpRequest, family: str, version: str | None, what: list[str]
    ) -> Answer:
        match what:
            case []:
                return _read(request, lambda: self._model(family, version))
            case ["ready"]:
                return _read(request, lambda: self._model_ready(family, version))
            case ["config"]:
                return _read(request, lambda: self._configuration(family, version))
            case ["stats"]:
                return _read(request, lambda: self._statistics(family, version))
        raise no_such_path(request)

    def _infer(self, request: HttpRequest, family: str, version: str | None) -> Answer:
        require(request, "POST")
        try:
            if self._every_version and version is not None:
                served = self._plane.held(family, version)
            else:
                served = self._plane.active(family, version)
        except AsleepError:
            return self._infer_awake(request, family, version)
        return self._inference.answer(
            request, served, counted=version is None or not self._every_version
        )

    async def _infer_awake(
        self, request: HttpRequest, family: str, version: str | None
    ) -> HttpResponse:
        await self._plane.awake(family)
        answer = self._infer(request, family, version)
        return answer if isinstance(answer, HttpResponse) else await answer

    def _described(self, family: str, version: str | None) -> ServedRelease:
        if self._every_version and version is not None:
            return self._plane.held(family, version)
        return self._plane.described(family, version)

    def _model(self, family: str, version: str | None) -> HttpResponse:
        served = self._described(family, version)
        versions = self._plane.versions(family) if self._every_version else None
        return json_response(placed_model_metadata(served, versions))

    def _model_ready(self, family: str, version: str | None) -> HttpResponse:
        served = self._described(family, version)
        if served.asleep and (problem := self._plane.problems.get(family)):
            raise UnavailableError(f"model {family!r} cannot be loaded again: {problem}")
        return HttpResponse()

    def _configuration(self, family: str, version: str | None) -> HttpResponse:
        served = self._described(family, version)
        return json_response(configuration(served, max_request_bytes=self._max_request_bytes))

    def _statistics(self, family: str, version: str | None) -> HttpResponse:
        served = self._described(family, version)
        return json_response(StatisticsAnswer([self._plane.statistics(served)]))

    def _all_statistics(self) -> HttpResponse:
        served = [self._plane.described(family) for family in self._plane.families]
        return json_response(StatisticsAnswer([self._plane.statistics(one) for one in served]))

    def _ready(self) -> HttpResponse:
        if not self._plane.ready:
            failed = ", ".join(sorted(self._plane.problems)) or "none, the runtime is stopping"
            raise UnavailableError(f"not ready; models that could not be loaded: {failed}")
        return HttpResponse()

    async def _server_metadata(self) -> HttpResponse:
        return json_response(
            await asyncio.to_thread(server_metadata, shared_memory=self._has_shared_memory)
        )


@functools.lru_cache(_REMEMBERED)
def _called(path: str) -> tuple[str, str | None] | None:
    """Return family and version of the model that a path calls, None if it is for anything else."""
    match path.split("/")[1:]:
        case ["v2", "models", family, "infer"]:
            return family, None
        case ["v2", "models", family, "versions", version, "infer"]:
            return family, version
    return None


def _read(request: HttpRequest, answer: Callable[[], Answer]) -> Answer:
    require(request, "GET")
    return answer()
