"""``/v2/systemsharedmemory`` and ``/v2/cudasharedmemory``.

Source: Triton's shared memory extension (protocol/extension_shared_memory.md).
"""

from typing import Annotated

import msgspec

from edge_agent.inference.errors import RequestError, UnknownModelError
from edge_agent.inference.http_messages import (
    HttpError,
    HttpRequest,
    HttpResponse,
    no_such_path,
    require,
)
from edge_agent.inference.request_bodies import read_body
from edge_agent.inference.shared_memory import Regions, RegionStatus
from edge_agent.inference.v2_messages import Size

_MAX_BODY_BYTES = 64 * 1024
MAX_NAME = 200


class RegisterSystemRegion(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``register``."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    byte_size: Annotated[int, msgspec.Meta(ge=1, le=2**40)]
    offset: Size = 0


class SharedMemoryRoutes:
    """Answers what lies below the two prefixes."""

    def __init__(self, regions: Regions | None) -> None:
        """Work on regions; None where shared memory is not enabled."""
        self._regions = regions

    def system(self, request: HttpRequest, what: list[str]) -> HttpResponse:
        """Answer a request about system shared memory.

        Raises:
            HttpError: no such path or method, or shared memory is not enabled.
            InferenceError: the region cannot be registered, or is not there.
        """
        name, action = _split(request, what)
        if action == "status":
            require(request, "GET")
            return self._status(name)
        require(request, "POST")
        if action == "unregister":
            if self._regions is not None:
                self._regions.unregister(name)
            return HttpResponse()
        if name is None:
            raise no_such_path(request)
        return self._register(request, name)

    def cuda(self, request: HttpRequest, what: list[str]) -> HttpResponse:
        """Answer a request about the memory of CUDA devices, of which none is shared here.

        Raises:
            HttpError: no such path or method, or a region shall be registered.
            InferenceError: a region is asked for by name.
        """
        name, action = _split(request, what)
        if action == "status":
            require(request, "GET")
            if name is not None:
                raise _unknown(name)
            return HttpResponse(parts=[b"[]"])
        require(request, "POST")
        if action == "unregister":
            return HttpResponse()
        raise HttpError(
            501,
            "shared memory of CUDA devices is not offered here; use system shared memory or "
            "binary data",
        )

    def _status(self, name: str | None) -> HttpResponse:
        if self._regions is None:
            if name is not None:
                raise _unknown(name)
            return HttpResponse(parts=[b"[]"])
        return HttpResponse(parts=[msgspec.json.encode(self._regions.status(name))])

    def _register(self, request: HttpRequest, name: str) -> HttpResponse:
        if self._regions is None:
            raise HttpError(
                501,
                "shared memory is not enabled here: set runtime.shared_memory in agent.toml and "
                "restart the runtime, or send binary data",
            )
        if not name or len(name) > MAX_NAME:
            raise RequestError(f"the name of a region has 1 to {MAX_NAME} characters")
        body = read_body(request, RegisterSystemRegion, max_bytes=_MAX_BODY_BYTES)
        self._regions.register(
            RegionStatus(name=name, key=body.key, offset=body.offset, byte_size=body.byte_size)
        )
        return HttpResponse()


def _split(request: HttpRequest, what: list[str]) -> tuple[str | None, str]:
    match what:
        case [("status" | "unregister") as action]:
            return None, action
        case ["region", name, ("status" | "register" | "unregister") as action]:
            return name, action
    raise no_such_path(request)


def _unknown(name: str) -> UnknownModelError:
    return UnknownModelError(f"no shared memory region {name[:MAX_NAME]!r} is registered")
