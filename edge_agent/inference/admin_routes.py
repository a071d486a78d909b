"""The admin socket: what control asks of the runtime, beside the V2 protocol on every version."""

from typing import TypeVar

import msgspec

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import RequestError
from edge_agent.inference.http_messages import (
    Answer,
    HttpError,
    HttpRequest,
    HttpResponse,
    json_response,
)
from edge_agent.inference.v2_routes import V2Routes, no_such_path, require
from edge_agent.runtime_api import MAX_ACTIVE_SET_BYTES, Activation, ActiveRelease

_Body = TypeVar("_Body", bound=msgspec.Struct)


class AdminRoutes:
    """Answers what lies below ``/admin`` and ``/v2``."""

    def __init__(self, plane: DataPlane) -> None:
        """Work on a data plane."""
        self._plane = plane
        self._v2 = V2Routes(plane, every_version=True)

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
                return self._load(_body(request, ActiveRelease))
            case ["admin", "families", family, "activate"]:
                require(request, "POST")
                activation = _body(request, Activation)
                return json_response(self._plane.activate(family, activation.version))
            case ["admin", "families", family, "versions", version]:
                require(request, "DELETE")
                return self._unload(family, version)
            case ["admin", "families", family]:
                require(request, "DELETE")
                return self._unload_family(family)
            case ["v2", *_]:
                return self._v2(request)
            case _:
                raise no_such_path(request)

    async def _status(self) -> HttpResponse:
        return json_response(await self._plane.status())

    async def _load(self, release: ActiveRelease) -> HttpResponse:
        return json_response(await self._plane.load(release))

    async def _unload(self, family: str, version: str) -> HttpResponse:
        return json_response({"unloaded": await self._plane.unload(family, version)})

    async def _unload_family(self, family: str) -> HttpResponse:
        return json_response({"unloaded": await self._plane.unload_family(family)})


def _body(request: HttpRequest, body_type: type[_Body]) -> _Body:
    if len(request.body) > MAX_ACTIVE_SET_BYTES:
        raise HttpError(413, f"the body is larger than {MAX_ACTIVE_SET_BYTES} bytes")
    try:
        return msgspec.json.decode(request.body, type=body_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"not a {body_type.__name__}: {error}") from error
