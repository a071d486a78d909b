"""One inference call over gRPC: as `v2_routes` has it over HTTP."""

from collections.abc import Awaitable, Callable

from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.grpc_api import infer_codec
from edge_agent.inference.grpc_api.calls import parsed
from edge_agent.inference.grpc_api.statuses import status_of
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from edge_agent.inference.inference_call import Call
from edge_agent.inference.tensors import Tensor
from edge_agent.inference.v2_codec import InferenceRequest


class Inference:
    """Answers inference requests on the active releases."""

    def __init__(self, plane: DataPlane, *, clock: Callable[[], float]) -> None:
        """Work on a data plane.

        Args:
            plane: holds the models.
            clock: the one that times the plane's calls.
        """
        self._plane = plane
        self._clock = clock

    def answer(self, payload: bytes) -> bytes | Awaitable[bytes]:
        """Answer a ``ModelInferRequest``, at once or later.

        Raises:
            AgentError: what is wrong with it, or what the data plane raises.
        """
        started = self._clock()
        return self._answer(parsed(ModelInferRequest, payload), started)

    def answer_in_stream(self, payload: bytes) -> bytes | Awaitable[bytes]:
        """Answer as part of a stream, where errors are answers too."""
        started = self._clock()
        message = ModelInferRequest()
        try:
            message = parsed(ModelInferRequest, payload)
            answer = self._answer(message, started)
        except Exception as error:  # noqa: BLE001 (every request is answered; the unknown is logged)
            return _failure(message, error)
        if isinstance(answer, bytes):
            return infer_codec.stream_answer(answer)
        return _later(message, answer)

    def _answer(self, message: ModelInferRequest, started: float) -> bytes | Awaitable[bytes]:
        served = self._plane.active(message.model_name, message.model_version or None)
        call = self._plane.begin(served, started=started, counted=True)
        with call:
            query = infer_codec.decode_request(message)
            feed = call.feed(query)
            if call.runs_inline(feed):
                return _encoded(query, call, call.run(feed))
            call.defer()
        return self._run_in_turn(call, query, feed)

    async def _run_in_turn(self, call: Call, query: InferenceRequest, feed: list[Tensor]) -> bytes:
        with call:
            return _encoded(query, call, await self._plane.run_in_thread(call, feed))


def _encoded(query: InferenceRequest, call: Call, outputs: list[Tensor]) -> bytes:
    release = call.release.release
    return infer_codec.encode_answer(
        query, outputs, model_name=release.family, model_version=release.version
    )


async def _later(message: ModelInferRequest, answer: Awaitable[bytes]) -> bytes:
    try:
        return infer_codec.stream_answer(await answer)
    except Exception as error:  # noqa: BLE001 (as in `answer_in_stream`)
        return _failure(message, error)


def _failure(message: ModelInferRequest, error: Exception) -> bytes:
    return ModelStreamInferResponse(
        error_message=status_of(error).message,
        infer_response=ModelInferResponse(
            model_name=message.model_name, model_version=message.model_version, id=message.id
        ),
    ).SerializeToString()
