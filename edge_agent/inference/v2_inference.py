"""``infer`` over HTTP: from the request's body to the answer's, whatever shape they come in."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace


from edge_agent.inference import compression, v2_codec
from edge_agent.inference.classification import ranked
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.errors import RequestError
from edge_agent.inference.http_messages import BINARY, Answer, HttpRequest, HttpResponse
from edge_agent.inference.inference_call import Call
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.shared_memory import INLINE_BYTES, Regions, copied_bytes
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.v2_codec import InferenceRequest

_PLAIN = ("", "identity")


class InferenceRoute:
    """Answers inference requests."""

    def __init__(
        self, plane: DataPlane, *, regions: Regions | None, max_request_bytes: int
    ) -> None:
        """Work on a data plane.

        Args:
            plane: runs the calls.
            regions: of shared memory; None where it is not enabled.
            max_request_bytes: that a compressed request may grow to.
        """
        self._plane = plane
        self._regions = regions
        self._max_request_bytes = max_request_bytes

    def answer(self, request: HttpRequest, served: ServedRelease, *, counted: bool) -> Answer:
        """Answer a request.

        Raises:
            AgentError: what is wrong with it, or what the data plane raises.
        """
        if request.content_encoding in _PLAIN:
            answer = self._answer(request, self._begin(request, served, counted=counted))
        else:
            answer = self._decompressed(request, self._begin(request, served, counted=counted))
        return _as_accepted(answer, request.accept_encoding) if request.accept_encoding else answer

    def _begin(self, request: HttpRequest, served: ServedRelease, *, counted: bool) -> Call:
        return self._plane.begin(served, started=request.received_at, counted=counted)

    async def _decompressed(self, request: HttpRequest, call: Call) -> HttpResponse:
        with call:
            body = await asyncio.to_thread(
                compression.decompressed,
                request.body,
                request.content_encoding,
                max_bytes=self._max_request_bytes,
                header_length=request.header_length,
            )
            call.defer()
        answer = self._answer(replace(request, body=body), call)
        return answer if isinstance(answer, HttpResponse) else await answer

    def _answer(self, request: HttpRequest, call: Call) -> Answer:
        with call:
            query = self._decoded(request, call)
            if query.shared_inputs and self._regions is not None:
                if copied_bytes(query) > INLINE_BYTES:
                    call.defer()
                    return self._answer_from_large_regions(query, call, self._regions)
                query = self._regions.filled(query)
            feed = call.feed(query)
            if call.runs_inline(feed):
                return self._encoded(query, call, call.run(feed))
            call.defer()
        return self._answer_later(query, call, feed)

    async def _answer_from_large_regions(
        self, query: InferenceRequest, call: Call, regions: Regions
    ) -> HttpResponse:
        with call:
            query = await asyncio.to_thread(regions.filled, query)
            feed = call.feed(query)
            call.defer()
        return await self._answer_later(query, call, feed)

    async def _answer_later(
        self, query: InferenceRequest, call: Call, feed: list[Tensor]
    ) -> HttpResponse:
        with call:
            outputs = await self._plane.run_in_thread(call, feed)
            if sum(place.byte_size for place in query.shared_outputs.values()) > INLINE_BYTES:
                return await asyncio.to_thread(self._encoded, query, call, outputs)
            return self._encoded(query, call, outputs)

    def _decoded(self, request: HttpRequest, call: Call) -> InferenceRequest:
        if request.header_length == 0 and request.body:
            return v2_codec.decode_raw(request.body, call.release.release.inputs)
        return v2_codec.decode_request(
            request.body, request.header_length, shared_memory=self._regions is not None
        )

    def _encoded(
        self, query: InferenceRequest, call: Call, outputs: Sequence[Tensor]
    ) -> HttpResponse:
        release = call.release.release
        if query.classes or query.shared_outputs:
            outputs = finished(query, call.release, outputs, self._regions)
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


def finished(
    query: InferenceRequest,
    served: ServedRelease,
    outputs: Sequence[Tensor],
    regions: Regions | None,
) -> list[Tensor]:
    """Return the outputs as the request wants them; put those away that go to shared memory.

    Raises:
        RequestError: an output has no classes, or does not fit into its region.
    """
    specs = {spec.name: spec for spec in served.release.outputs}
    finished_outputs = [
        ranked(output, specs[output.name], query.classes[output.name])
        if output.name in query.classes
        else output
        for output in outputs
    ]
    if query.shared_outputs:
        if regions is None:
            raise RequestError("shared memory is not enabled here (setting runtime.shared_memory)")
        regions.store(query, finished_outputs)
    return finished_outputs


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
    return replace(response, parts=[body], extra_headers=headers)


def _is_small(response: HttpResponse) -> bool:
    return sum(map(len, response.parts)) < compression.MIN_BYTES
