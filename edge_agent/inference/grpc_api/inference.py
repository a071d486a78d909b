"""Inference calls over gRPC: from the bytes of a message to the bytes of its answer."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from edge_agent.inference.answer_memory import StreamAnswers
from edge_agent.inference.data_plane import DataPlane
from edge_agent.inference.error_answers import ErrorAnswers
from edge_agent.inference.errors import AsleepError
from edge_agent.inference.execution import Execution
from edge_agent.inference.grpc_api import infer_codec
from edge_agent.inference.grpc_api.callers import Caller
from edge_agent.inference.grpc_api.calls import parsed
from edge_agent.inference.grpc_api.statuses import status_of
from edge_agent.inference.grpc_api.wire.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from edge_agent.inference.inference_request import InferenceRequest
from edge_agent.inference.request_memory import RequestMemory
from edge_agent.inference.served_release import ServedRelease
from edge_agent.inference.shared_memory import Regions
from edge_agent.inference.tensors import Tensor
from edge_agent.runtime_api import ActiveRelease

_MAX_ECHO = 1024
"""Characters of a name that a failure repeats: a caller might send megabytes of them."""


class Inference:
    """Answers inference requests on the active releases."""

    def __init__(
        self,
        plane: DataPlane,
        *,
        regions: Regions | None,
        memory: RequestMemory,
        error_answers: ErrorAnswers,
        clock: Callable[[], float],
    ) -> None:
        """Work on a data plane.

        Args:
            plane: holds the models.
            regions: of shared memory; None where it is not enabled.
            memory: from which messages are taken until they are answered.
            error_answers: takes note of the requests of streams that are answered with an error.
            clock: the one that times the plane's calls.
        """
        self._plane = plane
        self._execution = Execution(plane, regions=regions, memory=memory)
        self._memory = memory
        self._error_answers = error_answers
        self._clock = clock

    def answer(self, payload: bytes, caller: Caller) -> bytes | Awaitable[bytes]:
        """Answer a ``ModelInferRequest``, at once or later.

        Args:
            payload: the message.
            caller: who sent it.

        Raises:
            AgentError: what is wrong with it, or what the data plane raises.
        """
        started = self._clock()
        message = parsed(ModelInferRequest, payload)
        return self._accounted(message, len(payload), started, caller)

    def answer_in_stream(
        self,
        payload: bytes,
        caller: Caller,
        admit: Callable[[], None],
        answers: StreamAnswers,
    ) -> bytes | Awaitable[bytes]:
        """Answer as part of a stream, where errors are answers too.

        Args:
            payload: the message.
            caller: who sent it.
            admit: raises what is to be said if the caller has sent too many.
            answers: counts the answer.
        """
        started = self._clock()
        message = ModelInferRequest()
        try:
            message = parsed(ModelInferRequest, payload)
            admit()
            answer = self._accounted(message, len(payload), started, caller)
            if isinstance(answer, bytes):
                return _in_stream(answer, answers)
        except Exception as error:  # noqa: BLE001 (every request is answered; the unknown is logged)
            return self._failure(message, error, answers)
        return self._later(message, answer, answers)

    async def _later(
        self, message: ModelInferRequest, answer: Awaitable[bytes], answers: StreamAnswers
    ) -> bytes:
        try:
            return _in_stream(await answer, answers)
        except Exception as error:  # noqa: BLE001 (as in `answer_in_stream`)
            return self._failure(message, error, answers)

    def _failure(
        self, message: ModelInferRequest, error: Exception, answers: StreamAnswers
    ) -> bytes:
        self._error_answers.note(error)
        failure = ModelStreamInferResponse(
            error_message=status_of(error).message,
            infer_response=ModelInferResponse(
                model_name=message.model_name[:_MAX_ECHO],
                model_version=message.model_version[:_MAX_ECHO],
                id=message.id[:_MAX_ECHO],
            ),
        ).SerializeToString()
        answers.add_failure(len(failure))
        return failure

    def _accounted(
        self, message: ModelInferRequest, size_bytes: int, started: float, caller: Caller
    ) -> bytes | Awaitable[bytes]:
        """Answer a message while its bytes are taken from the memory for requests."""
        self._memory.reserve(size_bytes)
        try:
            answer = self._answer(message, started, caller)
        except BaseException:
            self._memory.give_back(size_bytes)
            raise
        if isinstance(answer, bytes):
            self._memory.give_back(size_bytes)
            return answer
        return self._given_back(answer, size_bytes)

    async def _given_back(self, answer: Awaitable[bytes], size_bytes: int) -> bytes:
        try:
            return await answer
        finally:
            self._memory.give_back(size_bytes)

    def _answer(
        self, message: ModelInferRequest, started: float, caller: Caller
    ) -> bytes | Awaitable[bytes]:
        try:
            served = self._plane.active(message.model_name, message.model_version or None)
        except AsleepError:
            return self._answer_awake(message, started, caller)
        return self._run(served, message, started, caller)

    async def _answer_awake(
        self, message: ModelInferRequest, started: float, caller: Caller
    ) -> bytes:
        await self._plane.awake(message.model_name)
        served = self._plane.active(message.model_name, message.model_version or None)
        answer = self._run(served, message, started, caller)
        return answer if isinstance(answer, bytes) else await answer

    def _run(
        self,
        served: ServedRelease,
        message: ModelInferRequest,
        started: float,
        caller: Caller,
    ) -> bytes | Awaitable[bytes]:
        return self._execution.answer(
            self._plane.begin(
                served, started=started, counted=True, traceparent=caller.traceparent
            ),
            partial(
                infer_codec.decode_request,
                message,
                time_left_s=caller.time_left_s,
                shared_memory=self._execution.shared_memory,
            ),
            _encoded,
        )


def _encoded(query: InferenceRequest, release: ActiveRelease, outputs: Sequence[Tensor]) -> bytes:
    return infer_codec.encode_answer(
        query, outputs, model_name=release.family, model_version=release.version
    )


def _in_stream(answer: bytes, answers: StreamAnswers) -> bytes:
    in_stream = infer_codec.stream_answer(answer)
    answers.add(len(in_stream))
    return in_stream
