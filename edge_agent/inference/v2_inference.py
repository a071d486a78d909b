"""``infer`` over HTTP: from the request's body to the answer's, whatever shape they come in."""

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial

import msgspec

from edge_agent.inference import compression, v2_codec
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.execution import Execution
from edge_agent.inference.http_messages import (
    BINARY,
    Answer,
    HttpError,
    HttpRequest,
    HttpResponse,
)
from edge_agent.inference.inference_call import Call
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.shared_memory import Regions
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease

_PLAIN = ("", "identity")
_AT_ONCE = 2
"""Bodies that are decompressed at the same time: how large one gets is known only afterwards."""


class InferenceRoute:
    """Answers inference requests."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        regions: Regions | None,
        memory: RequestMemory,
        max_request_bytes: int,
    ) -> None:
        """Work on a data plane.

        Args:
            plane: runs the calls.
            regions: of shared memory; None where it is not enabled.
            memory: from which is taken what requests need beside their bodies.
            max_request_bytes: that a compressed request may grow to.
        """
        self._plane = plane
        self._execution = Execution(plane, regions=regions, memory=memory)
        self._memory = memory
        self._decompressing = asyncio.Semaphore(_AT_ONCE)
        self._max_request_bytes = max_request_bytes

    def answer(self, request: HttpRequest, served: ServedRelease, *, counted: bool) -> Answer:
        """Answer a request.

        Raises:
            HttpError: its body has an encoding that is not known.
            AgentError: what is wrong with it, or what the data plane raises.
        """
        encoding = request.content_encoding
        if encoding not in _PLAIN and encoding not in compression.ENCODINGS:
            raise HttpError(
                415,
                f"Content-Encoding {encoding!r} is not understood here; known are "
                f"{', '.join(compression.ENCODINGS)}",
            )
        call = self._plane.begin(
            served,
            started=request.received_at,
            counted=counted,
            traceparent=request.traceparent,
            caller=request.caller,
        )
        plain = encoding in _PLAIN
        answer = self._answer(request, call) if plain else self._decompressed(request, call)
        return _as_accepted(answer, request.accept_encoding) if request.accept_encoding else answer

    async def _decompressed(self, request: HttpRequest, call: Call) -> HttpResponse:
        with call:
            async with self._decompressing:
                body = await asyncio.to_thread(
                    compression.decompressed,
                    request.body,
                    request.content_encoding,
                    max_bytes=self._max_request_bytes,
                    header_length=request.header_length,
                )
                grown_bytes = max(0, len(body) - len(request.body))
                self._memory.reserve(grown_bytes)
            call.defer()
        try:
            answer = self._answer(msgspec.structs.replace(request, body=body), call)
            return answer if isinstance(answer, HttpResponse) else await answer
        finally:
            self._memory.give_back(grown_bytes)

    def _answer(self, request: HttpRequest, call: Call) -> Answer:
        if request.header_length == 0 and request.body:
            decode = partial(v2_codec.decode_raw, request.body, call.release.release.inputs)
        else:
            decode = partial(
                v2_codec.decode_request,
                request.body,
                request.header_length,
                shared_memory=self._execution.shared_memory,
            )
        return self._execution.answer(call, decode, _encoded)


def _encoded(
    query: InferenceRequest, release: ActiveRelease, outputs: Sequence[Tensor]
) -> HttpResponse:
    answer = v2_codec.encode_answer(
        query, outputs, model_name=release.family, model_version=release.version
    )
    if answer.header_length is None:
        return HttpResponse(parts=answer.parts)
    return HttpResponse(
        parts=answer.parts,
        content_type=BINARY,
        extra_headers=f"Inference-Header-Content-Length: {answer.header_length}\r\n",
    )


def _as_accepted(answer: Answer, accepted: str) -> Answer:
    encoding = compression.chosen(accepted)
    if encoding is None or (isinstance(answer, HttpResponse) and _is_small(answer)):
        return answer
    return _compressed(answer, encoding)


async def _compressed(
    answer: HttpResponse | Awaitable[HttpResponse], encoding: str
) -> HttpResponse:
    response = answer if isinstance(answer, HttpResponse) else await answer
    if _is_small(response):
        return response
    body = await asyncio.to_thread(compression.compressed, response.parts, encoding)
    headers = f"{response.extra_headers}Content-Encoding: {encoding}\r\n"
    return msgspec.structs.replace(response, parts=[body], extra_headers=headers)


def _is_small(response: HttpResponse) -> bool:
    return sum(map(len, response.parts)) < compression.MIN_BYTES
