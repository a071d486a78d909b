"""The admin socket: what control asks of the runtime, beside the V2 protocol on every version."""

import time
from collections.abc import Sequence
from pathlib import Path

from edge_agent.inference import v2_codec
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.http_messages import (
    Answer,
    HttpRequest,
    HttpResponse,
    json_response,
    no_such_path,
    require,
)
from edge_agent.inference.race import Races
from edge_agent.inference.request_bodies import read_body
from edge_agent.inference.shared_memory import Regions
from edge_agent.inference.v2_routes import V2Routes
from edge_agent.runtime_api import (
    MAX_ACTIVE_SET_BYTES,
    Activation,
    ActiveRelease,
    RaceResult,
    ShadowOrder,
)


class AdminRoutes:
    """Answers what lies below ``/admin`` and ``/v2``."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        active_set: Path,
        max_request_bytes: int,
        regions: Regions | None = None,
    ) -> None:
        """Work on a data plane.

        Args:
            plane: holds the models.
            active_set: the committed releases.
            max_request_bytes: see `V2Routes`.
            regions: see there.
        """
        self._plane = plane
        self._races = Races(clock=time.perf_counter, going=lambda: plane.accepting)
        self._v2 = V2Routes(
            plane, max_request_bytes=max_request_bytes, regions=regions, admin=active_set
        )

    def __call__(self, request: HttpRequest) -> Answer:
        """Answer a request.

        Raises:
            HttpError: no such path or method.
            AgentError: what the data plane raises.
        """
        match request.path.split("/")[1:]:
            case ["admin", "status"]:
                require(request, "GET")
                return self._status()
            case ["admin", "releases"]:
                require(request, "POST")
                return self._load(read_body(request, ActiveRelease, max_bytes=MAX_ACTIVE_SET_BYTES))
            case ["admin", "families", family, *what]:
                return self._family(request, family, what)
            case ["v2", *_]:
                return self._v2(request)
            case _:
                raise no_such_path(request)

    def _family(self, request: HttpRequest, family: str, what: list[str]) -> Answer:
        match what:
            case []:
                require(request, "DELETE")
                return self._unload_family(family)
            case ["activate"]:
                require(request, "POST")
                activation = read_body(request, Activation, max_bytes=MAX_ACTIVE_SET_BYTES)
                return json_response(self._plane.activate(family, activation.version))
            case ["shadow"]:
                require(request, "POST")
                order = read_body(request, ShadowOrder, max_bytes=MAX_ACTIVE_SET_BYTES)
                return json_response(self._plane.shadow(family, order))
            case ["versions", version]:
                require(request, "DELETE")
                return self._unload(family, version)
            case ["race", versions]:
                require(request, "POST")
                return self._race(request, family, versions.split(","))
        raise no_such_path(request)

    async def _race(
        self, request: HttpRequest, family: str, versions: Sequence[str]
    ) -> HttpResponse:
        entrants = [self._plane.held(family, version) for version in dict.fromkeys(versions)]
        query = v2_codec.decode_request(request.body, request.header_length, shared_memory=False)
        return json_response(RaceResult(seconds=await self._races.run(entrants, query)))

    async def _status(self) -> HttpResponse:
        return json_response(await self._plane.status())

    async def _load(self, release: ActiveRelease) -> HttpResponse:
        return json_response(await self._plane.load(release))

    async def _unload(self, family: str, version: str) -> HttpResponse:
        return json_response({"unloaded": await self._plane.unload(family, version)})

    async def _unload_family(self, family: str) -> HttpResponse:
        return json_response({"unloaded": await self._plane.unload_family(family)})
