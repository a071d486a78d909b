"""The V2 protocol over HTTP: paths to the data plane.

Source: https://github.com/kserve/open-inference-protocol (inference_rest).
"""

import asyncio
import functools
from collections.abc import Callable

from edge_agent.inference import v2_codec
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import RequestError, UnavailableError
from edge_agent.inference.http_messages import (
    BINARY,
    Answer,
    HttpError,
    HttpRequest,
    HttpResponse,
    json_response,
)
from edge_agent.inference.inference_call import Call
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.v2_codec import InferenceRequest
from edge_agent.inference.v2_messages import ModelMetadata, ServerMetadata, TensorMetadata
from fleet_protocol.manifest import TensorSpec

_EXTENSIONS = ["binary_tensor_data"]


class V2Routes:
    """Answers what lies below ``/v2``."""

    def __init__(self, plane: DataPlane, *, every_version: bool) -> None:
        """Choose what is visible.

        Args:
            plane: holds the models.
            every_version: True on the admin socket: a loaded version can be addressed by its
                number though it is not active, and such calls are not counted.
        """
        self._plane = plane
        self._every_version = every_version

    def __call__(self, request: HttpRequest) -> Answer:
        """Answer a request.

        Raises:
            HttpError: no such path or method.
            AgentError: what the data plane raises.
        """
        match request.path.split("/")[1:]:
            case ["v2", "models", family, "versions", version, *what]:
                return self._of_model(request, family, version, what)
            case ["v2", "models", family, *what]:
                return self._of_model(request, family, None, what)
            case ["v2"] | ["v2", ""]:
                return _read(request, _server_metadata)
            case ["v2", "health", "live"]:
                return _read(request, HttpResponse)
            case ["v2", "health", "ready"]:
                return _read(request, self._ready)
        raise no_such_path(request)

    def _of_model(
        self, request: HttpRequest, family: str, version: str | None, what: list[str]
    ) -> Answer:
        match what:
            case ["infer"]:
                return self._infer(request, family, version)
            case []:
                return _read(request, lambda: self._model(family, version))
            case ["ready"]:
                return _read(request, lambda: self._model_ready(family, version))
        raise no_such_path(request)

    def _served(self, family: str, version: str | None) -> ServedRelease:
        if self._every_version and version is not None:
            return self._plane.held(family, version)
        return self._plane.active(family, version)

    def _infer(self, request: HttpRequest, family: str, version: str | None) -> Answer:
        require(request, "POST")
        served = self._served(family, version)
        call = self._plane.begin(
            served,
            started=request.received_at,
            counted=version is None or not self._every_version,
        )
        with call:
            if request.content_encoding not in ("", "identity"):
                raise RequestError(
                    f"Content-Encoding {request.content_encoding!r} is not understood here: send "
                    "the body as it is"
                )
            query = v2_codec.decode_request(request.body, request.header_length)
            feed = call.feed(query)
            if call.runs_inline(feed):
                return _encoded(query, served, call.run(feed))
            call.defer()
        return self._infer_in_thread(call, query, feed)

    async def _infer_in_thread(
        self, call: Call, query: InferenceRequest, feed: list[Tensor]
    ) -> HttpResponse:
        with call:
            return _encoded(query, call.release, await self._plane.run_in_thread(call, feed))

    def _model(self, family: str, version: str | None) -> HttpResponse:
        served = self._served(family, version)
        release = served.release
        versions = self._plane.held_versions(family) if self._every_version else [release.version]
        return json_response(
            ModelMetadata(
                name=release.family,
                versions=versions,
                platform=f"{served.backend_name}_{release.format}",
                inputs=[_metadata(spec) for spec in release.inputs],
                outputs=[_metadata(spec) for spec in release.outputs],
            )
        )

    def _model_ready(self, family: str, version: str | None) -> HttpResponse:
        self._served(family, version)
        return HttpResponse()

    def _ready(self) -> HttpResponse:
        if not self._plane.ready:
            failed = ", ".join(sorted(self._plane.failed)) or "none, the runtime is stopping"
            raise UnavailableError(f"not ready; models that could not be loaded: {failed}")
        return HttpResponse()


def no_such_path(request: HttpRequest) -> HttpError:
    """Return the error for a path that nothing answers."""
    return HttpError(404, f"no such path: {request.path[:200]!r}")


def require(request: HttpRequest, method: str) -> None:
    """Accept a request of the method; GET stands for HEAD too.

    Raises:
        HttpError: it has another one.
    """
    if request.method == method or (method == "GET" and request.method == "HEAD"):
        return
    allow = "GET, HEAD" if method == "GET" else method
    raise HttpError(405, f"{request.path[:200]} takes {allow}, not {request.method}", allow=allow)


def _read(request: HttpRequest, answer: Callable[[], Answer]) -> Answer:
    require(request, "GET")
    return answer()


def _encoded(query: InferenceRequest, served: ServedRelease, outputs: list[Tensor]) -> HttpResponse:
    answer = v2_codec.encode_answer(
        query,
        outputs,
        model_name=served.release.family,
        model_version=served.release.version,
    )
    if answer.header_length is None:
        return HttpResponse(parts=answer.parts)
    return HttpResponse(
        parts=answer.parts,
        content_type=BINARY,
        extra_headers=f"Inference-Header-Content-Length: {answer.header_length}\r\n",
    )


def _metadata(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=spec.datatype.value, shape=spec.shape)


async def _server_metadata() -> HttpResponse:
    version = await asyncio.get_running_loop().run_in_executor(None, _installed_version)
    return json_response(ServerMetadata(name="skerry", version=version, extensions=_EXTENSIONS))


@functools.cache
def _installed_version() -> str:
    import importlib.metadata  # noqa: PLC0415 (15 ms that only this question is worth)

    return importlib.metadata.version("skerry")
